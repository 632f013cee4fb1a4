"""Evaluation of a language model: likelihood of the reference answers, scores of its answers."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.distill.checks import check_length
from geodistill.distill.collate import batches_by_length, to_device
from geodistill.distill.feature_term import loss_mask
from geodistill.distill.hooks import lm_head_on_positions
from geodistill.experiments.instruction.generate import BATCH_SIZE, Example, generate
from geodistill.experiments.run_store import Evaluation

NGRAM_SIZE = 4
"""Words of the n-grams whose repetition is counted."""
_WITHOUT_BLANKS = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""A character of Thai, Lao, Tibetan, Burmese, Khmer, Japanese or Chinese."""


def evaluate_model(
    model: Any, tokenizer: Any, examples: list[Example], max_new_tokens: int
) -> Evaluation:
    """Likelihood of the reference answers, and scores of greedy answers.

    Args:
        model: a causal language model.
        tokenizer: of the model.
        examples: with `input_ids`, `labels`, `prompt_ids`, `completion`, `item`, `source` and
            perhaps `inserted`, which is taken off the answers that begin with it.
        max_new_tokens: longest answer, in tokens.

    Returns:
        The metrics: `nll`, in nats per token over all answer tokens, and `answer_metrics`. And one
        row per example: `nll_items` and the columns of `score_answers`.
    """
    model.eval()
    nll, n_tokens = answer_nll(model, examples, tokenizer.pad_token_id)
    answers = generate(model, tokenizer, examples, max_new_tokens)
    pairs = zip(examples, answers, strict=True)
    scores = score_answers(
        examples, [text.removeprefix(e.get("inserted", "")) for e, text in pairs]
    )
    items = pd.concat([nll_items(examples, nll, n_tokens), scores], axis=1)
    return {"nll": float(nll.sum() / n_tokens.sum()), **answer_metrics(scores)}, items


def answer_metrics(scores: pd.DataFrame) -> dict[str, float]:
    """The means of `rougeL`, `exact_match`, `repetition` (all in 0..1) and `words`.

    Args:
        scores: of answers, from `score_answers`.
    """
    names = ("rougeL", "exact_match", "repetition", "words")
    return {name: float(scores[name].mean()) for name in names}


@torch.no_grad()
def answer_nll(model: Any, examples: list[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """The negative log-likelihood of each example's reference answer.

    Args:
        model: a causal language model.
        examples: with `input_ids` and `labels`.
        pad_id: token for padding.

    Returns:
        The NLL in nats, summed over the tokens of each answer, and the number of these tokens;
        both (n,) in float64.

    Raises:
        InputError: an example that exceeds the model's positions.
    """
    nll = torch.zeros(len(examples), dtype=torch.float64)
    n_tokens = torch.zeros(len(examples), dtype=torch.float64)
    for batch in batches_by_length(examples, BATCH_SIZE, pad_id):
        rows = batch.pop("row")
        check_length(batch, model, "model")
        batch = to_device(model, batch)
        mask, labels = loss_mask(batch), batch.pop("labels")
        with lm_head_on_positions(model, mask):
            logits = model(**batch).logits.float()
        targets = labels[:, 1:][mask[:, :-1]]
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none").double()
        counts = mask.sum(1).cpu()
        nll.index_add_(0, rows.repeat_interleave(counts), losses.cpu())
        n_tokens[rows] = counts.double()
    return nll, n_tokens


@torch.no_grad()
def teacher_forced_exact_match(model: Any, examples: list[Example], pad_id: int) -> list[bool]:
    """Whether greedy decoding would give each example's reference answer, token by token.

    It does if, and only if, each token of the answer is the most likely one after the tokens
    before it, so that one forward pass decides it.

    Args:
        model: a causal language model.
        examples: with `input_ids` and `labels`.
        pad_id: token for padding.
    """
    exact = [False] * len(examples)
    for batch in batches_by_length(examples, BATCH_SIZE, pad_id):
        rows = batch.pop("row").tolist()
        batch = to_device(model, batch)
        mask, labels = loss_mask(batch), batch.pop("labels")
        wrong = mask & (model(**batch).logits.argmax(-1) != labels.roll(-1, dims=1))
        for row, is_wrong in zip(rows, wrong.any(1).tolist(), strict=True):
            exact[row] = not is_wrong
    return exact


def nll_items(examples: list[Example], nll: Tensor, n_tokens: Tensor) -> pd.DataFrame:
    """One row per example: item, source and nll, per token.

    Args:
        examples: with `item` and `source`.
        nll: summed over the answer tokens of each example, (n,).
        n_tokens: of each answer, (n,).
    """
    items = pd.DataFrame(examples, columns=["item", "source"])
    return items.assign(nll=(nll / n_tokens).numpy())


def exact_matches(examples: list[Example], answers: list[str]) -> list[float]:
    """1 for each answer that is the reference, the ends of both stripped, else 0.

    Args:
        examples: whose `completion` is the reference answer.
        answers: one per example.
    """
    pairs = zip(examples, answers, strict=True)
    return [float(example["completion"].strip() == answer.strip()) for example, answer in pairs]


def score_answers(
    examples: list[Example], answers: list[str], *, stemmer: bool = False
) -> pd.DataFrame:
    """One row per answer: score, exact_match, rougeL, words, repetition and answer.

    The score is the exact match, with the ends of both texts stripped. Rouge-L compares words of a
    to z and 0 to 9, in lower case. Where a text has other letters it compares words of any letters,
    single characters in scripts without blanks; where the reference has no letter or digit, all
    characters but blanks.

    Args:
        examples: whose `completion` is the reference answer.
        answers: one per example.
        stemmer: whether Rouge-L compares Porter stems, as in the evaluations of MiniLLM and
            DistiLLM, and words of a to z and 0 to 9 alone; scores with and without stems are not
            comparable.
    """
    from rouge_score.rouge_scorer import RougeScorer

    standard = RougeScorer(["rougeL"], use_stemmer=stemmer)
    by_tokens = {
        tokens: RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=tokens))
        for tokens in (_characters, _unicode_words)
    }

    def rouge_l(reference: str, answer: str) -> float:
        scorer = standard
        if not stemmer and not any(map(str.isalnum, reference)):
            scorer = by_tokens[_characters]
        elif not stemmer and any(c.isalnum() and not c.isascii() for c in reference + answer):
            scorer = by_tokens[_unicode_words]
        score: float = scorer.score(reference, answer)["rougeL"].fmeasure
        return score

    pairs = list(zip([e["completion"] for e in examples], answers, strict=True))
    exact_match = exact_matches(examples, answers)
    return pd.DataFrame(
        {
            "score": exact_match,
            "exact_match": exact_match,
            "rougeL": [rouge_l(a, b) for a, b in pairs],
            "words": [float(len(b.split())) for b in answers],
            "repetition": [repeated_ngram_rate(b) for b in answers],
            "answer": answers,
        }
    )


def _characters(text: str) -> list[str]:
    return list("".join(text.split()))


def _unicode_words(text: str) -> list[str]:
    """Runs of letters, digits and the marks on them; single characters in scripts without blanks.

    Example:
        >>> _unicode_words("Größe: 5 m²; 北京")
        ['grösse', '5', 'm2', '北', '京']
    """
    text = _WITHOUT_BLANKS.sub(r" \g<0> ", unicodedata.normalize("NFKC", text).casefold())
    return "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text).split()


def repeated_ngram_rate(text: str) -> float:
    """Share of the text's 4-grams of words that repeat an earlier one, in [0, 1)."""
    words = text.split()
    ngrams = Counter(tuple(words[i : i + NGRAM_SIZE]) for i in range(len(words) - NGRAM_SIZE + 1))
    return 1 - len(ngrams) / ngrams.total() if ngrams else 0.0

"""Evaluation of a language model: likelihood of the reference answers, scores of its answers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.distill.checks import check_length
from geodistill.distill.collate import batches_by_length, to_device
from geodistill.distill.feature_term import loss_mask
from geodistill.distill.hooks import lm_head_on_positions
from geodistill.experiments.instruction.generate import BATCH_SIZE, Example, generate

NGRAM_SIZE = 4
"""Words of the n-grams whose repetition is counted."""
N_SAMPLED = 100
"""Examples, the first ones, that are also answered by sampling, which takes most of the time."""


def evaluate_model(
    model: Any,
    tokenizer: Any,
    examples: list[Example],
    max_new_tokens: int,
    sampling_seeds: tuple[int, ...] = (),
) -> tuple[dict[str, float], pd.DataFrame]:
    """Likelihood of the reference answers, and scores of greedy and sampled answers.

    Args:
        model: a causal language model.
        tokenizer: of the model.
        examples: with `input_ids`, `labels`, `prompt_ids`, `completion`, `item` and `source`.
        max_new_tokens: longest answer, in tokens.
        sampling_seeds: each adds `rougeL/seed<s>` to metrics and items and `answer/seed<s>` to the
            items, for the first `N_SAMPLED` examples.

    Returns:
        The metrics: `nll`, in nats per token over all answer tokens; over the greedy answers the
        means of `rougeL`, `exact_match`, `repetition` (all in 0..1) and `words`. And one row per
        example, with columns of these names, `item`, `source`, `answer`, and `score`, minus the
        NLL per token.
    """
    model.eval()
    nll, n_tokens = answer_nll(model, examples, tokenizer.pad_token_id)
    greedy = score_answers(examples, generate(model, tokenizer, examples, max_new_tokens))
    items = pd.concat([nll_items(examples, nll, n_tokens), greedy], axis=1)
    for seed in sampling_seeds:
        first = examples[:N_SAMPLED]
        answers = generate(model, tokenizer, first, max_new_tokens, seed=seed)
        sampled = score_answers(first, answers)[["rougeL", "answer"]]
        items = items.join(sampled.add_suffix(f"/seed{seed}"))
    metrics = {"nll": float(nll.sum() / n_tokens.sum())}
    sampled_metrics = [f"rougeL/seed{seed}" for seed in sampling_seeds]
    for name in ("rougeL", *sampled_metrics, "exact_match", "repetition", "words"):
        metrics[name] = float(items[name].mean())
    return metrics, items


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
    """One row per example: item, source, score (minus the NLL per token) and nll (per token).

    Args:
        examples: with `item` and `source`.
        nll: summed over the answer tokens of each example, (n,).
        n_tokens: of each answer, (n,).
    """
    per_token = (nll / n_tokens).numpy()
    names = {key: [e[key] for e in examples] for key in ("item", "source")}
    return pd.DataFrame({**names, "score": -per_token, "nll": per_token})


def unigram_nll(
    train: list[Example], test: list[Example], vocab_size: int
) -> tuple[Tensor, Tensor]:
    """The NLL under a unigram model of the training answers, with add-one smoothing.

    Args:
        train: examples whose answer tokens are counted.
        test: examples that are scored.
        vocab_size: number of tokens.

    Returns:
        The NLL in nats of each test example's answer, and its number of tokens; both (n,).
    """
    counts = torch.ones(vocab_size, dtype=torch.float64)
    for example in train:
        counts += torch.bincount(_answer_tokens(example), minlength=vocab_size)
    token_nll = -(counts / counts.sum()).log()
    answers = [_answer_tokens(example) for example in test]
    nll = torch.stack([token_nll[answer].sum() for answer in answers])
    return nll, torch.tensor([float(len(a)) for a in answers], dtype=torch.float64)


def _answer_tokens(example: Example) -> Tensor:
    return torch.tensor([label for label in example["labels"] if label != -100])


def score_answers(
    examples: list[Example], answers: list[str], *, stemmer: bool = False
) -> pd.DataFrame:
    """One row per answer: rougeL, exact_match (ends stripped), words, repetition and answer.

    Args:
        examples: whose `completion` is the reference answer.
        answers: one per example.
        stemmer: whether Rouge-L compares Porter stems, as in the evaluations of MiniLLM and
            DistiLLM; scores with and without stems are not comparable.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=stemmer)
    pairs = list(zip([e["completion"] for e in examples], answers, strict=True))
    return pd.DataFrame(
        {
            "rougeL": [scorer.score(a, b)["rougeL"].fmeasure for a, b in pairs],
            "exact_match": [float(a.strip() == b.strip()) for a, b in pairs],
            "words": [float(len(b.split())) for b in answers],
            "repetition": [repeated_ngram_rate(b) for b in answers],
            "answer": answers,
        }
    )


def repeated_ngram_rate(text: str) -> float:
    """Share of the text's 4-grams of words that repeat an earlier one, in [0, 1)."""
    words = text.split()
    ngrams = Counter(tuple(words[i : i + NGRAM_SIZE]) for i in range(len(words) - NGRAM_SIZE + 1))
    return 1 - len(ngrams) / ngrams.total() if ngrams else 0.0

"""What a language model answers, and how well: likelihood of the right answer, own answers."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from geodistill.distill.checks import check_length
from geodistill.distill.feature_term import kept_rows
from geodistill.distill.hooks import head_on_rows
from geodistill.distill.teacher_cache import cache_key
from geodistill.errors import InputError
from geodistill.experiments.training import beside, in_batches

Example = dict[str, Any]
BATCH = 32
GRAM = 4
"""Words of a run whose repetition is counted."""
SAMPLED = 100
"""Examples, the first ones, that are answered by sampling too: it costs most of a scoring."""


def model_inputs(example: Example) -> Example:
    """The part of an example that a model sees."""
    return {"input_ids": example["input_ids"], "labels": example["labels"]}


def score(
    model: Any,
    tokenizer: Any,
    examples: list[Example],
    new_tokens: int,
    decodings: tuple[int, ...] = (),
) -> tuple[dict[str, float], pd.DataFrame]:
    """Likelihood of the right answers, and marks of the model's own, greedy and sampled.

    Args:
        model: a causal language model.
        tokenizer: its own.
        examples: as `instruction_room.choose` gives them.
        new_tokens: longest answer.
        decodings: seeds; each adds `rougeL/seed<s>` to metrics and items, and `answer/seed<s>`, of
            the first `SAMPLED` examples.

    Returns:
        Metrics: `nll` in nats over all answer tokens; means of `rougeL`, `exact_match`,
        `repetition` (all 0..1) and `words` over the greedy answers. And a row an item, whose
        `score` is minus its NLL a token.
    """
    model.eval()
    total, count = likelihoods(model, examples, tokenizer.pad_token_id)
    marks = marked(examples, generate(model, tokenizer, examples, new_tokens))
    items = pd.concat([likelihood_items(examples, total, count), marks], axis=1)
    for seed in decodings:
        few = examples[:SAMPLED]
        sampled = marked(few, generate(model, tokenizer, few, new_tokens, seed=seed))
        sampled = sampled[["rougeL", "answer"]]
        items = items.join(sampled.add_suffix(f"/seed{seed}"))
    sampled_marks = [f"rougeL/seed{seed}" for seed in decodings]
    metrics = {"nll": float(total.sum() / count.sum())}
    for name in ("rougeL", *sampled_marks, "exact_match", "repetition", "words"):
        metrics[name] = float(items[name].mean())
    return metrics, items


@torch.no_grad()
def answer_logits(
    model: Any, examples: list[Example], pad_id: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """A batch at a time: places of its examples, their answer tokens' number, logits, the tokens.

    Logits (tokens, vocabulary), float32, are those that predict the answer tokens.
    """
    for batch in in_batches([model_inputs(e) for e in examples], BATCH, pad_id):
        rows = batch.pop("row")
        check_length(batch, model, "model")
        batch = beside(model, batch)
        mask, labels = kept_rows(batch), batch.pop("labels")
        with head_on_rows(model, mask):
            logits = model(**batch).logits.float()
        yield rows, mask.sum(1).cpu(), logits, labels[:, 1:][mask[:, :-1]]


def likelihoods(model: Any, examples: list[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """Nats of each example's answer, summed over its tokens, and their number; float64."""
    total = torch.zeros(len(examples), dtype=torch.float64)
    count = torch.zeros(len(examples), dtype=torch.float64)
    for rows, kept, logits, targets in answer_logits(model, examples, pad_id):
        nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none").double()
        total.index_add_(0, rows.repeat_interleave(kept), nll.cpu())
        count[rows] = kept.double()
    return total, count


def likelihood_items(examples: list[Example], total: Tensor, count: Tensor) -> pd.DataFrame:
    """A row an item: item, source, score (minus NLL a token), nll."""
    nll: np.ndarray[Any, Any] = (total / count).numpy()
    names = {key: [e[key] for e in examples] for key in ("item", "source")}
    return pd.DataFrame({**names, "score": -nll, "nll": nll})


def unigram_nll(
    train: list[Example], test: list[Example], vocabulary: int
) -> tuple[Tensor, Tensor]:
    """As `likelihoods`, of a model that knows only how often a token stands in an answer.

    Counts over the training answers, one added to each of the `vocabulary` tokens.
    """
    counts = torch.ones(vocabulary, dtype=torch.float64)
    for example in train:
        counts += torch.bincount(_answer(example), minlength=vocabulary)
    nats = -(counts / counts.sum()).log()
    answers = [_answer(example) for example in test]
    total = torch.stack([nats[answer].sum() for answer in answers])
    return total, torch.tensor([float(len(a)) for a in answers], dtype=torch.float64)


def _answer(example: Example) -> Tensor:
    return torch.tensor([label for label in example["labels"] if label != -100])


def marked(examples: list[Example], answers: list[str], *, stemmer: bool = False) -> pd.DataFrame:
    """A row an answer: rougeL, exact_match (ends stripped), words, repetition, the answer.

    Rouge-L compares words as they are, or, with `stemmer`, without their endings (Porter's), as
    MiniLLM and DistiLLM do; scores of the two do not compare.
    """
    from rouge_score.rouge_scorer import RougeScorer

    rouge = RougeScorer(["rougeL"], use_stemmer=stemmer)
    wanted = [e["completion"] for e in examples]
    pairs = list(zip(wanted, answers, strict=True))
    return pd.DataFrame(
        {
            "rougeL": [rouge.score(a, b)["rougeL"].fmeasure for a, b in pairs],
            "exact_match": [float(a.strip() == b.strip()) for a, b in pairs],
            "words": [float(len(b.split())) for b in answers],
            "repetition": [repetition(b) for b in answers],
            "answer": answers,
        }
    )


def repetition(text: str) -> float:
    """Share of the text's runs of four words that stood in it before, in [0, 1)."""
    words = text.split()
    runs = Counter(tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1))
    return 1 - len(runs) / runs.total() if runs else 0.0


def generate(
    model: Any,
    tokenizer: Any,
    examples: list[Example],
    new_tokens: int,
    *,
    seed: int | None = None,
    stored: Path | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Answers in batches, with padding on the left and a key-value cache.

    Args:
        model: as for `score`, like tokenizer, examples and new_tokens.
        tokenizer: see there.
        examples: see there.
        new_tokens: see there.
        seed: None for greedy answers, else of samples at temperature 1 from all tokens.
        stored: a file of finished batches, a line each, which an interrupted call goes on from.
        report: called with answers done and their total.

    Raises:
        InputError: no examples; prompts with their answers that exceed the model's positions;
            `stored` answers to other prompts, or of another seed or length.
    """
    if not examples:
        raise InputError("examples is empty: expected at least one")
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["prompt_ids"]))
    _check_room(model, max(len(e["prompt_ids"]) for e in examples), new_tokens)
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    answers = [""] * len(examples)
    done, key = [], ""
    if stored:
        prompts = json.dumps([e["prompt_ids"] for e in examples])
        key = cache_key(prompts, str(new_tokens), str(seed))
        done = _stored_batches(stored, batches, key)
    for place, batch in enumerate(batches):
        if place < len(done):
            texts = done[place]
        else:
            with _seeded(None if seed is None else seed * 100_000 + place):
                own = [examples[i]["prompt_ids"] for i in batch]
                texts = _generate_batch(model, tokenizer, own, new_tokens, seed is not None)
            if stored:
                _store_batch(stored, batch, texts, key)
        for i, text in zip(batch, texts, strict=True):
            answers[i] = text
        report(min((place + 1) * BATCH, len(examples)), len(examples))
    return answers


def _check_room(model: Any, longest: int, new_tokens: int) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and longest + new_tokens > positions:
        raise InputError(
            f"the longest prompt has {longest} tokens; with {new_tokens} new ones it exceeds the "
            f"model's {positions} positions: leave it out, or give fewer new_tokens"
        )


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Draw from `seed`, and leave no trace on other draws."""
    with torch.random.fork_rng():
        if seed is not None:
            torch.manual_seed(seed)
        yield


@torch.no_grad()
def _generate_batch(
    model: Any, tokenizer: Any, prompts: list[list[int]], new_tokens: int, sample: bool
) -> list[str]:
    length = max(map(len, prompts))
    blank = [length - len(p) for p in prompts]
    padded = [[tokenizer.pad_token_id] * k + p for k, p in zip(blank, prompts, strict=True)]
    seen = [[0] * k + [1] * len(p) for k, p in zip(blank, prompts, strict=True)]
    batch = {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(seen)}
    out = model.generate(
        **beside(model, batch),
        max_new_tokens=new_tokens,
        do_sample=sample,
        **({"temperature": 1.0, "top_p": 1.0, "top_k": 0} if sample else {}),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    texts: list[str] = tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
    return texts


def _stored_batches(path: Path, batches: list[list[int]], key: str) -> list[list[str]]:
    """The batches of an interrupted call; a last line that was cut off is taken away."""
    if not path.is_file():
        return []
    stored = path.read_bytes()
    whole = stored[: stored.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    try:
        found = [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); delete it") from error
    rows = [batch["rows"] for batch in found]
    if rows != batches[: len(found)] or {batch.get("key") for batch in found} - {key}:
        raise InputError(
            f"{path} holds answers to other prompts, or of another seed or length; delete it"
        )
    return [batch["answers"] for batch in found]


def _store_batch(path: Path, rows: list[int], answers: list[str], key: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"rows": rows, "answers": answers, "key": key}) + "\n")

"""Scores of a preset's students: Rouge-L by decoding, a row an item, ours beside published ones."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from geodistill.analysis.figures.style import look
from geodistill.experiments.instruction.evaluate import (
    generate,
    likelihood_items,
    likelihoods,
    marked,
)
from geodistill.experiments.published_pairs.config import (
    START,
    Parts,
    Preset,
    Report,
    Student,
    published,
)
from geodistill.experiments.run_store import provenance
from geodistill.experiments.training import device

SCORES, ITEMS = "scores.csv", "items.parquet"
SD = "sd (decodings)"


def scored(
    chosen: Preset, parts: Parts, one: Student, stage: Path, report: Report
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One student's answers to every set, marked with stemmed words as in the published scripts.

    Args:
        chosen: the preset.
        parts: what it runs on.
        one: the student.
        stage: its folder; the answers stay there as JSON lines.
        report: gets a line on every batch of answers.

    Returns:
        A row a set and decoding: task, method, seed (of the training), weight (NaN where the
        method has none), decoding (the seed of its answers), rougeL (their mean, 0..100). And a row
        an item: task, method, seed, item, source, score (Rouge-L, 0..1, the mean over decodings),
        nll (nats a token of the right answer).
    """
    model = parts.load_student(stage / "model").eval().to(device())
    weight = math.nan if one.weight is None else one.weight
    rows, items = [], []
    for task, examples in parts.tests.items():
        key = {"task": task, "method": one.name, "seed": one.seed}
        marks = {}
        for decoding in chosen.decodings:
            what = f"{label(one.name)}, seed {one.seed}: answers to {task}, decoding {decoding}"
            answers = generate(
                model, parts.tokenizer, examples, chosen.max_length - chosen.max_prompt,
                seed=decoding, stored=stage / f"answers_{task}_{decoding}.jsonl",
                report=partial(_answered, report, what),
            )  # fmt: skip
            marks[decoding] = marked(examples, answers, stemmer=True)["rougeL"]
            mean = 100 * float(marks[decoding].mean())
            rows.append({**key, "weight": weight, "decoding": decoding, "rougeL": mean})
        nats = likelihoods(model, examples, parts.tokenizer.pad_token_id)
        table = likelihood_items(examples, *nats).assign(score=pd.DataFrame(marks).mean(axis=1))
        items.append(pd.DataFrame(key, index=table.index).join(table))
    return pd.DataFrame(rows), pd.concat(items, ignore_index=True)


def _answered(report: Report, what: str, done: int, total: int) -> None:
    report(f"{what}, {done} of {total}")


def keep(folder: Path, scores: pd.DataFrame, items: pd.DataFrame) -> None:
    """Write both tables of `scored` into `folder`, beside rows of other students kept there.

    scores.csv has provenance; of one score the newest row stays.
    """
    key = ["task", "method", "seed"]
    file = folder / SCORES
    former = [pd.read_csv(file)] if file.is_file() else []
    table = pd.concat([*former, scores.assign(**provenance())])
    table = table.drop_duplicates([*key, "decoding"], keep="last")
    _replace(file, partial(table.to_csv, index=False))
    file = folder / ITEMS
    former = [pd.read_parquet(file)] if file.is_file() else []
    table = pd.concat([*former, items]).drop_duplicates([*key, "item"], keep="last")
    _replace(file, partial(table.to_parquet, index=False))


def _replace(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all."""
    half = file.with_name(f".{file.name}.partial")
    write(half)
    half.replace(file)


def seeds(folder: Path) -> list[int]:
    """The training seeds that a folder has scores of."""
    return sorted({int(seed) for seed in pd.read_csv(folder / SCORES)["seed"]})


def label(name: str) -> str:
    """A student's `name` as tables print it: KD + Procrustes, weight 0.5."""
    method, comma, rest = name.partition(", ")
    return look(method).label + comma + rest


def beside_published(name: str, scores: pd.DataFrame) -> pd.DataFrame:
    """method, task, rougeL, `SD`, source: ours, means over decodings, then the published rows."""
    ours = scores.groupby(["method", "task"], sort=False)["rougeL"].agg(["mean", "std"])
    ours = ours.reset_index().rename(columns={"mean": "rougeL", "std": SD})
    ours["method"] = ours["method"].map(label)
    seed = ", ".join(map(str, scores["seed"].unique()))
    ours["source"] = f"this run, seed {seed}"
    return pd.concat([ours, published(name)], ignore_index=True)


def remarks(table: pd.DataFrame) -> list[str]:
    """What keeps the rows of `beside_published` from being one measurement, a sentence each."""
    said = [
        f"{SD}: over several samplings of the answers of one training; another training moves the "
        "mean too, and no column here says by how much",
    ]
    if table["source"].str.startswith("this run").all():
        return said
    said.append(
        f"{label(START)}: the short training that our other students start from; the "
        "published SFT is a training of its own, and longer"
    )
    told = {
        "dolly": "dolly: our test rows are another part of Dolly than theirs",
        "vicuna": "vicuna: ours are the ten questions that have a reference answer (mathematics "
        "and programming), theirs all eighty",
        "s_ni": "s_ni: ours is against the first reference, MiniLLM's script takes the best of "
        "several",
    }
    return said + [line for task, line in told.items() if (table["task"] == task).any()]

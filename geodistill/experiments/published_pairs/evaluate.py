"""Scores of a pair's students: Rouge-L of sampled answers, next to the published scores."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pandas as pd

from geodistill.analysis.figures.style import method_style
from geodistill.experiments.instruction.evaluate import answer_nll, nll_items, score_answers
from geodistill.experiments.instruction.generate import generate
from geodistill.experiments.provenance import provenance
from geodistill.experiments.published_pairs.config import (
    START,
    ModelsAndData,
    PublishedPair,
    StudentRun,
    published_scores,
)
from geodistill.experiments.training import default_device
from geodistill.files import Progress, atomic_file

SCORES, ITEMS = "scores.csv", "items.parquet"
SD = "sd (decodings)"


def evaluate_student(
    pair: PublishedPair,
    materials: ModelsAndData,
    student: StudentRun,
    folder: Path,
    progress: Progress,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score one student's sampled answers to every set, on stems as the published scripts do.

    Args:
        pair: the published pair.
        materials: its models and data.
        student: the student.
        folder: of its training; the answers are stored there as JSON lines.
        progress: called with a line for each batch of answers.

    Returns:
        One row per set and sampling seed: task, method, seed (of the training), weight (NaN for a
        method without a term), decoding (the sampling seed), rougeL (mean over items, 0..100). And
        one row per item: task, method, seed, item, source, score (Rouge-L in 0..1, mean over
        sampling seeds), nll (nats per token of the reference answer).
    """
    model = materials.load_student(folder / "model").eval().to(default_device())
    weight = math.nan if student.weight is None else student.weight
    rows, items = [], []
    for task, examples in materials.eval_sets.items():
        key = {"task": task, "method": student.name, "seed": student.seed}
        rouge = {}
        for sampling_seed in pair.sampling_seeds:
            name = f"{student_label(student.name)}, seed {student.seed}, {task}"
            answers = generate(
                model,
                materials.tokenizer,
                examples,
                pair.max_length - pair.max_prompt_length,
                seed=sampling_seed,
                file=folder / f"answers_{task}_{sampling_seed}.jsonl",
                progress=partial(_report, progress, f"{name}, decoding {sampling_seed}"),
            )
            rouge[sampling_seed] = score_answers(examples, answers, stemmer=True)["rougeL"]
            mean = 100 * float(rouge[sampling_seed].mean())
            rows.append({**key, "weight": weight, "decoding": sampling_seed, "rougeL": mean})
        nll = answer_nll(model, examples, materials.tokenizer.pad_token_id)
        table = nll_items(examples, *nll)
        table.insert(2, "score", pd.DataFrame(rouge).mean(axis=1))
        items.append(pd.DataFrame(key, index=table.index).join(table))
    return pd.DataFrame(rows), pd.concat(items, ignore_index=True)


def _report(progress: Progress, name: str, line: str) -> None:
    progress(f"{name}: {line}")


def store_scores(folder: Path, scores: pd.DataFrame, items: pd.DataFrame) -> None:
    """Add both tables of `evaluate_student` to those in a folder; newer rows replace older ones.

    Args:
        folder: of the pair.
        scores: one row per set and sampling seed, stored with provenance.
        items: one row per item.
    """
    key = ["task", "method", "seed"]
    scores = scores.assign(**provenance())
    file = folder / SCORES
    if file.is_file():
        scores = pd.concat([pd.read_csv(file), scores])
    with atomic_file(file) as partial_file:
        scores.drop_duplicates([*key, "decoding"], keep="last").to_csv(partial_file, index=False)
    file = folder / ITEMS
    if file.is_file():
        items = pd.concat([pd.read_parquet(file), items])
    with atomic_file(file) as partial_file:
        items.drop_duplicates([*key, "item"], keep="last").to_parquet(partial_file, index=False)


def stored_seeds(folder: Path) -> list[int]:
    """The training seeds with scores in a folder."""
    return sorted({int(seed) for seed in pd.read_csv(folder / SCORES)["seed"]})


def student_label(name: str) -> str:
    """The name of a student as tables print it, such as "KD + Procrustes, weight 0.5"."""
    method, comma, rest = name.partition(", ")
    return method_style(method).label + comma + rest


def comparison_table(name: str, scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of this run, as means over sampling seeds, followed by the published ones.

    Args:
        name: of the pair.
        scores: first table of `evaluate_student`.

    Returns:
        Columns method, task, rougeL, `SD` and source.
    """
    means = scores.groupby(["method", "task"], sort=False)["rougeL"].agg(["mean", "std"])
    table = means.reset_index().rename(columns={"mean": "rougeL", "std": SD})
    table["method"] = table["method"].map(student_label)
    table["source"] = f"this run, seed {', '.join(map(str, scores['seed'].unique()))}"
    return pd.concat([table, published_scores(name)], ignore_index=True)


def caveats(table: pd.DataFrame) -> list[str]:
    """Why the rows of a `comparison_table` are not directly comparable, one sentence each."""
    sentences = [
        f"{SD}: over several samplings of the answers of one training; another training changes "
        "the mean too, by an amount that no column here shows"
    ]
    if table["source"].str.startswith("this run").all():
        return sentences
    sentences.append(
        f"{student_label(START)}: the short training that the other students of this run start "
        "from; the published SFT is a separate, longer training"
    )
    by_task = {
        "dolly": "dolly: this run has other test rows of Dolly than the published scores",
        "vicuna": "vicuna: this run has the ten questions with a reference answer (mathematics and "
        "programming), the published scores are on all eighty",
        "s_ni": "s_ni: this run compares with the first reference, MiniLLM's script with the best "
        "of several",
    }
    return sentences + [line for task, line in by_task.items() if (table["task"] == task).any()]

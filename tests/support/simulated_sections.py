"""Complete sections of the protocols as stored results, with effects that are known.

The runs are those of the protocol, in the tables that `run_store` makes: names, columns and run ids
are real, only the numbers are drawn. The middle of three values tried is the best, what a further
section tries is worse, and students can do every task but stsb.
"""

import shutil
from functools import partial
from zlib import crc32

import numpy as np
import pandas as pd

from geodistill.experiments.methods import BASELINES, term_of
from geodistill.experiments.registry import GRIDS
from geodistill.experiments.run_store import TABLES, Run, run_tables
from geodistill.experiments.settings import run_config
from geodistill.files import write_checksums

GAINS = {
    "classification": {
        "procrustes": 0.06, "gram": 0.04, "cka": 0.05, "pca": 0.03, "projection": 0.0,
        "procrustes-shuffled": -0.10, "spectrum": 0.0, "isotropy": 0.03, "alignment": 0.02,
        "procrustes-pretrained": 0.01,
    },
    "instruction": {
        "procrustes": 0.06, "gram": 0.05, "cka": 0.03, "pca": 0.02, "projection": 0.0,
        "procrustes-shuffled": -0.02, "spectrum": 0.03, "isotropy": 0.02, "alignment": 0.01,
    },
}  # fmt: skip
"""What a term adds to the score."""
LEVELS = {
    "majority": 0.5, "tfidf": 0.58, "frozen": 0.6, "teacher": 0.9, "ce": 0.63, "kd": 0.66,
    "lookup": 0.05, "nearest": 0.1, "start": 0.0, "sft": 0.5, "skew": 0.6, "seqkd": 0.55,
}  # fmt: skip
"""Accuracy of each base; students of stsb have a smaller correlation than TF-IDF."""
STSB_LEVELS = {**LEVELS, "majority": 0.0, "ce": 0.3, "kd": 0.3}
N_ITEMS = 120
"""Test items per task."""
SEED_SD, PER_STEP = 0.02, 0.02
"""Standard deviation between seeds; what a tuned value costs for each step from the middle."""
PROVENANCE = {"versions": "{}", "commit": "0" * 40, "dirty": False, "device": "cpu: simulated"}


def write_study(study):
    """Write every section of a study to the folder that $GEODISTILL_RESULTS names."""
    grid = GRIDS[study]
    for name in grid.protocol()["grid"]:
        write_section(grid, name, partial(MEASURE[study], name))


def copy_sections(written, folder, study, names):
    """Copy some sections of a study, and those on which they rest, from one folder to another."""
    for name in {*names}.union(*(basis(study, name) for name in names)):
        shutil.copytree(written / study / name, folder / study / name)


def basis(study, name):
    """The sections of a study by whose results another one is planned."""
    grid = GRIDS[study]
    spec, gate = grid.section(name), grid.protocol()["gate"]
    named = (spec["weights"], spec.get("settings_from"))
    before = {one for names in named if isinstance(names, str) for one in names.split(", ")}
    if spec.get("gated"):
        for section in (*gate["baselines"], *gate["students"]):
            if {*grid.tasks(section)} & {*grid.tasks(name)}:
                before.add(section)
    return before.union(*(basis(study, section) for section in before))


def write_section(grid, name, measure):
    """Store every run of a section, whose metrics and items are `measure(planned)`."""
    folder, stored = grid.section_dir(name), []
    for planned in grid.runs(name):
        metrics, items = measure(planned)
        settings = planned.settings
        run = Run(
            f"{grid.study}/{name}", settings.task, planned.method, planned.seed,
            run_config(settings, planned.method), "d" * 64, metrics, items, 60.0,
        )  # fmt: skip
        stored.append(run_tables(run, PROVENANCE))
    folder.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        rows = pd.concat([tables[table] for tables in stored], ignore_index=True)
        rows.to_parquet(folder / f"{table}.parquet")
    write_checksums(folder)


def _rng(*words):
    return np.random.default_rng(crc32(" ".join(map(str, words)).encode()))


def _classification(section, planned):
    task, method, seed = planned.settings.task, planned.method, planned.seed
    base, _, term = method.partition("+")
    level = (STSB_LEVELS if task == "stsb" else LEVELS)[base]
    level += GAINS["classification"].get(term, 0.0)
    level -= _steps_from_the_middle("classification", section, planned)
    if base not in BASELINES:
        level += SEED_SD * _rng(task, seed).standard_normal()
    draw = _draw_scores if task == "stsb" else _draw_classes
    metrics, items = draw(planned, level)
    if planned.settings.split == "validation" and task != "stsb":
        # Else the draw of the items would decide what is chosen.
        metrics |= {"accuracy": level, "largest_class": 0.6}
    if base not in BASELINES:
        kept = 0.5 + GAINS["classification"].get(term, 0.0)
        metrics |= {f"geometry_kept/{name}": kept for name in ("procrustes", "gram", "cka")}
        metrics |= {"geometry_kept/procrustes/layer1": kept - 0.1, "cka": kept}
    items["item"] = [f"i{i}" for i in range(N_ITEMS)]
    return metrics, items.assign(source=[f"s{i // 2}" for i in range(N_ITEMS)])


def _steps_from_the_middle(study, section, planned):
    """What a run of a tuning section loses by the values that it tries."""
    grid, term = GRIDS[study], term_of(planned.method)
    spec = grid.section(section)
    varied = spec.get("vary", {})
    tried = dict(varied) if isinstance(varied, dict) else {}
    further = isinstance(varied, list)
    if term and not isinstance(spec["weights"], str):
        weights = spec["weights"]
        tried[grid.weight_field] = weights if isinstance(weights, list) else weights[term]
        further = further or len(tried[grid.weight_field]) == 1
    steps = [
        abs(values.index(getattr(planned.settings, name)) - len(values) // 2)
        for name, values in tried.items()
    ]
    further = further and planned.settings.split == "validation"
    return PER_STEP * (sum(steps) + further)


def _draw_classes(planned, share):
    task, rng = planned.settings.task, _rng(planned.run_id)
    difficulty = _rng(task).permutation((np.arange(N_ITEMS) + 0.5) / N_ITEMS)
    label = np.arange(N_ITEMS) % 2
    correct = difficulty + 0.1 * rng.standard_normal(N_ITEMS) < share
    items = pd.DataFrame({"label": label, "prediction": np.where(correct, label, 1 - label)})
    if planned.method == "majority":
        items = items.assign(prediction=0)
    score = (items["label"] == items["prediction"]).astype(float)
    items = items.assign(score=score, nll=np.where(score, 0.2, 1.5))
    return {
        "accuracy": score.mean(), "majority_accuracy": 0.5, "teacher_accuracy": 0.9,
        "agreement": share, "nll": items["nll"].mean(), "calibration_error": 0.1,
        "largest_class": items["prediction"].value_counts(normalize=True).max(),
    }, items  # fmt: skip


def _draw_scores(planned, correlation):
    label = _rng(planned.settings.task).standard_normal(N_ITEMS)
    noise = _rng(planned.run_id).standard_normal(N_ITEMS)
    prediction = correlation * label + np.sqrt(1 - correlation**2) * noise
    metrics = {"pearson": correlation, "spearman": correlation, "agreement": correlation}
    if planned.method == "majority":  # correlations with a constant are not defined
        prediction, metrics = np.zeros(N_ITEMS), {}
    score = -((prediction - label) ** 2)
    items = pd.DataFrame({"label": label, "prediction": prediction, "score": score})
    return {**metrics, "mse": -score.mean(), "teacher_pearson": 0.9}, items


def _instruction(section, planned):
    method, rng = planned.method, _rng(planned.run_id)
    base, _, term = method.partition("+")
    level = LEVELS[base] + GAINS["instruction"].get(term, 0.0)
    level += SEED_SD * _rng(planned.seed).standard_normal()
    level -= _steps_from_the_middle("instruction", section, planned)
    metrics, tables = {}, []
    for name in (planned.settings.task, *planned.settings.extra_eval_sets):
        items = _draw_answers(planned, level, rng)
        means = {k: items[k].mean() for k in ("exact_match", "rougeL", "words", "repetition")}
        if base not in ("lookup", "nearest"):
            items["nll"] = np.where(items["score"], 0.2, 1.5)
            means["nll"] = items["nll"].mean()
        prefix = "" if name == planned.settings.task else f"{name}/"
        metrics |= {f"{prefix}{key}": float(value) for key, value in means.items()}
        items["item"] = [f"{name}/test/reverse/0/{i}" for i in range(N_ITEMS)]
        tables.append(items.assign(source=items["item"], task=name))
    if planned.settings.split == "validation":  # else the draw of the items would decide
        metrics["exact_match"] = level
    metrics["lookup_exact_match"] = 0.1
    if base not in ("lookup", "nearest", "teacher"):
        kept = 0.3 + GAINS["instruction"].get(term, 0.0)
        metrics |= {f"geometry_kept/{name}": kept for name in ("procrustes", "gram", "cka")}
        metrics |= {
            "cka": 0.5, "procrustes/spectrum": 0.2, "procrustes/alignment": 1 - kept,
            "participation_ratio": 20 + 100 * kept, "participation_ratio/teacher": 45.0,
        }  # fmt: skip
    return metrics, pd.concat(tables, ignore_index=True)


def _draw_answers(planned, share, rng):
    difficulty = _rng(planned.settings.task).permutation((np.arange(N_ITEMS) + 0.5) / N_ITEMS)
    correct = (difficulty + 0.1 * rng.standard_normal(N_ITEMS) < share).astype(float)
    return pd.DataFrame(
        {
            "score": correct, "exact_match": correct, "rougeL": 0.5 + correct / 2, "words": 3.0,
            "repetition": 0.0,
            "answer": [f" answer {i} of {planned.method} <b>&" for i in range(N_ITEMS)],
        }
    )  # fmt: skip


MEASURE = {"classification": _classification, "instruction": _instruction}

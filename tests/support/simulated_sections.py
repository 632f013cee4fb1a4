"""Complete sections of the protocols as stored results, with effects that are known.

The runs are those of the protocol and are stored by `run_store.write_run`: names, columns and run
ids are real, only the numbers are drawn. The tuning sections are the committed ones.
"""

import shutil
from unittest import mock
from zlib import crc32

import numpy as np
import pandas as pd

from geodistill.experiments import run_store
from geodistill.experiments.methods import term_of
from geodistill.experiments.registry import GRIDS
from geodistill.experiments.run_store import Run
from geodistill.experiments.settings import run_config
from geodistill.paths import data_dir

GAINS = {
    "classification": {
        "procrustes": 0.06, "gram": 0.04, "cka": 0.05, "pca": 0.03, "projection": 0.0,
        "procrustes-shuffled": -0.10, "spectrum": 0.0, "isotropy": 0.03,
    },
    "instruction": {
        "procrustes": 0.12, "gram": 0.08, "cka": 0.03, "pca": 0.02, "projection": 0.0,
        "procrustes-shuffled": 0.11, "spectrum": 0.07, "isotropy": 0.02,
    },
}  # fmt: skip
"""What a term adds to the score at its chosen weight, a control at that of Procrustes; at other
weights half of it."""
SEED_SD = 0.02
NLL = {"unigram": 6.0, "start": 10.8, "teacher": 1.6, "sft": 3.1, "kd": 3.0}
PROVENANCE = {"versions": "{}", "commit": "0" * 40, "dirty": False, "device": "cpu: simulated"}


def write_sections(folder, study, names=None, n_items=60):
    """Write sections of a study under `folder`, which $GEODISTILL_RESULTS must name.

    names: of the sections; by default all but tuning, which is copied in any case.
    """
    tuning = data_dir() / "results" / study / "tuning"
    shutil.copytree(tuning, folder / study / "tuning", dirs_exist_ok=True)
    grid = GRIDS[study]
    chosen = grid.choose_weights(grid.tuning_rows())
    make = {"classification": _classification, "instruction": _instruction}[study]
    for name in names or [name for name in grid.protocol()["grid"] if name != "tuning"]:
        with mock.patch.object(run_store, "provenance", return_value=PROVENANCE):
            for planned in grid.runs(name):
                metrics, items = make(planned, gain(planned, study, chosen), n_items)
                settings = planned.settings
                run = Run(
                    f"{study}/{name}", settings.task, planned.method, planned.seed,
                    run_config(settings, planned.method), "d" * 64, metrics, items, 60.0,
                )  # fmt: skip
                run_store.write_run(folder / study / name, run)
        run_store.merge_runs(folder / study / name)
        shutil.rmtree(folder / study / name / "runs")


def gain(planned, study, chosen):
    term, weight = term_of(planned.method), getattr(planned.settings, GRIDS[study].weight_field)
    if not term:
        return 0.0
    at_best = weight == chosen.get(term, chosen["procrustes"])
    return GAINS[study][term] * (1.0 if at_best else 0.5)


def _rng(*words):
    return np.random.default_rng(crc32(" ".join(map(str, words)).encode()))


def _classification(planned, added, n_items):
    task = planned.settings.task
    share = 0.65 + added - 0.03 * (planned.method[:2] == "ce")
    share += SEED_SD * _rng(task, planned.seed).standard_normal()
    difficulty = _rng(task).permutation((np.arange(n_items) + 0.5) / n_items)
    noise = 0.1 * _rng(planned.run_id).standard_normal(n_items)
    score = (difficulty + noise < share).astype(float)
    metrics = {
        "accuracy": score.mean(), "majority_accuracy": 0.5, "teacher_accuracy": 0.95,
        "agreement": share, "nll": 1 - share, "calibration_error": 0.1,
    }  # fmt: skip
    if task == "stsb":
        score = share - 1 - noise**2
        metrics = {"pearson": share, "teacher_pearson": 0.9, "nll": 1.0}
    metrics |= {f"geometry_kept/{name}": 0.5 + added for name in ("procrustes", "gram", "cka")}
    items = pd.DataFrame({"item": [f"i{i}" for i in range(n_items)], "score": score})
    return metrics, items.assign(source=[f"s{i // 2}" for i in range(n_items)])


def _instruction(planned, added, n_items):
    settings, method, rng = planned.settings, planned.method, _rng(planned.run_id)
    level = NLL[method.partition("+")[0]] - added + SEED_SD * _rng(planned.seed).standard_normal()
    prompts = _rng("prompts").standard_normal(n_items)
    nll = np.abs(level + 0.3 * prompts + 0.1 * rng.standard_normal(n_items))
    items = pd.DataFrame({"item": [f"t0/{i}" for i in range(n_items)], "score": -nll, "nll": nll})
    items = items.assign(source=items["item"])
    metrics = {"nll": float(nll.mean())}
    if method == "unigram":
        return metrics, items
    rouge = np.clip(0.9 - 0.2 * level + 0.05 * rng.standard_normal(n_items), 0, 1)
    items = items.assign(
        rougeL=rouge,
        exact_match=(rng.random(n_items) < rouge / 2).astype(float),
        words=rng.integers(1, 8, n_items).astype(float),
        repetition=0.0,
        answer=[f" answer {i} of {method} <b>&" for i in range(n_items)],
    )
    for seed in settings.sampling_seeds:
        items[f"rougeL/seed{seed}"] = rouge
    metrics |= {k: float(items[k].mean()) for k in items if k.startswith("rougeL")}
    metrics |= {k: float(items[k].mean()) for k in ("exact_match", "repetition", "words")}
    items = items.assign(task=settings.task)
    for name in settings.extra_eval_sets:
        metrics |= {f"{name}/{k}": metrics[k] / 2 for k in ("nll", "rougeL", "words")}
        extra = items.assign(task=name, item=[f"{name}/{i}" for i in range(len(items))])
        items = pd.concat([items, extra.assign(source=extra["item"])[:n_items]])
    if method != "teacher":
        metrics |= {f"geometry_kept/{k}": 0.3 + added for k in ("procrustes", "gram", "cka")}
        metrics |= {
            "cka": 0.5, "procrustes/spectrum": 0.2, "procrustes/alignment": 0.7 - added,
            "participation_ratio": 20 + 100 * added, "participation_ratio/teacher": 45.0,
        }  # fmt: skip
    return metrics, items.reset_index(drop=True)

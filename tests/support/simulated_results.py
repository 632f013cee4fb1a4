"""Stored results in the format of the grids, with effects that the test chooses."""

import json
import shutil
from zlib import crc32

import numpy as np
import pandas as pd

from geodistill.experiments import run_store
from geodistill.experiments.classification import grid as classification_grid
from geodistill.experiments.classification.run import classification_config

CLASSIFICATION = {
    "ce": -0.02,
    "kd": 0.0,
    "kd+projection": 0.0,
    "kd+pca": 0.02,
    "kd+cka": 0.02,
    "kd+procrustes": 0.08,
    "kd+gram": 0.0,
    "kd+procrustes-shuffled": -0.2,
}
INSTRUCTION = {"sft": -0.3, "kd": 0.0, "kd+procrustes": 0.3, "kd+procrustes-shuffled": 0.3}


def write(folder, n_seeds=5, n_items=600, exploratory="exploratory/"):
    """Both studies under `folder`; three items share a source."""
    for task in ("movie", "product"):
        _study(folder / f"{exploratory}classification", task, CLASSIFICATION, n_seeds, n_items)
    _study(folder / f"{exploratory}instruction", "embedded", INSTRUCTION, n_seeds, n_items)


PRIMARY = {k: v for k, v in CLASSIFICATION.items() if k != "ce" and "shuffled" not in k}
CONTROLS = {"kd+procrustes-shuffled": -0.2, "kd+spectrum": 0.0, "kd+isotropy": 0.0}
CHOSEN, OTHERS = 20.0, (5.0, 80.0)


def write_confirmatory(folder, seeds=range(100, 110), n_items=60, others=OTHERS):
    """Primary and placebo sections of the classification protocol; controls at their three factors.

    At the other factors the shuffled rows do as well as Procrustes.
    """
    for task in ("movie-b", "product-b", "stsb"):
        path = folder / "classification" / "primary"
        _study(path, task, PRIMARY, seeds, n_items, factor=CHOSEN)
    for task in ("movie-b", "product-b"):
        path = folder / "classification" / "placebos"
        other = CONTROLS | {"kd+procrustes-shuffled": 0.08}
        _study(path, task, CONTROLS, list(seeds)[:5], n_items, factor=CHOSEN)
        for factor in others:
            _study(path, task, other, list(seeds)[:5], n_items, factor=factor)


def _study(folder, task, gains, n_seeds, n_items, factor=None):
    rng = np.random.default_rng(len(task))
    luck = rng.random(n_items)
    runs = [
        _run(task, method, seed, gain, luck, rng, factor)
        for seed in (range(n_seeds) if isinstance(n_seeds, int) else n_seeds)
        for method, gain in gains.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name, frames in zip(("rows", "items"), zip(*runs, strict=True), strict=True):
        path = folder / f"{name}.parquet"
        old = [pd.read_parquet(path)] if path.is_file() else []
        pd.concat([*old, *frames], ignore_index=True).to_parquet(path)


def _run(task, method, seed, gain, luck, rng, factor):
    name = f"{task}-{method}-s{seed}" + ("" if factor is None else f"-{factor}")
    key = {"run_id": name, "task": task, "method": method, "seed": seed}
    noise = luck + 0.1 * rng.standard_normal(len(luck))
    score = gain - noise if task == "embedded" else (noise < 0.75 + gain).astype(float)
    items = pd.DataFrame({"item": [f"i{i}" for i in range(len(luck))], "score": score})
    items["source"] = [f"s{i // 3}" for i in range(len(luck))]
    if task == "embedded":
        items["rougeL"] = (score - score.min()) / 10
    metrics = {
        "accuracy": score.mean(),
        "rougeL": 40 + score.mean(),
        "geometry_kept/procrustes": 0.5 + gain,
    }
    rows = pd.DataFrame({"metric": list(metrics), "value": list(metrics.values())})
    setting = {} if factor is None else {"factor": factor}
    return rows.assign(**key, **setting, status="finished", dirty=False), items.assign(**key)


TERMS = {
    "procrustes": 0.06, "gram": 0.04, "cka": 0.05, "pca": 0.03, "projection": 0.0,
    "procrustes-shuffled": -0.10, "spectrum": 0.0, "isotropy": 0.03, "orthogonal-projection": 0.02,
    "root-cka": 0.04, "flex": -0.02, "rkd": 0.01, "pkd": 0.0,
}  # fmt: skip
DEVICES = {"gpu": "cuda: a GPU", "cpu": "cpu: a CPU"}
ON_CPU = {"primary", "placebos", "tuning"}


def write_sections(folder, names=None, n_items=60, seed_sd=0.02, start_sd=0.01, own_sd=0.01):
    """Whole sections of the classification protocol, with the runs that it plans.

    $GEODISTILL_RESULTS must be `folder`. The tuning section is the committed one. KD is right on
    `kd_share(n)` of the items, a term adds `TERMS` × `fades(n)`, and half as much at a factor that
    was not chosen; sections but `ON_CPU` are made on a GPU, which shifts nothing.
    """
    tuning = run_store.data_dir() / "results" / "classification" / "tuning"
    shutil.copytree(tuning, folder / "classification" / "tuning", dirs_exist_ok=True)
    best = {
        f"kd+{k}": v
        for k, v in classification_grid.chosen_factors(classification_grid.tuning_rows()).items()
    }
    later = [name for name in classification_grid.protocol()["grid"] if name != "tuning"]
    for name in names or sorted(later, key=lambda name: not name.startswith("tuning")):
        device = DEVICES["cpu" if name in ON_CPU else "gpu"]
        luck = (seed_sd, start_sd, own_sd)
        runs = [
            _planned(*run, name, device, best, luck, n_items)
            for run in classification_grid.runs(name)
        ]
        path = folder / "classification" / name
        path.mkdir(parents=True, exist_ok=True)
        for kind, frames in zip(("rows", "items"), zip(*runs, strict=True), strict=True):
            pd.concat(frames, ignore_index=True).to_parquet(path / f"{kind}.parquet")


def kd_share(n_train):
    return 0.55 + 0.05 * np.log2((n_train or 5000) / 125)


def fades(n_train):
    """A term's gain: whole at 125 sentences, none from 4,000 on."""
    return max(0.0, 1 - np.log2((n_train or 5000) / 125) / 5)


def _rng(*words):
    return np.random.default_rng(crc32(" ".join(map(str, words)).encode()))


def _planned(setting, method, seed, section, device, best, luck, n_items):
    config = classification_config(setting, method)
    own = run_store.run_id(setting.task, method, seed, config)
    start = seed if setting.start_seed is None else setting.start_seed
    base, _, term = method.partition("+")
    gain = TERMS.get(term, 0.0) * fades(setting.n_train) - 0.03 * (base == "ce")
    gain *= 1.0 if not term or setting.factor == best.get(method, setting.factor) else 0.5
    drawn = (("sentences", seed), ("start", start), (own, device))
    moved = (_rng(setting.task, *words).standard_normal() for words in drawn)
    lucky = sum(sd * z for sd, z in zip(luck, moved, strict=True))
    share = kd_share(setting.n_train) + gain + lucky
    taste = _rng(setting.task).permutation((np.arange(n_items) + 0.5) / n_items)
    noise = 0.1 * _rng(own, device, "items").standard_normal(n_items)
    score = (taste + noise < share).astype(float)
    if setting.task == "stsb":
        score = share - 1 - noise**2
    key = {"run_id": own, "task": setting.task, "method": method, "seed": seed}
    items = pd.DataFrame({"item": [f"i{i}" for i in range(n_items)], "score": score})
    items = items.assign(source=[f"s{i // 2}" for i in range(n_items)], **key)
    metrics = {
        "accuracy": score.mean(), "majority_accuracy": 0.5, "teacher_accuracy": 0.95,
        "agreement": share, "nll": 1 - share, "calibration_error": 0.1,
        "geometry_kept/procrustes": 0.5 + gain + 0.1 * lucky,
    }  # fmt: skip
    if setting.task == "stsb":
        metrics = {
            "pearson": share,
            "nll": 1.0,
            "geometry_kept/procrustes": 0.5 + gain + 0.1 * lucky,
        }
    rows = pd.DataFrame({"metric": list(metrics), "value": list(metrics.values())})
    stored = {
        "study": f"classification/{section}", "n_train": setting.n_train, "factor": setting.factor,
        "config": json.dumps(config, sort_keys=True), "device": device, "wall_seconds": 30.0,
        "status": "finished", "dirty": False,
    }  # fmt: skip
    return rows.assign(**key, **stored), items

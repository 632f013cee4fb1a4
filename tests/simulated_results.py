"""Stored results in the format of the grids, with effects that the test chooses."""

import numpy as np
import pandas as pd

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
CHOSEN, ANOTHER = 20.0, 5.0


def write_confirmatory(folder, seeds=range(100, 110), n_items=60):
    """Primary and placebo sections of the classification protocol; controls at two factors.

    At the other factor the shuffled rows do as well as Procrustes.
    """
    for task in ("movie-b", "product-b", "stsb"):
        path = folder / "classification" / "primary"
        _study(path, task, PRIMARY, seeds, n_items, factor=CHOSEN)
    for task in ("movie-b", "product-b"):
        path = folder / "classification" / "placebos"
        other = CONTROLS | {"kd+procrustes-shuffled": 0.08}
        _study(path, task, CONTROLS, list(seeds)[:5], n_items, factor=CHOSEN)
        _study(path, task, other, list(seeds)[:5], n_items, factor=ANOTHER)


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

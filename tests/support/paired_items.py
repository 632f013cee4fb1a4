"""Rows of runs and items: crossed levels, and known paired differences or predictions."""

import numpy as np
import pandas as pd


def crossed_rows(**levels):
    """One row for each combination of levels, such as `task="ab", method=["kd"], seed=range(3)`."""
    axes = map(list, levels.values())
    return pd.MultiIndex.from_product(axes, names=[*levels]).to_frame(index=False)


def item_rows(scores, task="movie", method="m", source=None):
    """Tidy item rows of a (seeds, items) array of scores."""
    seed, item = np.indices(scores.shape)
    names = [f"i{i}" for i in item.ravel()]
    return pd.DataFrame(
        {
            "run_id": [f"{task}-{method}-{s}" for s in seed.ravel()],
            "task": task,
            "method": method,
            "seed": seed.ravel(),
            "item": names,
            "source": names if source is None else [source[i] for i in item.ravel()],
            "score": scores.ravel(),
        }
    )


def two_methods(difference, rng, task="movie", source=None):
    """Items of "kd" and of "m", which differ by a (seeds, items) array."""
    base = rng.standard_normal(difference.shape)
    rows = [
        item_rows(base, task, "kd", source),
        item_rows(base + difference, task, "m", source),
    ]
    return pd.concat(rows, ignore_index=True)


def classified_items(rng, n_seeds=4, n_items=60, skill=(0.75, 0.65), difficulty=0.15):
    """Items of two classifiers, with labels and predictions, that find the same items hard."""
    label = rng.integers(0, 2, n_items)
    hard = difficulty * rng.standard_normal(n_items)
    frames = []
    for method, accuracy in zip(("m", "kd"), skill, strict=True):
        for seed in range(n_seeds):
            correct = rng.random(n_items) < accuracy + hard
            frame = pd.DataFrame({"item": [f"i{i}" for i in range(n_items)], "label": label})
            frame["prediction"] = np.where(correct, label, 1 - label)
            key = {"task": "cola", "method": method, "seed": seed, "run_id": f"{method}{seed}"}
            frames.append(frame.assign(source=frame["item"], score=correct.astype(float), **key))
    return pd.concat(frames, ignore_index=True)

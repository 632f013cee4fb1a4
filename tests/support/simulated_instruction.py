"""Every section of the instruction protocol as stored rows, with effects that are known.

Runs are those of the protocol (`instruction_sections.runs`) and are stored by `store.write_run`, so
that names, columns and run ids are real; only the numbers are drawn.
"""

from unittest import mock
from zlib import crc32

import numpy as np
import pandas as pd

from geodistill.experiments import run_store
from geodistill.experiments.instruction import grid as instruction_grid
from geodistill.experiments.instruction.run import instruction_config
from geodistill.experiments.run_store import Run
from geodistill.tasks import load_instructions

STUDY = instruction_grid.FOLDER
SECTIONS = tuple(instruction_grid.protocol()["grid"])
BASES = {"unigram": 6.0, "start": 10.8, "teacher": 1.6, "sft": 3.1, "kd": 3.0, "skew": 2.95,
         "seqkd": 3.3}  # fmt: skip
BEST = {"projection": 0.1, "pca": 1.0, "cka": 1.0, "procrustes": 1.0, "gram": 10.0}
TERMS = {"projection": 0.0, "pca": 0.02, "cka": 0.03, "procrustes": 0.12, "gram": 0.08,
         "procrustes-shuffled": 0.11, "spectrum": 0.07, "isotropy": 0.02}  # fmt: skip
"""Gain in nats a token over the base at the term's best weight; a tenth of it at other weights."""
KEPT = {"procrustes": 0.7, "gram": 0.6, "cka": 0.5, "pca": 0.5, "projection": 0.4}
ITEMS, SAMPLED = 120, 100
START, ORDER, DECODING = 0.01, 0.02, 0.005
"""Standard deviations of Rouge-L in the section `variance`."""
CLEAN = {"versions": "{}", "commit": "0" * 40, "dirty": False, "device": "cuda: simulated"}


def write(folder, sections=SECTIONS, items=ITEMS, best=BEST):
    """Write the sections under `folder`, which $GEODISTILL_RESULTS must name; tuning is first."""
    with mock.patch.object(run_store, "provenance", return_value=CLEAN):
        for name in sections:
            for setting, method, seed in instruction_grid.runs(name):
                run = _run(name, setting, method, seed, items, best)
                run_store.write_run(folder / STUDY / name, run)
            run_store.collect(folder / STUDY / name)
            for path in (folder / STUDY / name / "runs").iterdir():
                path.unlink()


def gain(method, weight, best=BEST):
    """Over its base, in nats a token."""
    term = method.partition("+")[2]
    if not term:
        return 0.0
    own = best.get(term, best["procrustes"])
    return TERMS[term] * (1.0 if weight == own else 0.1)


def _run(section, setting, method, seed, n_items, best):
    config = instruction_config(setting, method)
    name = run_store.run_id(setting.task, method, seed, config)
    own = np.random.default_rng(crc32(name.encode()))
    prompts = np.random.default_rng(7).standard_normal(n_items)
    luck = 0.02 * np.random.default_rng(crc32(f"{section}{seed}".encode())).standard_normal()
    level = BASES[method.partition("+")[0]] - gain(method, setting.weight, best) + luck
    level -= 0.4 if setting.width > 200 else 0.0
    nll = np.abs(
        level + 0.3 * prompts + 0.02 * own.standard_normal() + 0.1 * own.standard_normal(n_items)
    )
    items = pd.DataFrame({"item": [f"t0/{i}" for i in range(n_items)]})
    items = items.assign(source=items["item"], score=-nll, nll=nll)
    metrics = {"nll": float(nll.mean())}
    if method != "unigram":
        items = items.assign(**_marks(method, level, prompts, own))
        _decode(items, setting, section, seed, own)
        names = [k for k in items if k.startswith("rougeL")]
        metrics |= {
            k: float(items[k].mean()) for k in (*names, "exact_match", "repetition", "words")
        }
        items, first = items.assign(task=setting.task), items
        for also in setting.also:
            metrics |= {f"{also}/{k}": metrics[k] / 2 for k in ("nll", "rougeL", "words")}
            further = first.assign(task=also, item=_names(also, n_items))
            further["source"] = further["item"]
            items = pd.concat([items, further], ignore_index=True)
    if method not in ("unigram", "teacher"):
        metrics |= _geometry(method, seed, own, trained=method != "start")
    return Run(f"{STUDY}/{section}", setting.task, method, seed, config, "d" * 64, metrics, items,
               wall_seconds=60.0 + own.random())  # fmt: skip


def _names(also, n):
    """Items of a further set: the embedded ones exist, and a page finds their prompts by them."""
    if also == "embedded":
        return load_instructions(also).test["item"][:n]
    return [f"{also}/{i}" for i in range(n)]


def _marks(method, level, prompts, rng):
    n = len(prompts)
    rouge = np.clip(0.9 - 0.2 * level + 0.1 * prompts + 0.05 * rng.standard_normal(n), 0, 1)
    return {
        "rougeL": rouge,
        "exact_match": (rng.random(n) < rouge / 2).astype(float),
        "words": rng.integers(1, 8, n).astype(float),
        "repetition": np.zeros(n),
        "answer": [f" answer {i} of {method} <b>&" for i in range(n)],
    }


def _decode(items, setting, section, seed, rng):
    """Sampled decodings of the first prompts; in `variance` their mean has the known components."""
    center = items["rougeL"][:SAMPLED]
    if section == "variance":
        start = np.random.default_rng(50 + setting.start_seed).standard_normal()
        order = np.random.default_rng(900 + seed).standard_normal()
        center = 0.3 + START * start + ORDER * order + 0 * center
    for decoding in setting.decodings:
        shift = DECODING * rng.standard_normal()
        items[f"rougeL/seed{decoding}"] = center + shift
        items[f"answer/seed{decoding}"] = [f"sampled {decoding}"] * SAMPLED + [None] * (
            len(items) - SAMPLED
        )


def _geometry(method, seed, rng, trained):
    term = method.partition("+")[2]
    kept = KEPT.get(term, 0.3) + 0.01 * rng.standard_normal()
    final = {"procrustes": 40.0, "procrustes-shuffled": 35.0, "spectrum": 38.0, "isotropy": 90.0}
    ratio = final.get(term, 20.0) if trained else 60.0
    shares = (0, 2, 5, 10, 20, 40, 70, 100) if trained else ()
    return {
        **{f"geometry_kept/{k}": kept for k in ("procrustes", "gram", "cka")},
        "cka": kept,
        "procrustes/spectrum": 0.2 if trained else 0.9,
        "procrustes/alignment": 1.0 - kept,
        "participation_ratio": ratio,
        "participation_ratio/teacher": 45.0,
        **{
            f"participation_ratio/at{s:03d}": 60 + (ratio - 60) * s / 100 + rng.standard_normal()
            for s in shares
        },
    }

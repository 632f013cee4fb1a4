"""A study of instant runs that leaves a line in a log for each run it really makes.

`python -m support.tiny_study LOG RUNS SECONDS` makes it, printing what a user sees.
"""

import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd

from geodistill.experiments.run_store import Run
from geodistill.experiments.runner import Job, Study, run_study
from geodistill.experiments.settings import run_id

FOLDER = "tiny/first"
CONFIG = {"n_train": 3, "width": 32}


def run_of(seed, method="kd", config=CONFIG, **changes):
    """A run whose numbers follow from its seed."""
    items = pd.DataFrame(
        {
            "item": [f"i{k}" for k in range(4)],
            "source": [f"s{k // 2}" for k in range(4)],
            "label": [0, 1, 0, 1],
            "prediction": [seed % 2, 1, 0, 1],
            "score": [1.0 - seed % 2, 1.0, 1.0, 1.0],
            "nll": [0.1 + seed, 0.2, 0.3, 0.4],
        }
    )
    given = {
        "study": FOLDER,
        "task": "toy",
        "method": method,
        "seed": seed,
        "config": config,
        "data_hash": "d",
        "metrics": {"accuracy": float(items["score"].mean()), "nll": float(items["nll"].mean())},
        "items": items,
        "wall_seconds": 60.0,
    }
    return Run(**{**given, **changes})


def run_all(study, workers=1):
    """Make the pending runs; their labels."""
    return [job.label for job in run_study(study, workers=workers, progress=lambda line: None)]


def work(log, seconds, seed):
    with Path(log).open("a") as file:
        file.write(f"begin {seed}\n")
    time.sleep(seconds)
    with Path(log).open("a") as file:
        file.write(f"end {seed}\n")
    return run_of(seed)


def of_other_data(log, seconds, seed):
    return run_of(seed, data_hash="another")


def prepare(log, jobs, progress):
    progress(f"preparing {len(jobs)}")
    with Path(log).open("a") as file:
        file.write(f"prepare {len(jobs)}\n")


def tiny_study(log, runs=4, seconds=0.0, work=work):
    jobs = [
        Job(
            run_id("toy", "kd", seed, CONFIG),
            f"toy kd seed {seed}",
            2.0,
            partial(work, log, seconds, seed),
        )
        for seed in range(runs)
    ]
    return Study(FOLDER, jobs, partial(prepare, log))


def lines(log, word):
    """The numbers of the lines `word N` of a log."""
    if not Path(log).exists():
        return []
    pairs = (line.split() for line in Path(log).read_text().splitlines())
    return [int(number) for first, number in pairs if first == word]


if __name__ == "__main__":
    log, runs, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    for job in run_study(tiny_study(log, runs, seconds), workers=2, progress=print):
        print(f"stored {job.label}", flush=True)
    print("merged", flush=True)

"""The confirmatory instruction study: the runs that its protocol file asks for.

`data/protocol/instruction.yaml` is the grid. Its `setting` holds for all sections; a section
crosses methods, weights and seeds with what it varies. `weights: chosen` takes each term's weight
from the rows of the tuning section, and a control's from the term that it controls.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pandas as pd

from geodistill.errors import InputError
from geodistill.experiments import protocol_grid
from geodistill.experiments.instruction.setup import InstructionSetting
from geodistill.experiments.methods import CONTROLS, MATCHES

FOLDER = "instruction"
TUNING = "tuning"

Planned = tuple[InstructionSetting, str, int]


def protocol() -> dict[str, Any]:
    """The blocks of the study's protocol file."""
    return protocol_grid.protocol(FOLDER)


def minutes(section: str) -> float:
    """The protocol's guess at one run of a section."""
    return float(protocol_grid.section(protocol(), section)["minutes"])


def runs(section: str) -> list[Planned]:
    """Setting, method and seed of every run of a section, seeds outermost.

    Raises:
        InputError: no such section; weights that the unfinished tuning has to give; students that
            learned nothing there.
    """
    asked = protocol()
    spec = protocol_grid.section(asked, section)
    chosen = None
    if spec["seeds"] != asked["seeds"]["tuning"]:
        rows = tuning_rows()
        check_sanity(rows, asked["sanity"]["nats"])
        chosen = chosen_weights(rows)
    return list(dict.fromkeys(_cross(asked, spec, chosen)))


def _cross(
    asked: dict[str, Any], spec: dict[str, Any], chosen: dict[str, float] | None
) -> Iterator[Planned]:
    (shared,) = protocol_grid.shapes({"setting": asked["setting"]})
    for seed, shape, method in product(spec["seeds"], protocol_grid.shapes(spec), spec["methods"]):
        for weight in protocol_grid.weights(spec["weights"], method, chosen):
            yield InstructionSetting(weight=weight, **{**shared, **shape}), method, seed


def progress() -> pd.DataFrame:
    """A line a section: runs planned and runs stored."""
    return protocol_grid.progress(FOLDER, size)


def size(spec: dict[str, Any]) -> int:
    """How many runs a section has."""
    any_weight = dict.fromkeys((*MATCHES, *CONTROLS), 1.0)
    return len(set(_cross(protocol(), spec, any_weight)))


def tuning_rows() -> pd.DataFrame:
    """The rows of the finished tuning section: method, seed, factor (the weight), metric, value.

    Raises:
        InputError: it is not finished.
    """
    return protocol_grid.finished_rows(FOLDER, TUNING, len(runs(TUNING)))


def chosen_weights(rows: pd.DataFrame) -> dict[str, float]:
    """By term, the weight of the least mean validation NLL; the smaller one of equals.

    A control has the weight of Procrustes, which it controls.
    """
    chosen = protocol_grid.best(rows[rows["metric"] == "nll"], "factor", highest=False)
    return {**chosen, **dict.fromkeys(CONTROLS, chosen["procrustes"])}


def check_sanity(rows: pd.DataFrame, nats: float) -> None:
    """The SFT student must beat its untrained start and a unigram model of the answers.

    Args:
        rows: of the tuning section.
        nats: a token, by which its mean validation NLL must be lower.

    Raises:
        InputError: it does not; no comparison of students that learned nothing means anything.
    """
    nll = rows[rows["metric"] == "nll"].groupby("method")["value"].mean()
    bar = min(nll["start"], nll["unigram"]) - nats
    if nll["sft"] > bar:
        raise InputError(
            f"sft has a validation NLL of {nll['sft']:.2f}; expected at most {bar:.2f}, "
            f"{nats} below the better of start ({nll['start']:.2f}) and unigram "
            f"({nll['unigram']:.2f}): the students learn too little to be compared"
        )

"""The runs of the instruction study: how weights are chosen and students checked."""

from __future__ import annotations

import pandas as pd

from geodistill.experiments.instruction.settings import InstructionSettings
from geodistill.experiments.methods import (
    CONTROLS,
    INSTRUCTION_METHODS,
    INSTRUCTION_REFERENCES,
)
from geodistill.experiments.protocol_grid import ProtocolGrid, UnplannedError, best_weights


class InstructionGrid(ProtocolGrid):
    """The sections of `data/protocol/instruction.yaml`."""

    study = "instruction"
    settings_type = InstructionSettings
    weight_field = "weight"
    known_methods = (*INSTRUCTION_METHODS, *INSTRUCTION_REFERENCES)

    def choose_weights(self, section: str) -> dict[str, float]:
        """The weight of each term with the lowest mean validation NLL.

        A control has the weight of Procrustes, which it controls.

        Raises:
            UnplannedError: the section is not complete.
        """
        rows = self.tuning_rows(section)
        weights = best_weights(rows[rows["metric"] == "nll"], higher_is_better=False)
        return {**weights, **dict.fromkeys(CONTROLS, weights["procrustes"])}

    def gated_tasks(self, tasks: list[str]) -> list[str]:
        """All tasks, if the SFT student clears the protocol's `sanity`.

        Raises:
            UnplannedError: it does not.
        """
        sanity_check(self.tuning_rows("tuning"), self.protocol()["sanity"]["nats"])
        return tasks


def sanity_check(rows: pd.DataFrame, nats: float) -> None:
    """The SFT student must be better than its untrained start and than a unigram model.

    Args:
        rows: of the tuning section: method, metric, value.
        nats: per token, by which its mean validation NLL must be lower.

    Raises:
        UnplannedError: it is not; students that learn nothing can't be compared.
    """
    nll = rows[rows["metric"] == "nll"].groupby("method")["value"].mean()
    bar = min(nll["start"], nll["unigram"]) - nats
    if nll["sft"] > bar:
        raise UnplannedError(
            f"sft has a validation NLL of {nll['sft']:.2f}; expected at most {bar:.2f}, "
            f"{nats} below the better of start ({nll['start']:.2f}) and unigram "
            f"({nll['unigram']:.2f}): the students learn too little to be compared"
        )

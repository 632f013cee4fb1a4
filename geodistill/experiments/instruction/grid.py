"""The instruction study: how its runs are scored when settings and weights are chosen."""

from __future__ import annotations

import pandas as pd

from geodistill.analysis.stats.collapse import WITHIN
from geodistill.experiments.instruction.settings import InstructionSettings
from geodistill.experiments.methods import INSTRUCTION_METHODS, INSTRUCTION_REFERENCES
from geodistill.experiments.tuned_grid import TunedGrid


class InstructionGrid(TunedGrid):
    """The sections of `data/protocol/instruction.yaml`."""

    study = "instruction"
    settings_type = InstructionSettings
    weight_field = "weight"
    known_methods = (*INSTRUCTION_METHODS, *INSTRUCTION_REFERENCES)

    def judge_runs(self, metrics: pd.DataFrame) -> pd.DataFrame:
        """Columns `score`, 100 times the exact match, and `collapsed`.

        A run has collapsed if its exact match is hardly above that of the better lookup.

        Args:
            metrics: one row per run, a column for each metric.
        """
        over = (metrics["exact_match"] - metrics["lookup_exact_match"]).round(9)
        return pd.DataFrame({"score": 100 * metrics["exact_match"], "collapsed": over <= WITHIN})

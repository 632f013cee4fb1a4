"""Distil your own model: KD with and without a feature term, and a student to keep."""

from geodistill.experiments.your_model.answer import Answer
from geodistill.experiments.your_model.run import distill_your_model
from geodistill.experiments.your_model.settings import YourModelSettings

__all__ = ["Answer", "YourModelSettings", "distill_your_model"]

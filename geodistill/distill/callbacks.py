"""What surrounds a step of the trainer: its losses on record, its terms in checkpoints."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from geodistill.distill.feature_term import BalancedTerm, labels_tokens
from geodistill.distill.teacher_cache import TeacherOutputs
from geodistill.errors import InputError

TERMS_FILE = "feature_terms.safetensors"


def share_of_items(inputs: Mapping[str, Any], items: Tensor | int) -> Tensor:
    """The micro-batch's share of the `items` (labels but -100) of its accumulated batch.

    Raises:
        InputError: all its labels are -100.
    """
    labels: Tensor = inputs["labels"]
    if labels_tokens(dict(inputs)):  # the first token has no input
        labels = labels[:, 1:]
    count = (labels != -100).sum()
    if not count:
        raise InputError("all labels of a batch are -100; leave examples without answer out")
    return count / items


class NotedLosses:
    """The losses of each micro-batch since the last log, unweighted.

    Args:
        folder: gets the batch of what is not finite, for inspection.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unchecked: dict[str, Tensor] = {}
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: Tensor) -> None:
        """Keep one value, unchecked."""
        self.unchecked[name] = value.detach().float()

    def check(self, step: int, batch: Mapping[str, Any]) -> None:
        """Look at what was added since the last check, all at once: a look waits for the GPU.

        Raises:
            FloatingPointError: a value is not finite; loss, step and the saved batch are named.
        """
        if not self.unchecked:
            return
        noted = torch.stack(list(self.unchecked.values())).cpu()
        for name, value in zip(self.unchecked, noted, strict=True):
            if not bool(torch.isfinite(value)):
                raise self._error(f"the loss {name} is {float(value)}", step, batch)
            self.values[name].append(float(value))
        self.unchecked.clear()

    @contextmanager
    def blame_teacher_if_nonfinite(
        self, teacher: TeacherOutputs, step: int, batch: Mapping[str, Any]
    ) -> Iterator[None]:
        """Looks at the teacher's outputs when a loss of them breaks: no step waits for the look.

        Raises:
            FloatingPointError: they are not finite; what is not, step and saved batch are named.
        """
        try:
            yield
        except (InputError, FloatingPointError) as error:
            if not (name := teacher.not_finite()):
                raise
            raise self._error(f"the teacher's {name} are not finite", step, batch) from error

    def _error(self, what: str, step: int, batch: Mapping[str, Any]) -> FloatingPointError:
        """The error that says so, its batch saved."""
        where = self.folder / f"not_finite_step_{step}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in batch.items() if isinstance(v, Tensor)}, where)
        return FloatingPointError(f"{what} at step {step}; its batch is in {where}")

    def take_means(self) -> dict[str, float]:
        """Mean of each loss, as `loss/NAME`; begins anew."""
        means = {f"loss/{k}": fmean(v) for k, v in self.values.items()}
        self.values.clear()
        return means


def save_terms(terms: nn.Module, folder: Path) -> None:
    """Parameters and balance windows of the terms, beside a checkpoint's optimiser."""
    # Copies, since safetensors takes no views, nor one tensor under two names.
    state = {k: v.clone().contiguous() for k, v in terms.state_dict().items()}
    save_file(state, folder / TERMS_FILE)


def load_terms(terms: nn.Module, folder: Path) -> None:
    """What `save_terms` wrote, into `terms`."""
    terms.load_state_dict(load_file(folder / TERMS_FILE))


class WatchWindows(TrainerCallback):
    """Warns of terms whose window does not close within the training: they would never count."""

    def __init__(self, terms: nn.Module) -> None:
        self.terms = terms

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        batches = state.max_steps * args.gradient_accumulation_steps
        for term in self.terms.children():
            if isinstance(term, BalancedTerm) and batches <= term.term.balance:
                warnings.warn(
                    f"{term.name} stays off: its weight is measured over {term.term.balance} "
                    f"micro-batches, the training has {batches}; give a shorter window (balance=), "
                    "or a fixed weight (balance=0)",
                    stacklevel=2,
                )


class ClearGradients(TrainerCallback):
    """The trainer clears the gradients of its model only; those of the terms go here.

    Before a step, not after it: a step that mixed precision skips must not leave its infinities.
    """

    def __init__(self, terms: nn.Module) -> None:
        self.terms = terms

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.terms.zero_grad()

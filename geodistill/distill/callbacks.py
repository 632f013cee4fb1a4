"""Around a training step: logged losses, checkpoints of the terms, and two trainer callbacks."""

import math
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
from transformers import TrainerCallback, TrainerState, TrainingArguments

from geodistill.distill.feature_term import TermModule, has_token_labels
from geodistill.distill.teacher_cache import TeacherOutputs
from geodistill.errors import InputError

TERMS_FILE = "feature_terms.safetensors"


def label_fraction(inputs: Mapping[str, Any], num_items: Tensor | int) -> Tensor:
    """Labels (other than -100) of a micro-batch over those of its accumulated batch.

    Raises:
        InputError: all its labels are -100.
    """
    labels: Tensor = inputs["labels"]
    if has_token_labels(inputs):  # nothing predicts the first token
        labels = labels[:, 1:]
    count = (labels != -100).sum()
    if not count:
        raise InputError("all labels of a batch are -100; leave examples without answer out")
    return count / num_items


class LossLog:
    """Unweighted losses of each micro-batch since the last log.

    Attributes:
        folder: where the batch of a non-finite loss is saved.
        unchecked: losses by name, on the device, not yet checked.
        values: checked losses by name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unchecked: dict[str, Tensor] = {}
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: Tensor) -> None:
        """Store one value, unchecked."""
        self.unchecked[name] = value.detach().float()

    def check_finite(self, step: int, batch: Mapping[str, Any]) -> None:
        """Check all values added since the last check at once, since reading waits for the GPU.

        Raises:
            FloatingPointError: a value is not finite; names loss, step and the saved batch.
        """
        if not self.unchecked:
            return
        values = torch.stack(list(self.unchecked.values())).tolist()
        for name, value in zip(self.unchecked, values, strict=True):
            if not math.isfinite(value):
                raise self._nonfinite(f"the loss {name} is {value}", step, batch)
            self.values[name].append(value)
        self.unchecked.clear()

    @contextmanager
    def blame_teacher_if_nonfinite(
        self, teacher: TeacherOutputs, step: int, batch: Mapping[str, Any]
    ) -> Iterator[None]:
        """On a failing loss, check whether the teacher caused it; other steps pay nothing.

        Raises:
            FloatingPointError: they are not finite; names the output, step and the saved batch.
        """
        try:
            yield
        except (InputError, FloatingPointError) as error:
            if not (name := teacher.first_nonfinite()):
                raise
            raise self._nonfinite(f"the teacher's {name} are not finite", step, batch) from error

    def _nonfinite(self, cause: str, step: int, batch: Mapping[str, Any]) -> FloatingPointError:
        """Save the batch and return the error."""
        path = self.folder / f"not_finite_step_{step}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in batch.items() if isinstance(v, Tensor)}, path)
        return FloatingPointError(f"{cause} at step {step}; its batch is in {path}")

    def pop_means(self) -> dict[str, float]:
        """Mean of each loss as `loss/NAME`; the log starts again."""
        means = {f"loss/{name}": fmean(values) for name, values in self.values.items()}
        self.values.clear()
        return means


def save_terms(terms: nn.Module, folder: Path) -> None:
    """Save parameters and warm-ups of the terms in a checkpoint."""
    # Copies, since safetensors takes no views, nor one tensor under two names.
    state = {name: tensor.clone().contiguous() for name, tensor in terms.state_dict().items()}
    save_file(state, folder / TERMS_FILE)


def load_terms(terms: nn.Module, folder: Path) -> None:
    """Load what `save_terms` wrote."""
    terms.load_state_dict(load_file(folder / TERMS_FILE))


class WarnUnclosedWindow(TrainerCallback):
    """Warn of terms whose warm-up is not over within the training: they would never count."""

    def __init__(self, terms: nn.Module) -> None:
        self.terms = terms

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any
    ) -> None:
        batches = state.max_steps * args.gradient_accumulation_steps
        for module in self.terms.children():
            if isinstance(module, TermModule) and batches <= module.term.weight_warmup_batches:
                warnings.warn(
                    f"{module.name} stays off: its weight is measured over "
                    f"{module.term.weight_warmup_batches} micro-batches, the training has "
                    f"{batches}; give a smaller weight_warmup_batches, or 0 for a fixed weight",
                    stacklevel=2,
                )


class ZeroTermGrads(TrainerCallback):
    """Clear the gradients of the terms, since the trainer clears those of its model only.

    Before a step, not after it: a step that mixed precision skips must not leave its infinities.
    """

    def __init__(self, terms: nn.Module) -> None:
        self.terms = terms

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.terms.zero_grad()

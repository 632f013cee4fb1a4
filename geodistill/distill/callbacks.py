"""Around a training step: logged losses, and two trainer callbacks."""

import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerState, TrainingArguments

from geodistill.distill.feature_term import TermModule
from geodistill.distill.teacher_outputs import TeacherOutputs
from geodistill.distill.training import ranks
from geodistill.errors import InputError

_DOMINATES, _VANISHES = 0.99, 1e-4  # of the sum of the weighted losses


def count_labels(inputs: Mapping[str, Any], shifted: bool) -> Tensor:
    """The number of labels (other than -100) that `transformers` counts in a micro-batch.

    Raises:
        InputError: all its labels are -100.
    """
    labels: Tensor = inputs.get("shift_labels", inputs["labels"])
    if shifted and "shift_labels" not in inputs:  # nothing predicts the first token
        labels = labels[..., 1:]
    count = (labels != -100).sum()
    if not count:
        raise InputError(
            "all labels of a batch are -100; leave examples without answer out, or with "
            "task_weight=0, which needs no labels, the column `labels`"
        )
    return count


class LossLog:
    """Unweighted losses and their weights since the last log, means over the steps.

    Attributes:
        folder: where the batch of a non-finite loss is saved.
        unchecked: by name, losses on the device that are not yet checked, their shares of a step
            and their factors.
        sums: by name, shares of a step, and with them weights, losses, weighted losses.
        gradients: by the name of a loss, whether its last gradient was finite.
        reached: terms whose student features are known to depend on weights that are trained.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unchecked: dict[str, tuple[Tensor, float, float]] = {}
        self.gradients: dict[str, Tensor] = {}
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * 4)
        self.judged: set[str] = set()
        self.reached: set[str] = set()

    def add(self, name: str, value: Tensor, share: float, weight: float) -> None:
        """Store one value, unchecked, with its micro-batch's share of the step and its factor."""
        self.unchecked[name] = (value.detach().float(), share, weight)

    def check_finite(self, step: int, batch: Mapping[str, Any]) -> None:
        """Check all values added since the last check at once, since reading waits for the GPU.

        Raises:
            FloatingPointError: a value is not finite; names loss, step and the saved batch.
        """
        if not self.unchecked:
            return
        values = torch.stack([value for value, *_ in self.unchecked.values()]).tolist()
        for (name, (_, share, weight)), value in zip(self.unchecked.items(), values, strict=True):
            if not math.isfinite(value):
                raise self._nonfinite(f"the loss {name} is {value}", step, batch)
            new = (share, share * weight, share * value, share * weight * value)
            self.sums[name] = [a + b for a, b in zip(self.sums[name], new, strict=True)]
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

    def watch(self, name: str, x: Tensor) -> Tensor:
        """A view of `x` for one loss, which records whether its gradient there is finite."""
        if not x.requires_grad:
            return x
        view = x.view_as(x)

        def keep(gradient: Tensor) -> None:
            finite = gradient.detach().sum().isfinite()
            self.gradients[name] = self.gradients.get(name, finite) & finite

        view.register_hook(keep)  # type: ignore[no-untyped-call]
        return view

    def nonfinite_gradient(self, step: int) -> FloatingPointError:
        """The error for a step whose gradient is not finite; names the losses that caused it."""
        causes = [name for name, finite in self.gradients.items() if not finite]
        return FloatingPointError(
            f"the gradient of the loss {', '.join(causes) or 'task'} is not finite at step {step}, "
            "though the loss is; the weights are those before the step: lower the learning rate or "
            "the weight of the loss, or leave the loss out"
        )

    def _nonfinite(self, cause: str, step: int, batch: Mapping[str, Any]) -> FloatingPointError:
        """Save the batch and return the error."""
        path = self.folder / f"not_finite_step_{step}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in batch.items() if isinstance(v, Tensor)}, path)
        return FloatingPointError(f"{cause} at step {step}; its batch is in {path}")

    def pop_means(self, device: Any) -> dict[str, float]:
        """Means over steps and processes; the log starts again.

        Returns:
            `loss/NAME` and its factor `weight/NAME`, which is a mean weighted by the loss, so that
            the products sum to the logged loss.
        """
        flat = {f"{i}{name}": x for name, sums in self.sums.items() for i, x in enumerate(sums)}
        flat = ranks.means(flat, device)
        logs = {}
        parts = {}
        for name in self.sums:
            share, weight, value, part = (flat[f"{i}{name}"] for i in range(4))
            logs[f"loss/{name}"] = value / share
            logs[f"weight/{name}"] = part / value if value else weight / share
            parts[name] = abs(part)
        self._judge(parts)
        self.sums.clear()
        return logs

    def _judge(self, parts: Mapping[str, float]) -> None:
        """Warn once of a term that is nearly all or nothing of the loss when it is first logged."""
        total = sum(parts.values())
        for name, part in parts.items():
            others = total - part
            if name in ("task", "logit") or name in self.judged or not part or not others:
                continue
            self.judged.add(name)
            if part > _DOMINATES * total or part < _VANISHES * total:
                verb = "dominates" if part > others else "hardly counts"
                warnings.warn(
                    f"{name} {verb}: its weighted loss is {part:.3g}, the others' {others:.3g}; "
                    "give another weight, or weight_warmup_batches to measure one",
                    stacklevel=3,
                )


class WarnUnclosedWindow(TrainerCallback):
    """Warn of terms whose warm-up is not over within the training: they would never count."""

    def __init__(self, terms: Sequence[TermModule]) -> None:
        self.terms = terms

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any
    ) -> None:
        batches = state.max_steps * args.gradient_accumulation_steps
        for module in self.terms:
            n_measured = module.term.weight_warmup_batches
            if batches <= n_measured:
                warnings.warn(
                    f"{module.name} is on in {max(0, batches - n_measured + 1)} of {batches} "
                    f"micro-batches: its weight is measured over {n_measured}; give a smaller "
                    "weight_warmup_batches, or 0 for a fixed weight",
                    stacklevel=2,
                )


class TermGradients(TrainerCallback):
    """Clears and averages the gradients of the terms; the trainer knows those of its model only.

    They are cleared before a step, not after it: a step that mixed precision skips must not leave
    its infinities.
    """

    def __init__(self, terms: nn.Module, losses: LossLog) -> None:
        self.terms, self.losses = terms, losses

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.terms.zero_grad()
        self.losses.gradients.clear()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        ranks.average_gradients(self.terms)

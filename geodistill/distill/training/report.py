"""What a trainer reports beyond its log: metrics of the terms in evaluation, and the model card."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from geodistill.distill.feature_term import Layer, TermModule
from geodistill.distill.hooks import record_outputs, run_teacher
from geodistill.distill.models.features import feature_rows
from geodistill.distill.models.heads import base_of
from geodistill.distill.training import checkpoints, ranks
from geodistill.errors import InputError
from geodistill.geometry import geometry_kept, procrustes_distance

_MAX_ROWS = 2048  # by which geometry kept is judged
_STATES = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")
_PACKAGES = ("geodistill", "torch", "transformers", "trl")
_CITATION = """```bibtex
@article{bhattarai2025geometry,
  title = {Knowledge distillation through geometry-aware representational alignment},
  author = {Bhattarai, Prajjwal and Amjad, Mohammad and Zhylko, Dmytro and Alhanai, Tuka},
  year = {2025},
  url = {https://arxiv.org/abs/2509.25253},
}
```"""


class EvaluationLog:
    """Values and features of the terms over the batches of an evaluation.

    Args:
        teacher: run on each batch.
        terms: the terms in eval mode.
        layers: teacher and student layer of each term.
    """

    def __init__(
        self, teacher: nn.Module, terms: Sequence[TermModule], layers: Sequence[tuple[Layer, Layer]]
    ) -> None:
        self.teacher, self.terms, self.layers = teacher, terms, layers
        self.values: dict[str, list[float]] = defaultdict(list)
        self.rows: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    @contextmanager
    def observe(
        self, student: nn.Module, inputs: Mapping[str, Any], teacher_inputs: Mapping[str, Any]
    ) -> Iterator[None]:
        """While open, a batch is given to the student; then the teacher runs on it."""
        with record_outputs(student, [layer for _, layer in self.layers], grad=False) as calls:
            yield
        wanted = {layer for layer, _ in self.layers}
        outputs = run_teacher(self.teacher.eval(), teacher_inputs, wanted, logits=False)
        for term, (teacher_layer, layer) in zip(self.terms, self.layers, strict=True):
            features = calls.features(layer)
            features, mask = feature_rows(features, inputs, student, layer, "student")
            teacher, teacher_mask = outputs.features[teacher_layer], outputs.masks[teacher_layer]
            with torch.no_grad():
                self.values[term.name].append(float(term(features, teacher, mask, teacher_mask)))
                y, x, valid = term.rows(features, teacher, mask, teacher_mask)
            y, x = (a.flatten(0, -2) if valid is None else a[valid] for a in (y, x))
            self.rows[term.name].append((y.cpu(), x.cpu()))

    def metrics(self, device: Any) -> dict[str, float]:
        """`loss/NAME` of each term and `geometry_kept`, their mean share of reachable geometry."""
        if not self.values:
            return {}
        shares = {
            f"geometry_kept/{name}": self._geometry_kept(name, device) for name in self.values
        }
        values = {f"loss/{name}": fmean(values) for name, values in self.values.items()}
        return ranks.means({**values, **shares, "geometry_kept": fmean(shares.values())}, device)

    def _geometry_kept(self, name: str, device: Any) -> float:
        n = _MAX_ROWS // ranks.count()
        y, x = (torch.cat([pair[i] for pair in self.rows[name]])[:n] for i in (0, 1))
        if ranks.count() > 1:
            y, x = ranks.gather_rows(y.to(device)).cpu(), ranks.gather_rows(x.to(device)).cpu()
        try:
            return geometry_kept(procrustes_distance, x, y)
        except InputError:  # too few rows, or all equal
            return math.nan


def outputs_to_ignore(model: Any, names: list[str] | None) -> list[str]:
    """Outputs that are no predictions: those of `Trainer`, and states given for the terms alone.

    Args:
        model: the student.
        names: as `Trainer.prediction_step` takes them.
    """
    config = getattr(base_of(model), "config", None)
    if names is None:
        names = getattr(config, "keys_to_ignore_at_inference", ["past_key_values"])
    states = [] if getattr(config, "output_hidden_states", False) else _STATES
    return [*names, *states]


@contextmanager
def in_evaluation(terms: nn.Module) -> Iterator[None]:
    """Terms in eval mode; afterwards as they were, also a loss that counts its calls."""
    state = checkpoints.terms_state(terms)
    terms.eval()
    try:
        yield
    finally:
        terms.train()
        checkpoints.restore_terms(terms, state)


def append_card(trainer: Any, folder: Path) -> None:
    """Append the section on the distillation to `README.md` in a folder.

    Args:
        trainer: a `FeatureDistillation` trainer.
        folder: where the trainer has written its card.
    """
    path = folder / "README.md"
    card = path.read_text(encoding="utf-8").rstrip() if path.is_file() else ""
    path.write_text(f"{card}\n\n{card_section(trainer)}\n", encoding="utf-8")


def card_section(trainer: Any) -> str:
    """Teacher, student, losses with weights, data, last scores, versions and citation."""
    cache = trainer.teacher_cache
    teacher = f"stored outputs in {cache.folder.name}" if cache else _name(trainer.teacher_model)
    losses = [f"| task | {trainer.task_weight:g} |"]
    if trainer.logit_loss is not None:
        losses.append(f"| logits: `{trainer.logit_loss!r}` | {trainer.logit_weight:g} |")
    losses += [
        f"| `{name.removeprefix('weight/')}` (teacher layer - student layer) | {weight:.4g} |"
        for name, weight in trainer.term_weights().items()
    ]
    scores = next(filter(None, map(_scores, reversed(trainer.state.log_history))), {})
    return "\n".join(
        [
            "## Distillation",
            "",
            f"- Teacher: {teacher}",
            f"- Student: {_name(trainer.model)}",
            f"- Data: {_data(trainer.train_dataset)}",
            f"- Steps: {trainer.state.global_step}",
            "",
            "| loss | weight |",
            "|---|---|",
            *losses,
            "",
            *(["| score | value |", "|---|---|"] if scores else []),
            *(f"| {name} | {value:.4g} |" for name, value in scores.items()),
            "",
            "Versions: " + ", ".join(f"{name} {v}" for name in _PACKAGES if (v := _version(name))),
            "",
            "Please cite the paper of the method:",
            "",
            _CITATION,
        ]
    )


def _scores(row: dict[str, Any]) -> dict[str, float]:
    speed = ("_runtime", "_per_second")
    return {
        name: value
        for name, value in row.items()
        if name.startswith("eval_") and not name.endswith(speed)
    }


def _name(model: Any) -> str:
    if model is None:
        return "none"
    base = base_of(model)
    path = str(getattr(getattr(base, "config", None), "_name_or_path", "") or "")
    size = sum(p.numel() for p in base.parameters())
    return f"{type(base).__name__} {path}".strip() + f", {size / 1e6:,.1f} million weights"


def _data(dataset: Any) -> str:
    name = getattr(getattr(dataset, "info", None), "dataset_name", None) or "unnamed"
    return f"{name}, {len(dataset)} examples" if hasattr(dataset, "__len__") else str(name)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

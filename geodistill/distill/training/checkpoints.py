"""Checkpoints of the terms, and which checkpoints a training may resume from."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from geodistill.distill.feature_term import TermModule
from geodistill.errors import InputError

TERMS_FILE = "feature_terms.safetensors"
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "adapter_model.*", "*/adapter_model.*")
_NEEDED = ("trainer_state.json", "optimizer.pt", "scheduler.pt")


def save_terms(terms: nn.Module, folder: Path) -> None:
    """Save parameters, memories and warm-ups of the terms in a checkpoint."""
    save_file(terms_state(terms), folder / TERMS_FILE, {"terms": _described(terms)})


def load_terms(terms: nn.Module, folder: Path) -> None:
    """Load what `save_terms` wrote; InputError for other terms."""
    path = folder / TERMS_FILE
    if not path.is_file():  # `resumable` has checked that nothing is to be restored
        return
    with safe_open(path, "pt") as file:
        stored = (file.metadata() or {}).get("terms")  # files of earlier versions have none
    if stored is not None and stored != (described := _described(terms)):
        raise InputError(
            f"{path} is of other terms: it is of {stored}, and given are {described or 'none'}; "
            "expected the same terms, or a new training from the checkpoint's weights"
        )
    try:
        terms.load_state_dict(load_file(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is of other terms: {reason}") from error


def _described(terms: nn.Module) -> str:
    """The terms with all that decides what their parameters and memories are of."""
    described = []
    for module in terms.children():
        assert isinstance(module, TermModule)
        options = {name: getattr(module.loss, name, None) for name in ("center", "scale", "decay")}
        options |= {name: getattr(module.term, name) for name in ("pooling", "drop_outliers")}
        shown = ", ".join(f"{name}={value}" for name, value in options.items() if value is not None)
        described.append(f"{module.name} ({shown})")
    return ", ".join(described)


def terms_state(terms: nn.Module) -> dict[str, Tensor]:
    """A copy of parameters, memories and warm-ups of the terms."""
    # Copies, since safetensors takes no views, nor one tensor under two names.
    return {name: tensor.clone().contiguous() for name, tensor in terms.state_dict().items()}


def restore_terms(terms: nn.Module, state: dict[str, Tensor]) -> None:
    """Put the terms back into a state, without what they have registered since."""
    for prefix, module in terms.named_modules():
        for name in {*module._buffers} - module._non_persistent_buffers_set:
            if f"{prefix}.{name}" not in state:
                del module._buffers[name]
    terms.load_state_dict(state)


def resumable(resume: str | bool | None, output_dir: str, with_terms: bool) -> str | None:
    """The folder to resume from: as given, or for True the last complete checkpoint.

    Args:
        resume: as `Trainer.train` takes it.
        output_dir: where checkpoints are looked for.
        with_terms: whether the checkpoint must have a state of the terms.

    Raises:
        InputError: an incomplete checkpoint, or none.
    """
    if not resume:
        return None
    if resume is not True:
        folder = Path(str(resume))
        if not (flaw := _flaw(folder, with_terms)):
            return str(folder)
        complete = last_complete(Path(output_dir), with_terms)
        instead = (
            f"the last complete one is {complete}"
            if complete
            else "there is no complete one beside it"
        )
        raise InputError(f"resume_from_checkpoint is {folder}, in which {flaw}; {instead}")
    flaws: list[str] = []
    for path in _newest_first(Path(output_dir)):
        if not (flaw := _flaw(path, with_terms)):
            if flaws:
                warnings.warn(f"resumed from {path.name}: {'; '.join(flaws)}", stacklevel=3)
            return str(path)
        flaws.append(f"in {path.name} {flaw}")
    raise InputError(
        f"resume_from_checkpoint is True, and {output_dir} has no complete checkpoint"
        + (f": {'; '.join(flaws[:3])}" if flaws else "")
    )


def last_complete(output_dir: Path, with_terms: bool = False) -> Path | None:
    """The newest complete checkpoint in a folder, or None.

    Args:
        output_dir: of the trainer.
        with_terms: whether it must have a state of the terms.
    """
    return next((p for p in _newest_first(output_dir) if not _flaw(p, with_terms)), None)


def _newest_first(output_dir: Path) -> list[Path]:
    steps = [
        (int(path.name.rpartition("-")[2]), path)
        for path in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.name.rpartition("-")[2].isdigit()
    ]
    return [path for _, path in sorted(steps, reverse=True)]


def _flaw(folder: Path, with_terms: bool) -> str:
    """What a checkpoint lacks, or which file is cut short; empty for a complete one."""
    if not folder.is_dir():
        return "no folder is found"
    needed = (*_NEEDED, TERMS_FILE) if with_terms else _NEEDED
    if missing := [name for name in needed if not (folder / name).is_file()]:
        why = " (of a trainer without these terms?)" if missing == [TERMS_FILE] else ""
        return f"{', '.join(missing)} is missing{why}"
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        return "the weights are missing"
    try:
        json.loads((folder / _NEEDED[0]).read_text(encoding="utf-8"))
    except ValueError:
        return f"{_NEEDED[0]} is damaged"
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path):
            return f"{path.name} is damaged"
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, "pt"):
                    pass
            except (SafetensorError, OSError):
                return f"{path.name} is damaged"
    return ""


def check_gradients(norm: Tensor | float | None, terms: nn.Module) -> bool:
    """Whether the norm of the student's gradient, and the terms' gradients, are finite."""
    values = [torch.as_tensor(norm)] if norm is not None else []
    values += [p.grad.sum() for p in terms.parameters() if p.grad is not None]
    return all(bool(value.isfinite().all()) for value in values)

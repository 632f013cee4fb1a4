"""What the studies share: tokenised data sets, padding, and one set of Trainer arguments."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geodistill.distill.collate import beside, in_batches, pad

__all__ = [
    "beside",
    "collate",
    "device",
    "fit",
    "in_batches",
    "last_checkpoint",
    "pad",
    "quiet",
    "scratch",
    "threads",
    "training_arguments",
]


WHOLE = "trainer_state.json"
"""The last file that a checkpoint is given."""


def training_arguments(folder: Path, *, seed: int, **settings: Any) -> Any:
    """`TrainingArguments` for a short run: fused AdamW, no reports, no checkpoints on the way.

    Args:
        folder: scratch.
        seed: of the order of examples and of dropout.
        **settings: what the study fixes (epochs, batch size, learning rate, ...).
    """
    from transformers import TrainingArguments

    fixed: dict[str, Any] = {
        "output_dir": str(folder),
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_strategy": "steps",
        "logging_steps": 20,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        # Sentences of like length together: half the padding, half the time.
        "train_sampling_strategy": "group_by_length",
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    return TrainingArguments(**{**fixed, **settings})


def scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder for one run's Trainer, removed after it."""
    return tempfile.TemporaryDirectory(prefix="geodistill-")


def device() -> torch.device:
    """Where models compute: the first GPU where there is one, as for the Trainer, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` threads: sums depend on it, so equal runs need an equal number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def quiet() -> None:
    """Only errors from `transformers` and `datasets`; our own progress tells where a run is."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()


def collate(
    pad_id: int, names: tuple[str, ...], examples: list[dict[str, Any]]
) -> dict[str, Tensor]:
    """The `names` of some examples as one padded batch."""
    return pad([{name: e[name] for name in names} for e in examples], pad_id)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{WHOLE}")]
    return max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)


def fit(trainer: Any, resume: Path | None = None) -> None:
    """Train without printing, from the checkpoint `resume` if given; the log stays in
    `trainer.state.log_history`.

    Raises:
        FloatingPointError: weights that are not finite after the last step, whose loss still was.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if not all(bool(p.isfinite().all()) for p in trainer.model.parameters()):
        raise FloatingPointError(
            f"the weights are not finite after step {trainer.state.global_step}, the last one; "
            "lower the learning rate or a weight"
        )

"""Short trainings by `transformers.Trainer`: arguments, threads, device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments


def training_arguments(folder: Path, *, seed: int, **settings: Any) -> TrainingArguments:
    """`TrainingArguments` of a short run: fused AdamW, no reports, no intermediate checkpoints.

    Args:
        folder: output folder.
        seed: of the order of examples and of dropout.
        **settings: other arguments, such as epochs, batch size and learning rate.
    """
    from transformers import TrainingArguments

    defaults: dict[str, Any] = {
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
        # Batches of texts of similar length: half the padding, half the time.
        "train_sampling_strategy": "group_by_length",
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    return TrainingArguments(**{**defaults, **settings})


def default_device() -> torch.device:
    """The device of the models: the first GPU, as for the Trainer, or else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads; floating-point sums, and with them a run, depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def silence_libraries() -> None:
    """Show only errors of `transformers` and `datasets`, and none of their progress bars."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()


def fit(trainer: Trainer, resume: Path | None = None) -> None:
    """Train without printing; the log stays in `trainer.state.log_history`.

    Args:
        trainer: of any kind.
        resume: a checkpoint to continue from.

    Raises:
        FloatingPointError: weights that are not finite after the last step, whose loss still was.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    assert trainer.model is not None
    if not all(bool(p.isfinite().all()) for p in trainer.model.parameters()):
        raise FloatingPointError(
            f"the weights are not finite after step {trainer.state.global_step}, the last one; "
            "lower the learning rate or a weight"
        )

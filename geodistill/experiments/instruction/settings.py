"""The settings of an instruction run. Loads neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from geodistill.experiments.settings import setting

OPT, FIRST = "opt", "first"
"""The untrained student of OPT's architecture, and the teacher's first layers; any other name of a
student is a folder or one of the hub."""
INIT_SEED_OFFSET, ORDER_SEED_OFFSET = 1_000, 2_000
"""Added to a run's seed: its seeds of initialisation and data order never coincide."""


@dataclass(frozen=True)
class InstructionSettings:
    """The settings of one run; runs of equal settings, method and seed are the same run.

    Attributes:
        task: name of an instruction set.
        teacher: "opt-computed", that of the computed instructions, "smollm2", the embedded one, or
            a folder or hub name of a causal language model.
        n_train: prompts that the student learns from, the same for every seed.
        n_test: prompts that it is scored on, the same for every seed.
        epochs: passes over the training prompts.
        batch_size: examples whose answer tokens a feature term compares.
        learning_rate: peak of the linear schedule.
        width: hidden size of the OPT student.
        layers: of the OPT student, or of the teacher's layers that the student "first" takes.
        kd_weight: share of the logit distillation in the loss; the answers have the rest.
        weight: of a feature term; with `weight_warmup_batches`, a multiple of the ratio of gradient
            norms.
        top_k: teacher logits stored at each answer token, beside the mass of the rest.
        max_length: longest prompt with answer, in tokens; longer pairs are left out.
        max_new_tokens: longest answer generated.
        adapter: folder name under data/adapters, or empty for the teacher without an adapter.
        split: what the student is scored on; "validation" serves to choose settings.
        extra_eval_sets: further instruction sets to score.
        student: "opt", an untrained one of `layers` x `width`; "first", the teacher's first
            `layers`; or a folder or hub name of a causal language model with the teacher's
            tokenizer, which starts from its own weights.
        weight_warmup_batches: first batches, in which the term is off and that ratio is measured.
    """

    task: str = "computed"
    teacher: str = "opt-computed"
    n_train: int = 9600
    n_test: int = 960
    epochs: float = 15.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    width: int = 128
    layers: int = 2
    kd_weight: float = 0.5
    weight: float = 1.0
    top_k: int = 64
    max_length: int = 40
    max_new_tokens: int = 8
    adapter: str = ""
    split: Literal["test", "validation"] = "test"
    extra_eval_sets: tuple[str, ...] = ()
    student: str = OPT
    weight_warmup_batches: int = setting(0, added_later=True)

    SETUP_FIELDS: ClassVar[tuple[str, ...]] = (
        "task", "teacher", "n_train", "n_test", "top_k", "max_length", "max_new_tokens", "adapter",
        "split", "extra_eval_sets",
    )  # fmt: skip
    """Prompts and teacher's outputs depend on these; runs of one setup differ in the rest."""


def smoke() -> InstructionSettings:
    """The smallest settings that run every line, in seconds."""
    return InstructionSettings(n_train=64, n_test=16, epochs=1.0, batch_size=16, width=64, layers=1)

"""The settings of an instruction run. Loads neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from geodistill.experiments.settings import setting

OPT = "opt"
"""The untrained student of OPT's architecture; any other name is a folder or one of the hub."""
INIT_SEED_OFFSET, ORDER_SEED_OFFSET = 1_000, 2_000
"""Added to a run's seed: its seeds of initialisation and data order never coincide."""


@dataclass(frozen=True)
class InstructionSettings:
    """The settings of one run; runs of equal settings, method and seed are the same run.

    Attributes:
        task: name of an instruction set.
        teacher: "smollm2", the embedded one, "opt-computed", that of the computed instructions, or
            a folder or hub name of a causal language model.
        n_train: prompts that the student learns from, the same for every seed.
        n_test: prompts that it is scored on, the same for every seed.
        epochs: passes over the training prompts.
        batch_size: examples whose answer tokens a feature term compares.
        learning_rate: peak of the linear schedule.
        width: hidden size of the OPT student.
        layers: of the OPT student.
        kd_weight: share of the logit distillation in the loss; the answers have the rest.
        weight: fixed weight of a feature term.
        top_k: teacher logits stored at each answer token, beside the mass of the rest.
        max_length: longest prompt with answer, in tokens; longer pairs are left out.
        max_new_tokens: longest answer generated.
        adapter: folder name under data/adapters, or empty for the teacher without an adapter.
        split: what the student is scored on; "validation" serves to choose settings.
        sampling_seeds: seeds of sampled answers (temperature 1, all tokens), beside the greedy one.
        extra_eval_sets: further instruction sets to score.
        tie_embeddings: whether the student's head is its embedding matrix, or starts as its copy.
        stages: 1 trains on the sum of distillation and answers, 2 on one after the other.
        gradient_accumulation_steps: batches whose gradients make one step.
        start_seed: of the initialisation, if the run's seed sets the data order alone.
        student: "opt", an untrained one of `layers` x `width`, or a folder or hub name of a causal
            language model with the teacher's tokenizer, which starts from its own weights.
    """

    task: str = "embedded"
    teacher: str = "smollm2"
    n_train: int = 600
    n_test: int = 300
    epochs: float = 6.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    width: int = 256
    layers: int = 4
    kd_weight: float = setting(0.5, stored_as="kd_share")
    weight: float = 1.0
    top_k: int = 64
    max_length: int = 160
    max_new_tokens: int = setting(32, stored_as="new_tokens")
    adapter: str = "smollm2-embedded"
    split: Literal["test", "validation"] = setting("test", stored_as="part", added_later=True)
    sampling_seeds: tuple[int, ...] = setting((), stored_as="decodings", added_later=True)
    extra_eval_sets: tuple[str, ...] = setting((), stored_as="also", added_later=True)
    tie_embeddings: bool = setting(True, stored_as="tied", added_later=True)
    stages: Literal[1, 2] = setting(1, added_later=True)
    gradient_accumulation_steps: int = setting(1, stored_as="accumulate", added_later=True)
    start_seed: int | None = setting(None, added_later=True)
    student: str = setting(OPT, added_later=True)


SETUP_FIELDS = (
    "task",
    "teacher",
    "n_train",
    "n_test",
    "top_k",
    "max_length",
    "max_new_tokens",
    "adapter",
    "split",
    "extra_eval_sets",
)
"""What the prompts and the teacher's outputs depend on; runs of one setup differ in the rest."""


def setup_settings(settings: InstructionSettings) -> InstructionSettings:
    """The settings with every field that the setup does not depend on at its default."""
    default = InstructionSettings()
    rest = [f.name for f in fields(settings) if f.name not in SETUP_FIELDS]
    return replace(settings, **{name: getattr(default, name) for name in rest})


def smoke() -> InstructionSettings:
    """The smallest settings that run every line with the embedded teacher, in half a minute."""
    return InstructionSettings(
        n_train=16, n_test=8, epochs=1.0, batch_size=8, width=64, layers=1, max_new_tokens=4
    )

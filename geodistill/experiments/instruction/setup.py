"""An instruction set ready for its students: encoded prompts, teacher, cached outputs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from geodistill.distill import TeacherCache, build_cache, opt_student, take_layers
from geodistill.distill.collate import batches_by_length, count_valid_tokens
from geodistill.distill.teacher_cache import cache_key
from geodistill.errors import InputError
from geodistill.experiments.instruction.generate import Example, end_tokens, generate
from geodistill.experiments.instruction.models import load_student, load_teacher, weights_hash
from geodistill.experiments.instruction.settings import (
    FIRST,
    INIT_SEED_OFFSET,
    OPT,
    InstructionSettings,
)
from geodistill.experiments.training import torch_threads
from geodistill.files import Progress, no_progress
from geodistill.tasks import assets, load_instructions
from geodistill.tasks.base import InstructionData, Row, hash_to_unit
from geodistill.tasks.instructions import drop_overlapping
from geodistill.tasks.prompts import encode_pair, encode_pairs

BATCH_SIZE = 16
"""Examples per step of the teacher."""


@dataclass(frozen=True)
class InstructionSetup:
    """An instruction set with its teacher, encoded, and the teacher's outputs cached.

    Attributes:
        settings: of the runs.
        teacher: a causal language model.
        tokenizer: of the teacher and of its students.
        train: examples with input_ids, labels (-100 on the prompt), prompt_ids, completion, item,
            source and row, their index.
        test: the same of the split that students are scored on.
        extra_eval_sets: the same of each further set, by name. Answers are cut at the limit; long
            prompts and those that overlap with the training prompts are left out.
        train_cache: outputs of the teacher by row of `train`.
        test_cache: outputs of the teacher by row of `test`.
        data_hash: of the set's texts.
    """

    settings: InstructionSettings
    teacher: Any
    tokenizer: Any
    train: list[Example]
    test: list[Example]
    extra_eval_sets: dict[str, list[Example]]
    train_cache: TeacherCache
    test_cache: TeacherCache
    data_hash: str


def prepare_instruction(
    settings: InstructionSettings,
    progress: Progress = no_progress,
    data: InstructionData | None = None,
) -> InstructionSetup:
    """Load prompts and teacher, and cache the teacher's outputs on training and test prompts.

    Args:
        settings: of the runs.
        progress: called with a line for each stage.
        data: the instructions; by default the set that `settings.task` names.

    Raises:
        InputError: unknown set, teacher or adapter, or too few prompts.
    """
    data = data or load_instructions(settings.task)
    progress("loading the teacher")
    teacher, tokenizer = load_teacher(settings.teacher, settings.adapter)
    limit = settings.max_length
    train, n_long_train = select_pairs(data.train, settings.n_train, tokenizer, limit)
    split = data.test if settings.split == "test" else data.validation
    test, n_long_test = select_pairs(split, settings.n_test, tokenizer, limit)
    progress(
        f"{settings.task}: {len(train)} train and {len(test)} {settings.split} pairs, "
        f"{n_long_train + n_long_test} left out with more than {limit} tokens"
    )
    extra_eval_sets = {
        name: _encode_extra_set(name, settings, data.train, tokenizer, progress)
        for name in settings.extra_eval_sets
    }
    train_cache, test_cache = (
        cache_teacher_outputs(teacher, tokenizer, settings, examples, progress)
        for examples in (train, test)
    )
    return InstructionSetup(
        settings, teacher, tokenizer, train, test, extra_eval_sets, train_cache, test_cache,
        data.data_hash,
    )  # fmt: skip


def select_pairs(
    rows: Iterable[Row], n: int, tokenizer: Any, max_length: int
) -> tuple[list[Example], int]:
    """The first `n` pairs that are short enough, in the order of a hash of their ids.

    Args:
        rows: prompts with their answers.
        n: how many to take.
        tokenizer: encodes them.
        max_length: longest prompt with answer, in tokens.

    Returns:
        The encoded pairs, and how many were passed over for their length.

    Raises:
        InputError: fewer than `n` pairs are short enough, or one has an empty prompt or answer.
    """
    selected: list[Example] = []
    n_long = 0
    for row in sorted(rows, key=lambda row: hash_to_unit(row["item"])):
        example = encode_pair(row, tokenizer)
        if len(example["input_ids"]) > max_length:
            n_long += 1
            continue
        selected.append({**example, "row": len(selected)})
        if len(selected) == n:
            return selected, n_long
    raise InputError(
        f"{len(selected)} pairs have at most {max_length} tokens; expected at least the {n} of the "
        "settings: lower n_train or n_test, or raise max_length"
    )


def _encode_extra_set(
    name: str,
    settings: InstructionSettings,
    train: Iterable[Row],
    tokenizer: Any,
    progress: Progress,
) -> list[Example]:
    rows = list(load_instructions(name).test)
    unseen = drop_overlapping(rows, train)
    examples, lengths = encode_pairs(
        unseen,
        tokenizer,
        max_length=settings.max_length + settings.max_new_tokens,
        max_prompt_length=settings.max_length,
    )
    n_overlapping = len(rows) - len(unseen)
    progress(
        f"{name}: {lengths}; {n_overlapping} others quote a training prompt of {settings.task}"
    )
    return examples


def cache_teacher_outputs(
    teacher: Any,
    tokenizer: Any,
    settings: InstructionSettings,
    examples: list[Example],
    progress: Progress = no_progress,
) -> TeacherCache:
    """The teacher's last features and top logits at the answer tokens of some examples.

    Args:
        teacher: a causal language model.
        tokenizer: of the teacher.
        settings: name the teacher and its adapter, and hold `top_k`.
        examples: whose answers it reads; computed once, then read from the user's cache.
        progress: called with a line for each tenth.
    """

    def report(done: int, total: int) -> None:
        if done == total or done * 10 // total > max(0, done - BATCH_SIZE) * 10 // total:
            progress(f"teacher: {done} of {total} prompts")

    with torch_threads(1):  # else the stored sums depend on the process that came first
        return build_cache(
            teacher,
            batches_by_length(examples, BATCH_SIZE, tokenizer.pad_token_id),
            count_valid_tokens(examples),
            assets.cache_dir() / "outputs" / _outputs_key(settings, examples),
            layers=(-1,),
            top_k=settings.top_k,
            on_batch=report,
            progress=progress,
        )


def _outputs_key(settings: InstructionSettings, examples: list[Example]) -> str:
    ids = json.dumps([e["input_ids"] for e in examples])
    weights = weights_hash(settings.teacher, settings.adapter)
    return cache_key(ids, settings.teacher, weights, str(settings.top_k))


def teacher_generations(setup: InstructionSetup, progress: Progress = no_progress) -> list[Example]:
    """The training prompts with the teacher's greedy answers, for sequence-level distillation.

    Kim & Rush (2016), with one beam. The answers are generated once, into the user's cache; an
    answer that fills all `max_new_tokens` was cut and gets no end token.

    Args:
        setup: of the run.
        progress: called with a line for each batch.
    """
    settings = setup.settings
    # The hashes of the teacher's outputs identify its weights, which a name does not.
    outputs = json.dumps(setup.train_cache.manifest["sha256"])
    ends = map(str, end_tokens(setup.teacher, setup.tokenizer)[1:])  # beside the tokenizer's
    limit = str(settings.max_new_tokens)
    key = cache_key(_outputs_key(settings, setup.train), limit, outputs, *ends)
    answers = generate(
        setup.teacher,
        setup.tokenizer,
        setup.train,
        settings.max_new_tokens,
        file=assets.cache_dir() / "answers" / f"{key}.jsonl",
        progress=lambda line: progress(f"teacher: {line}"),
    )
    examples = []
    for example, answer in zip(setup.train, answers, strict=True):
        ids = setup.tokenizer(answer, add_special_tokens=False)["input_ids"]
        ids = ids[: settings.max_new_tokens]
        if len(ids) < settings.max_new_tokens:
            ids = [*ids, setup.tokenizer.eos_token_id]
        prompt = example["prompt_ids"]
        pair = {"input_ids": prompt + ids, "labels": [-100] * len(prompt) + ids}
        examples.append({**example, **pair, "completion": answer})
    return examples


def build_student(setup: InstructionSetup, seed: int) -> Any:
    """The student of a seed before its training, the same for every method.

    Raises:
        InputError: more layers than the teacher has; a student that is no causal language model,
            or has another vocabulary than the teacher or fewer positions than prompts and answers
            need.
    """
    settings = setup.settings
    if settings.student == FIRST:
        return take_layers(setup.teacher, range(1, settings.layers + 1))
    positions = settings.max_length + settings.max_new_tokens
    if settings.student != OPT:
        return load_student(settings.student, setup.tokenizer, positions)
    return opt_student(
        setup.teacher,
        width=settings.width,
        layers=settings.layers,
        max_positions=positions,
        seed=INIT_SEED_OFFSET + seed,
    )

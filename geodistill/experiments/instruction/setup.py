"""An instruction set with its teacher: loaded, tokenised, run once, its outputs kept."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from torch import Tensor

from geodistill.distill import TeacherCache, build_cache, opt_student
from geodistill.distill.teacher_cache import cache_key
from geodistill.errors import InputError
from geodistill.experiments.instruction.evaluate import Example, generate, model_inputs
from geodistill.experiments.instruction.models import given_student, load_teacher
from geodistill.experiments.run_store import data_dir
from geodistill.experiments.training import in_batches, pad
from geodistill.tasks import assets, load_instructions
from geodistill.tasks.base import fraction
from geodistill.tasks.instructions import unseen
from geodistill.tasks.prompts import encode, encode_all

Report = Callable[[str], None]
INIT = 1_000
"""Added to the seed of the student's start."""
OPT = "opt"
"""The student made on the spot; any other name is a folder or one of the hub."""


@dataclass(frozen=True)
class InstructionSetting:
    """One study point; two runs with equal settings, method and seed are the same run.

    Attributes:
        task: name of an instruction set.
        teacher: "smollm2", the embedded one, or a folder or hub name of a causal language model.
        n_train, n_test: prompts used, the same for every seed.
        batch_size: examples whose answer rows a feature term compares.
        width, layers: of the OPT student.
        weight: fixed factor of a feature term (a gradient-norm match misleads for decoders).
        top_k: teacher logits stored at each response position, beside the mass of the rest.
        max_length: longest prompt with answer, in tokens; longer pairs are left out.
        new_tokens: longest answer generated.
        adapter: folder name under data/adapters, or empty for the teacher as it came.
        part: what the student is scored on: "test", or "validation" to choose a setting.
        decodings: seeds of sampled answers (temperature 1, all tokens), beside the greedy ones.
        also: further instruction sets to score.
        tied: whether the student's head is its embedding matrix, or starts as a copy of it.
        student: "opt", an untrained one of `layers` x `width`, or a folder or hub name of a causal
            language model with the teacher's tokens, which goes on from its own weights.
        stages: 1 trains on the sum of distillation and answers, 2 on one after the other.
        accumulate: batches whose gradients make one step.
        start_seed: of the student's start, where the run's seed shall set the order alone.
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
    kd_share: float = 0.5
    weight: float = 1.0
    top_k: int = 64
    max_length: int = 160
    new_tokens: int = 32
    adapter: str = "smollm2-embedded"
    part: Literal["test", "validation"] = "test"
    decodings: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    tied: bool = True
    stages: Literal[1, 2] = 1
    accumulate: int = 1
    start_seed: int | None = None
    student: str = OPT


OF_ROOM = (
    "task", "teacher", "n_train", "n_test", "top_k", "max_length", "new_tokens", "adapter", "part",
    "also",
)  # fmt: skip
"""What a room depends on; students of one room differ in the rest."""


def shared_setting(setting: InstructionSetting) -> InstructionSetting:
    """The setting with all that does not make another room at its default."""
    default = InstructionSetting()
    rest = [f.name for f in fields(setting) if f.name not in OF_ROOM]
    return replace(setting, **{name: getattr(default, name) for name in rest})


@dataclass(frozen=True)
class InstructionRoom:
    """An instruction set with its teacher, tokenised, its outputs cached.

    Attributes:
        train, test: examples with input_ids, labels (-100 on the prompt), prompt_ids, item, source,
            completion; `test` is the setting's part.
        also: the same for each further set; answers are cut at the limit, long prompts and those
            that quote a training prompt are left out.
        left_out: pairs longer than `max_length`.
        cache, test_cache: teacher outputs of the training and of the test examples.
    """

    setting: InstructionSetting
    teacher: Any
    tokenizer: Any
    train: list[Example]
    test: list[Example]
    also: dict[str, list[Example]]
    left_out: int
    cache: TeacherCache
    test_cache: TeacherCache
    data_hash: str


def choose(rows: Any, n: int, tokenizer: Any, max_length: int) -> tuple[list[Example], int]:
    """The first `n` pairs in the order of their ids' hash, and how many were too long on the way.

    Raises:
        InputError: fewer than `n` pairs fit, or a pair has an empty prompt or answer.
    """
    chosen: list[Example] = []
    left_out = 0
    for row in sorted(rows, key=lambda row: fraction(row["item"])):
        example = encode(row, tokenizer)
        if len(example["input_ids"]) > max_length:
            left_out += 1
            continue
        chosen.append({**example, "row": len(chosen)})
        if len(chosen) == n:
            return chosen, left_out
    raise InputError(f"{n} pairs asked for, {len(chosen)} have at most {max_length} tokens")


def open_instruction_room(
    setting: InstructionSetting, report: Report = lambda line: None
) -> InstructionRoom:
    """Load prompts and teacher, and run the teacher once over training and test prompts.

    Raises:
        InputError: unknown set or adapter, too few prompts.
    """
    data = load_instructions(setting.task)
    report("loading the teacher")
    teacher, tokenizer = load_teacher(setting.teacher, setting.adapter)
    length = setting.max_length
    train, left = choose(data.train, setting.n_train, tokenizer, length)
    scored = data.test if setting.part == "test" else data.validation
    test, left_test = choose(scored, setting.n_test, tokenizer, length)
    for name, chosen, long in (("train", train, left), (setting.part, test, left_test)):
        report(f"{setting.task}, {name}: {len(chosen)} pairs, {long} longer than {length} left out")
    also = {}
    for name in setting.also:
        asked = list(load_instructions(name).test)
        fresh = unseen(asked, data.train)
        also[name], lengths = encode_all(
            fresh, tokenizer, max_length=length + setting.new_tokens, max_prompt=length
        )
        quoted = len(asked) - len(fresh)
        report(f"{name}: {lengths}; {quoted} others quote a training prompt of {setting.task}")
    cache, test_cache = (
        outputs_of(teacher, tokenizer, setting, examples, name, report)
        for name, examples in (("training", train), (setting.part, test))
    )
    return InstructionRoom(
        setting, teacher, tokenizer, train, test, also, left + left_test, cache, test_cache,
        data.data_hash,
    )  # fmt: skip


def outputs_of(
    teacher: Any,
    tokenizer: Any,
    setting: InstructionSetting,
    examples: list[Example],
    name: str,
    report: Report = lambda line: None,
) -> TeacherCache:
    """What the teacher says at the answers of some examples, run once and kept on disk."""
    return build_cache(
        teacher,
        in_batches([model_inputs(e) for e in examples], 16, tokenizer.pad_token_id),
        [sum(label != -100 for label in e["labels"]) for e in examples],
        assets.cache_dir() / "outputs" / _key(setting, examples),
        layers=(-1,),
        top_k=setting.top_k,
        report=lambda done, total: report(f"teacher: {done} of {total} {name} prompts"),
        say=report,
    )


def _key(setting: InstructionSetting, examples: list[Example]) -> str:
    """Names what the teacher makes of these examples."""
    ids = json.dumps([e["input_ids"] for e in examples])
    return cache_key(ids, setting.teacher, _digest(setting.adapter), str(setting.top_k))


def _digest(adapter: str) -> str:
    if not adapter:
        return ""
    weights = data_dir() / "adapters" / adapter / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def own_words(room: InstructionRoom, report: Report = lambda line: None) -> list[Example]:
    """The training prompts with the teacher's greedy answers (Kim & Rush, 2016, with one beam).

    Generated once; each batch is stored as it is made, so that a killed generation goes on. An
    answer that fills all `new_tokens` was cut and gets no end token.
    """
    setting = room.setting
    # The teacher's outputs tell its weights, which a name does not.
    outputs = json.dumps(room.cache.manifest.get("sha256"))
    key = cache_key(_key(setting, room.train), str(setting.new_tokens), outputs)
    answers = generate(
        room.teacher, room.tokenizer, room.train, setting.new_tokens,
        stored=assets.cache_dir() / "answers" / f"{key}.jsonl",
        report=lambda done, total: report(f"teacher: {done} of {total} answers"),
    )  # fmt: skip
    examples = []
    for example, answer in zip(room.train, answers, strict=True):
        ids = room.tokenizer(answer, add_special_tokens=False)["input_ids"][: setting.new_tokens]
        if len(ids) < setting.new_tokens:
            ids = [*ids, room.tokenizer.eos_token_id]
        prompt = example["prompt_ids"]
        said = {"input_ids": prompt + ids, "labels": [-100] * len(prompt) + ids}
        examples.append({**example, **said, "completion": answer})
    return examples


def collate(pad_id: int, examples: list[Example]) -> dict[str, Tensor]:
    """Examples as one padded batch: input_ids, attention_mask, labels, row."""
    return pad([{**model_inputs(e), "row": e["row"]} for e in examples], pad_id)


def start_student(room: InstructionRoom, seed: int) -> Any:
    """The student of a seed before it is trained, the same for every method.

    Raises:
        InputError: a student that is no language model, has other tokens than the teacher or fewer
            positions than prompts and answers need.
    """
    setting = room.setting
    if setting.student != OPT:
        longest = setting.max_length + setting.new_tokens
        return given_student(setting.student, room.tokenizer, longest)
    return opt_student(
        room.teacher,
        width=setting.width,
        layers=setting.layers,
        positions=setting.max_length + setting.new_tokens,
        seed=INIT + (seed if setting.start_seed is None else setting.start_seed),
        tied=setting.tied,
    )

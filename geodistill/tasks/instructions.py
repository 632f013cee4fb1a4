"""Instruction data by name: embedded, local copies of public sets, the hub's, a reader's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from geodistill.errors import AssetError, InputError
from geodistill.tasks import computed_instructions, embedded_instructions, hub
from geodistill.tasks.base import (
    SPLITS,
    InstructionData,
    Row,
    content_hash,
    data_dir,
    group_by_shared_keys,
    pair_row,
    split_around_test,
    text_key,
    to_datasets,
    word_ngrams,
)
from geodistill.tasks.jsonl import read_jsonl, read_pairs, require_field
from geodistill.tasks.own_data import (
    EXPECTED,
    FILES,
    data_name,
    is_hub_name,
    read_rows,
    split_rows,
)

TEST, VALIDATION = 0.1, 0.05
"""Expected shares of a user's prompts in the test and validation splits; `VALIDATION` of T0 too."""
PASSAGE_WORDS = 12
"""Two T0 prompts with this many consecutive words in common were made from one passage."""
OVERLAP_WORDS = 8
"""A prompt with this many consecutive words of a training prompt counts as seen in training."""
MAX_PROMPTS = 25
"""A sequence of words in more prompts is a template's wording and is not compared: the T0 files
have up to 60 prompts per template."""
PromptTemplate = Callable[[str, str], str]
"""Makes one prompt of an instruction and its input, which may be empty."""


def load_instructions(name: str | Path) -> InstructionData:
    """An instruction set by name, or a reader's own file.

    The sets for evaluation only have empty training and validation splits.

    Args:
        name: "embedded" (prompts on the human-rated texts), "computed" (families of instructions
            with computed answers), "t0" (pairs of P3); for evaluation only "computed-wordings" and
            "computed-families" (wordings and families that "computed" lacks), "self_instruct",
            "vicuna", "s_ni" or "u_ni"; "dolly" or "p3:SUBSET" of the hub; or your own: a .jsonl,
            .csv or .parquet file, a folder that `datasets` wrote, or `owner/name` or
            `owner/name:subset` of the hub. Its rows have `prompt` and `completion` or chat
            `messages`; they are split by prompt, unless they have a train and a test split, from
            which training rows with a prompt of the test split are left out. If there are chats,
            rows have a column `turns`, which is empty for a plain pair.

    Raises:
        InputError: unknown name, or a malformed row; the error names its place.
        AssetError: the set needs `$GEODISTILL_DATA_DIR`, which isn't set, or the hub, which can't
            be reached.

    Example:
        >>> data = load_instructions("embedded")
        >>> print(data.test["prompt"][0])
        Is this product review positive or negative?
        will never purchase apex again.
    """
    name = str(name)
    if name in INSTRUCTION_SETS:
        return _data(name, INSTRUCTION_SETS[name]())
    if name.startswith(hub.P3_PREFIX):
        return _data(name, hub.load_p3(name.removeprefix(hub.P3_PREFIX)))
    if Path(name).suffix.lower() in FILES or Path(name).is_dir() or is_hub_name(name):
        return _data(name, _read_own_data(name))
    raise InputError(
        f"unknown instruction set {name!r}; known: {', '.join(INSTRUCTION_SETS)}, "
        f"{hub.P3_PREFIX}SUBSET, {EXPECTED}"
    )


def _data(name: str, splits: Mapping[str, Sequence[Row]]) -> InstructionData:
    return InstructionData(name=name, **to_datasets(splits), data_hash=content_hash(splits))


def _embedded() -> dict[str, list[Row]]:
    return {split: list(embedded_instructions.rows(split)) for split in SPLITS}


def _read_own_data(name: str) -> dict[str, list[Row]]:
    marked = list(read_rows(name))
    pairs = list(read_pairs((where, row) for _, where, row in marked))
    if not pairs:
        raise InputError(f"{name}: empty, expected rows with prompt and completion, or messages")
    groups = group_by_shared_keys([[text_key(pair["prompt"])] for pair in pairs])
    items = [f"{data_name(name)}/{pair['line']}" for pair in pairs]
    rows = [
        pair_row(item, items[group], "user", pair["prompt"], pair["completion"])
        for item, group, pair in zip(items, groups, pairs, strict=True)
    ]
    if any("turns" in pair for pair in pairs):
        for row, pair in zip(rows, pairs, strict=True):
            row["turns"] = pair.get("turns", [])
    own_splits = [split for split, _, _ in marked]
    splits = split_rows(rows, own_splits, test=TEST, validation=VALIDATION)
    empty = [split for split in SPLITS if not splits[split]]
    if empty:
        raise InputError(
            f"{name}: {len(rows)} pairs are too few, {empty[0]} has none; they are split by "
            f"prompt, of which there are {len(set(groups))}: expected a hundred or more"
        )
    return splits


def _t0() -> dict[str, list[Row]]:
    """T0's training file for train and validation, its validation file for test.

    Test prompts that occur in the training file are dropped, then the training prompts made from
    the same passage as a test prompt (most passages serve several templates).
    """
    folder = _local_folder("t0")
    train, test = (
        list(read_pairs(read_jsonl(folder / f"t0_{part}.jsonl"), "template"))
        for part in ("train", "valid")
    )
    train_prompts = {pair["prompt"] for pair in train}
    new = [pair for pair in test if pair["prompt"] not in train_prompts]
    pairs = new + train
    items = [f"t0/valid/{pair['line']}" for pair in new]
    items += [f"t0/train/{pair['line']}" for pair in train]
    groups = group_by_shared_keys(_passage_keys([pair["prompt"] for pair in pairs]))
    rows = [
        pair_row(item, items[group], pair["template"], pair["prompt"], pair["completion"])
        for pair, item, group in zip(pairs, items, groups, strict=True)
    ]
    return split_around_test(rows[: len(new)], rows[len(new) :], validation=VALIDATION)


def _passage_keys(prompts: Sequence[str]) -> list[list[str]]:
    """The keys that link prompts: the prompt, and its sequences of words that few prompts share."""
    ngrams = [sorted(word_ngrams(prompt, PASSAGE_WORDS)) for prompt in prompts]
    counts = Counter(ngram for each in ngrams for ngram in each)
    return [
        [text_key(prompt), *(ngram for ngram in each if counts[ngram] <= MAX_PROMPTS)]
        for prompt, each in zip(prompts, ngrams, strict=True)
    ]


def drop_overlapping(rows: Iterable[Row], train: Iterable[Row]) -> list[Row]:
    """Evaluation rows whose prompts share no `OVERLAP_WORDS` consecutive words with training.

    Sets that are scored beside the training set may quote it: the movie sentences, for one, are in
    T0 and in the embedded prompts.

    Args:
        rows: rows to evaluate on, with a column `prompt`.
        train: training rows, with a column `prompt`.
    """
    counts = Counter(ngram for row in train for ngram in word_ngrams(row["prompt"], OVERLAP_WORDS))
    quotable = {ngram for ngram, count in counts.items() if count <= MAX_PROMPTS}
    return [row for row in rows if not quotable & word_ngrams(row["prompt"], OVERLAP_WORDS)]


def with_prompt_template(name: str, template: PromptTemplate) -> InstructionData:
    """An evaluation set with the prompts of a template, for students trained on that template.

    Items and answers are those of `load_instructions`; `data_hash` differs, as the prompts do.

    Args:
        name: a set that keeps instruction and input apart: "self_instruct" or "vicuna".
        template: makes the prompt of an instruction and its input.

    Raises:
        InputError: another set, or a malformed line.
        AssetError: `$GEODISTILL_DATA_DIR` isn't set.
    """
    if name not in WITH_SEPARATE_INPUT:
        raise InputError(
            f"instruction set {name!r} has complete prompts, which take no template; expected one "
            f"of {', '.join(WITH_SEPARATE_INPUT)}"
        )
    return _data(name, WITH_SEPARATE_INPUT[name](template))


def _plain_prompt(instruction: str, input_text: str) -> str:
    return "\n\n".join(text for text in (instruction, input_text) if text)


def _self_instruct(template: PromptTemplate = _plain_prompt) -> dict[str, list[Row]]:
    rows = []
    for where, task in read_jsonl(_local_folder("self_instruct") / "self_instruct_eval.jsonl"):
        require_field(task, "id", where)
        source = f"self_instruct/{task['id']}"
        instruction = _field(task, "instruction", "a text", where)
        for number, instance in enumerate(_field(task, "instances", "a list of objects", where)):
            input_text = _field(instance, "input", "a text", where)
            answer = _field(instance, "output", "a text", where)
            prompt = template(instruction, input_text)
            rows.append(pair_row(f"{source}/{number}", source, "self_instruct", prompt, answer))
    return {"test": rows}


def _vicuna(template: PromptTemplate = _plain_prompt) -> dict[str, list[Row]]:
    """The first turns of the questions that have a reference answer."""
    answers, rows, folder = {}, [], _local_folder("vicuna")
    for where, row in read_jsonl(folder / "vicuna_reference_gpt4.jsonl"):
        require_field(row, "question_id", where)
        choice = _field(row, "choices", "a list of objects", where)[0]
        answers[str(row["question_id"])] = _field(choice, "turns", "a list of texts", where)[0]
    for where, row in read_jsonl(folder / "vicuna_questions.jsonl"):
        require_field(row, "question_id", where)
        prompt = template(_field(row, "turns", "a list of texts", where)[0], "")
        category = _field(row, "category", "a text", where)
        if (number := str(row["question_id"])) in answers:
            item = f"vicuna/{number}"
            rows.append(pair_row(item, item, category, prompt, answers[number]))
    return {"test": rows}


def _field(row: Row, name: str, expected: str, where: str) -> Any:
    require_field(row, name, where)
    value = row[name]
    element = str if expected == "a list of texts" else dict
    is_list = isinstance(value, list) and bool(value) and all(isinstance(v, element) for v in value)
    if not (isinstance(value, str) if expected == "a text" else is_list):
        raise InputError(f"{where}: {name} is {value!r}, expected {expected}")
    return value


def _local_folder(name: str) -> Path:
    root = data_dir()
    if root is None or not (root / "instruct").is_dir():
        raise AssetError(
            f"instruction set {name!r} is read from $GEODISTILL_DATA_DIR/instruct, which "
            f"{'is not set' if root is None else 'is missing'}; data/cards/{name}.md says how to "
            'get it; "embedded" needs no file'
        )
    return root / "instruct"


WITH_SEPARATE_INPUT: dict[str, Callable[[PromptTemplate], dict[str, list[Row]]]] = {
    "self_instruct": _self_instruct,
    "vicuna": _vicuna,
}
INSTRUCTION_SETS: dict[str, Callable[[], dict[str, list[Row]]]] = {
    "embedded": _embedded,
    "t0": _t0,
    "self_instruct": _self_instruct,
    "vicuna": _vicuna,
    "dolly": hub.load_dolly,
    **{name: partial(hub.load_evaluation, name) for name in hub.EVALUATION},
    "computed": computed_instructions.load,
    "computed-wordings": computed_instructions.load_wordings,
    "computed-families": computed_instructions.load_families,
}

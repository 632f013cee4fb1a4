"""Instruction data by name: embedded, local copies of public sets, the hub's, a user's file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from geodistill.errors import AssetError, InputError
from geodistill.tasks import embedded_instructions, hub
from geodistill.tasks.base import (
    SPLITS,
    InstructionData,
    Row,
    content_hash,
    data_dir,
    link_sources,
    split_by_source,
    split_of,
    text_key,
    to_datasets,
    word_runs,
)
from geodistill.tasks.jsonl import read_jsonl, read_pairs, require

TEST, VALIDATION = 0.1, 0.05
"""Shares of the sources of a user's file; ``VALIDATION`` also of T0's training file."""
RUN, RARE = 12, 25
"""T0 prompts are made from one passage where they share a run of ``RUN`` words that at most
``RARE`` prompts have; each template holds 60 prompts, so a run of its own wording is not rare."""
QUOTED = 8
"""Words in a row that a prompt shares with a training prompt of another set where it was seen."""


def load(name: str | Path) -> InstructionData:
    """The instruction set ``name``, or the file where it ends in ``.jsonl``.

    ``"embedded"``: :mod:`geodistill.tasks.embedded_instructions`. ``"t0"``: P3 pairs. ``"self_instruct"`` and
    ``"vicuna"`` are for evaluation only: their train and validation are empty, as are those of
    ``"s_ni"`` and ``"u_ni"``. ``"dolly"`` and ``"p3:SUBSET"`` come from the hub. A file has one
    JSON object a line with ``prompt`` and ``completion``, or with chat ``messages``
    (:mod:`geodistill.tasks.jsonl`), and is split by prompt; where it holds chats, rows have a
    column ``turns``, empty for a plain pair.

    Raises:
        InputError: unknown name, or a malformed line; the message gives file and line.
        AssetError: a set that needs ``$GEODISTILL_DATA_DIR`` without it, or the hub offline.
    """
    name = str(name)
    if name.lower().endswith(".jsonl"):
        return _data(name, _user_file(Path(name)))
    if name.startswith(hub.P3):
        return _data(name, hub.p3(name.removeprefix(hub.P3)))
    if name not in KNOWN:
        raise InputError(
            f"unknown instruction set {name!r}; known: {', '.join(KNOWN)}, {hub.P3}SUBSET, "
            "or a .jsonl file"
        )
    return _data(name, KNOWN[name]())


def _data(name: str, splits: Mapping[str, Sequence[Row]]) -> InstructionData:
    return InstructionData(name=name, **to_datasets(splits), data_hash=content_hash(splits))


def _row(item: str, source: str, template: str, prompt: str, completion: str) -> Row:
    return {
        "item": item,
        "source": source,
        "template": template,
        "prompt": prompt,
        "completion": completion,
    }


def _embedded() -> dict[str, list[Row]]:
    return {side: list(embedded_instructions.rows(side)) for side in SPLITS}


def _user_file(path: Path) -> dict[str, list[Row]]:
    pairs = list(read_pairs(path))
    if not pairs:
        raise InputError(f"{path}: empty, expected a JSON object on each line")
    roots = link_sources([[text_key(pair["prompt"])] for pair in pairs])
    rows = [
        _row(
            f"{path.stem}/{pair['line']}",
            f"{path.stem}/{pairs[root]['line']}",
            "user",
            pair["prompt"],
            pair["completion"],
        )
        for pair, root in zip(pairs, roots, strict=True)
    ]
    if any("turns" in pair for pair in pairs):
        for row, pair in zip(rows, pairs, strict=True):
            row["turns"] = pair.get("turns", [])
    splits = split_by_source(rows, test=TEST, validation=VALIDATION)
    short = [side for side in SPLITS if not splits[side]]
    if short:
        raise InputError(
            f"{path}: {len(rows)} pairs are too few, none fell to {short[0]}; they are split by "
            f"prompt, of which there are {len(set(roots))}: expected a hundred or more"
        )
    return splits


def _t0() -> dict[str, list[Row]]:
    """T0's training file for train and validation, its validation file for test.

    Test prompts that stand in the training file are dropped, then the training prompts made from a
    passage that a test prompt has (most of its passages serve several templates).
    """
    folder = _local("t0")
    train, test = (list(read_pairs(folder / f"t0_{part}.jsonl")) for part in ("train", "valid"))
    for part, pairs in (("train", train), ("valid", test)):
        for pair in pairs:
            require(pair, ("template",), folder / f"t0_{part}.jsonl", pair["line"])
    known = {pair["prompt"] for pair in train}
    fresh = [pair for pair in test if pair["prompt"] not in known]
    pairs = fresh + train
    items = [f"t0/valid/{pair['line']}" for pair in fresh]
    items += [f"t0/train/{pair['line']}" for pair in train]
    roots = link_sources(_passages([pair["prompt"] for pair in pairs]))
    tested = set(roots[: len(fresh)])
    splits: dict[str, list[Row]] = {side: [] for side in SPLITS}
    for place, (pair, item, root) in enumerate(zip(pairs, items, roots, strict=True)):
        if place < len(fresh):
            side = "test"
        elif root in tested:
            continue
        else:
            side = split_of(items[root], test=0.0, validation=VALIDATION)
        row = _row(item, items[root], pair["template"], pair["prompt"], pair["completion"])
        splits[side].append(row)
    return splits


def _passages(prompts: Sequence[str]) -> list[list[str]]:
    """The keys by which prompts are linked: the prompt, and its runs of words that are rare."""
    runs = [sorted(word_runs(prompt, RUN)) for prompt in prompts]
    times = Counter(run for own in runs for run in own)
    return [
        [text_key(prompt), *(run for run in own if times[run] <= RARE)]
        for prompt, own in zip(prompts, runs, strict=True)
    ]


def unseen(rows: Iterable[Row], train: Iterable[Row]) -> list[Row]:
    """The ``rows`` whose prompt shares no run of ``QUOTED`` words with a prompt of ``train``.

    For sets that are scored beside the one that is trained on: movie sentences, for one, stand in
    T0 as in the embedded prompts. Runs that more than ``RARE`` training prompts have are wording.
    """
    times = Counter(run for row in train for run in word_runs(row["prompt"], QUOTED))
    seen = {run for run, count in times.items() if count <= RARE}
    return [row for row in rows if not seen & word_runs(row["prompt"], QUOTED)]


Wording = Callable[[str, str], str]
"""How an instruction and its input ("" where there is none) become one prompt."""


def _plain(instruction: str, given: str) -> str:
    return "\n\n".join(text for text in (instruction, given) if text)


def worded(name: str, wording: Wording) -> InstructionData:
    """The evaluation set ``name`` with prompts by ``wording``, for students of that wording.

    Items and answers are those of :func:`load`, whose prompts are plain; ``data_hash`` is of what
    the rows hold, so it differs.

    Raises:
        InputError: a set that does not keep instruction and input apart, or a malformed line.
        AssetError: no ``$GEODISTILL_DATA_DIR``.
    """
    if name not in WORDED:
        raise InputError(
            f"instruction set {name!r} can't be worded anew: its prompts are whole texts; "
            f"expected one of {', '.join(WORDED)}"
        )
    return _data(name, WORDED[name](wording))


def _self_instruct(wording: Wording = _plain) -> dict[str, list[Row]]:
    rows = []
    path = _local("self_instruct") / "self_instruct_eval.jsonl"
    for line, task in read_jsonl(path):
        require(task, ("id", "instruction", "instances"), path, line)
        source = f"self_instruct/{task['id']}"
        for number, instance in enumerate(_objects(task, "instances", path, line)):
            require(instance, ("input", "output"), path, line)
            given, answer = (_text(instance, key, path, line) for key in ("input", "output"))
            prompt = wording(_text(task, "instruction", path, line), given)
            rows.append(_row(f"{source}/{number}", source, "self_instruct", prompt, answer))
    return {"train": [], "validation": [], "test": rows}


def _vicuna(wording: Wording = _plain) -> dict[str, list[Row]]:
    """The questions that have a reference answer: first turns alone."""
    answers, rows = {}, []
    path = _local("vicuna") / "vicuna_reference_gpt4.jsonl"
    for line, row in read_jsonl(path):
        require(row, ("question_id", "choices"), path, line)
        choice = _objects(row, "choices", path, line)[0]
        answers[str(row["question_id"])] = _first_turn(choice, path, line)
    path = path.with_name("vicuna_questions.jsonl")
    for line, row in read_jsonl(path):
        require(row, ("question_id", "category", "turns"), path, line)
        prompt, kind = wording(_first_turn(row, path, line), ""), _text(row, "category", path, line)
        if (number := str(row["question_id"])) in answers:
            item = f"vicuna/{number}"
            rows.append(_row(item, item, kind, prompt, answers[number]))
    return {"train": [], "validation": [], "test": rows}


def _objects(row: Row, field: str, path: Path, line: int) -> list[Row]:
    found = row[field]
    if not isinstance(found, list) or not found or not all(isinstance(one, dict) for one in found):
        raise InputError(f"{path}, line {line}: {field} is {found!r}, expected a list of objects")
    return found


def _first_turn(row: Row, path: Path, line: int) -> str:
    require(row, ("turns",), path, line)
    turns = row["turns"]
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], str):
        raise InputError(f"{path}, line {line}: turns is {turns!r}, expected a list of texts")
    return turns[0]


def _text(row: Row, field: str, path: Path, line: int) -> str:
    text = row[field]
    if not isinstance(text, str):
        raise InputError(f"{path}, line {line}: {field} is {text!r}, expected a text")
    return text


def _local(name: str) -> Path:
    root = data_dir()
    if root is None or not (root / "instruct").is_dir():
        raise AssetError(
            f"instruction set {name!r} is read from $GEODISTILL_DATA_DIR/instruct, which "
            f"{'is not set' if root is None else 'is missing'}; data/cards/{name}.md says how to "
            'get it; "embedded" needs no file'
        )
    return root / "instruct"


WORDED: dict[str, Callable[[Wording], dict[str, list[Row]]]] = {
    "self_instruct": _self_instruct,
    "vicuna": _vicuna,
}
KNOWN: dict[str, Callable[[], dict[str, list[Row]]]] = {
    "embedded": _embedded,
    "t0": _t0,
    "self_instruct": _self_instruct,
    "vicuna": _vicuna,
    "dolly": hub.dolly,
    **{name: partial(hub.evaluation, name) for name in hub.EVALUATION},
}

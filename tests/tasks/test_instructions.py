"""Instructions: answers follow from the ratings, are balanced, and no text is in two splits."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from geodistill.errors import AssetError, InputError
from geodistill.tasks import InstructionData, embedded_instructions, load_instructions, sentiment
from geodistill.tasks.base import SPLITS
from geodistill.tasks.instructions import drop_overlapping, with_prompt_template
from geodistill.tasks.prompts import alpaca_prompt

REAL = os.environ.get("GEODISTILL_DATA_DIR")
needs_files = pytest.mark.skipif(not REAL, reason="GEODISTILL_DATA_DIR is not set")
# The committed results were measured on exactly these prompts.
HASH = "7e2c0473d4114ac689890515fb96ac1a16fafb66de6208a3f49ea3e537cc2dac"


@pytest.fixture(scope="module")
def data() -> InstructionData:
    return load_instructions("embedded")


@pytest.fixture(scope="module")
def rated_texts() -> dict[str, sentiment.RatedText]:
    """The rated texts by their wording in prompts: from the set, not from the templates."""
    return {
        re.sub(r"^(RT\s+)?(@anonymous[\s:]*)+", "", rated.text): rated
        for name in sentiment.FILES
        for rated in sentiment.rated_texts(name)
    }


def _quoted(row: dict[str, Any], rated_texts: Container[str]) -> list[str]:
    """The rated texts in a prompt, in their order: entire lines without their numbers."""
    lines = [re.sub(r"^[123]\. ", "", line) for line in row["prompt"].split("\n")]
    return [line for line in lines if line in rated_texts]


def test_sizes_and_lengths(data: InstructionData) -> None:
    assert len(data.train) >= 4000
    assert len(data.validation) >= 300
    assert len(data.test) >= 500
    assert len(set(data.train["template"])) >= 12
    for split in SPLITS:
        rows = getattr(data, split)
        assert rows.column_names == ["item", "source", "template", "prompt", "completion"]
        assert max(map(len, rows["prompt"])) <= 420
        assert all(prompt.strip() and answer.strip() for prompt, answer in _pairs(data, split))
    assert len(set(data.test["prompt"])) == len(data.test)
    items = [item for split in SPLITS for item in getattr(data, split)["item"]]
    assert len(set(items)) == len(items)


def _pairs(data: InstructionData, split: str) -> list[tuple[str, str]]:
    rows = getattr(data, split)
    return list(zip(rows["prompt"], rows["completion"], strict=True))


def test_no_text_and_no_group_in_two_splits(
    data: InstructionData, rated_texts: dict[str, sentiment.RatedText]
) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        for row in getattr(data, split):
            for source in row["source"].split():
                splits[f"source {source}"].add(split)
            for text in _quoted(row, rated_texts):
                splits[f"text {rated_texts[text].variant_key}"].add(split)
    assert len(splits) > 5000
    assert all(len(names) == 1 for names in splits.values())


def test_splits_are_those_of_classification(data: InstructionData) -> None:
    """A teacher trained on the movie task has not seen the movies that instructions test on."""
    from geodistill.tasks import load_classification

    movie = load_classification("movie")
    used = {source for row in data.test["source"] for source in row.split()}
    assert len(used & set(movie.test["source"])) > 300
    assert not used & set(movie.train["source"])


def test_a_test_prompt_shares_its_group_with_no_other(data: InstructionData) -> None:
    clusters: dict[str, set[str]] = defaultdict(set)
    for row in data.test["source"]:
        for source in row.split():
            clusters[source].add(row)
    assert any(" " in row for row in data.test["source"])
    assert all(len(where) == 1 for where in clusters.values())


def test_the_majority_answer_of_a_template_scores_low(data: InstructionData) -> None:
    for split in SPLITS:
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        for row in getattr(data, split):
            answers[row["template"]][row["completion"]] += 1
        assert len(answers) == len(embedded_instructions.TEMPLATES)
        for name, counts in answers.items():
            assert max(counts.values()) <= sum(counts.values()) / min(len(counts), 6) + 1, name


def _sign(x: float) -> str:
    return "positive" if x > 0 else "negative"


def _very(x: float) -> str:
    return "very " if abs(x) > 1.75 else ""


def _positives(r: list[float]) -> int:
    return sum(x > 0 for x in r)


# The answer by an independent rule: from the ratings r themselves, never from levels.
EXPECTED: dict[str, Callable[[list[float]], str]] = {
    "label": lambda r: _sign(r[0]),
    "pleased": lambda r: "yes" if r[0] > 0 else "no",
    "critical": lambda r: "no" if r[0] > 0 else "yes",
    "three_way": lambda r: "neutral" if abs(r[0]) < 0.45 else _sign(r[0]),
    "band": lambda r: _very(r[0]) + _sign(r[0]),
    "stars": lambda r: ["one star", "two stars", "four stars", "five stars"][
        sum(r[0] > edge for edge in (-1.75, 0, 1.75))
    ],
    "strength": lambda r: "strong" if abs(r[0]) > 1.75 else "mild",
    "thinks": lambda r: f"The writer thinks {_very(r[0])}{'well' if r[0] > 0 else 'badly'} of it.",
    "finish": lambda r: "a good thing." if r[0] > 0 else "a bad thing.",
    "more_positive": lambda r: "1" if r[0] > r[1] else "2",
    "more_negative": lambda r: "the first" if r[0] < r[1] else "the second",
    "same_opinion": lambda r: "a different one" if _positives(r) == 1 else "the same",
    "claim": lambda r: "true" if r[0] < r[1] else "false",
    "both": lambda r: f"The first is {_sign(r[0])}, the second is {_sign(r[1])}.",
    "copy_positive": lambda r: f"text {r.index(max(r))}",
    "odd_one_out": lambda r: str(r.index(max(r) if _positives(r) == 1 else min(r)) + 1),
    "strongest": lambda r: f"text {max(range(3), key=lambda i: abs(r[i])) + 1}",
    "count": lambda r: ["none", "one", "two", "three"][_positives(r)],
    "order": lambda r: ", ".join(str(r.index(x) + 1) for x in sorted(r)),
}


@pytest.mark.parametrize(
    "template", [template.name for template in embedded_instructions.TEMPLATES]
)
def test_answers_are_decided_by_the_ratings_with_a_margin(
    template: str, data: InstructionData, rated_texts: dict[str, sentiment.RatedText]
) -> None:
    n_texts = {t.name: t.n_texts for t in embedded_instructions.TEMPLATES}[template]
    rows = [row for split in SPLITS for row in getattr(data, split) if row["template"] == template]
    assert len(rows) > 300
    for row in rows:
        texts = _quoted(row, rated_texts)
        assert len(set(texts)) == n_texts, row
        r = [rated_texts[text].rating for text in texts]
        answer = row["completion"]
        if template == "copy_positive":
            answer = f"text {texts.index(answer)}"
        assert answer == EXPECTED[template](r), row
        edges = [-1.75, 0.0, 1.75] if template != "three_way" else [-0.45, 0.45]
        assert min(abs(x - edge) for x in r for edge in edges) > 0.249, row
        if template in {"more_positive", "more_negative", "claim", "order"}:
            ordered = sorted(r)
            assert min(b - a for a, b in pairwise(ordered)) >= 0.5, row


def test_a_prefix_is_a_balanced_smaller_set(data: InstructionData) -> None:
    counts = Counter(data.train["template"][:500])
    assert len(counts) == len(embedded_instructions.TEMPLATES)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_deterministic_and_those_of_the_committed_results(data: InstructionData) -> None:
    assert load_instructions("embedded").data_hash == data.data_hash == HASH


# Other sets.


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"unknown instruction set 'alpaca'; known: embedded, t0"):
        load_instructions("alpaca")


def test_t0_without_its_folder_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GEODISTILL_DATA_DIR", raising=False)
    with pytest.raises(AssetError, match=r"'t0' .*GEODISTILL_DATA_DIR.*not set; data/cards/t0.md"):
        load_instructions("t0")
    monkeypatch.setenv("GEODISTILL_DATA_DIR", str(tmp_path))
    with pytest.raises(AssetError, match="is missing"):
        load_instructions("t0")


def _write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _passage(i: int) -> str:
    return " ".join(f"word{i}x{j}" for j in range(20))


def test_t0_drops_known_prompts_and_passages_of_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Wording shared by all prompts of a template links nothing; a shared passage does."""
    monkeypatch.setenv("GEODISTILL_DATA_DIR", str(tmp_path))
    boilerplate = "here is a passage please read it with care and then answer this question: "

    def row(prompt: str) -> dict[str, str]:
        return {"template": "t", "prompt": boilerplate + prompt, "completion": "yes"}

    train = [row(_passage(i)) for i in range(60)]
    test = [row(_passage(7)), row(_passage(8) + " otherwise"), row(_passage(100))]
    _write(tmp_path / "instruct" / "t0_train.jsonl", train)
    _write(tmp_path / "instruct" / "t0_valid.jsonl", test)
    data = load_instructions("t0")
    assert data.test["item"] == ["t0/valid/2", "t0/valid/3"]  # the first stands in train
    kept = set(data.train["item"]) | set(data.validation["item"])
    assert kept == {f"t0/train/{i}" for i in range(1, 61)} - {"t0/train/9"}


@needs_files
def test_the_real_t0_files() -> None:
    folder = Path(str(REAL)) / "instruct"
    known = {json.loads(line)["prompt"] for line in (folder / "t0_train.jsonl").open()}
    valid = [json.loads(line)["prompt"] for line in (folder / "t0_valid.jsonl").open()]
    assert sum(prompt in known for prompt in valid) == 40
    data = load_instructions("t0")
    assert len(data.test) == len(valid) - 40 == 860
    assert not set(data.test["prompt"]) & known
    assert len(data.train) > 4000
    sources = [set(getattr(data, split)["source"]) for split in SPLITS]
    assert sum(map(len, sources)) == len(set.union(*sources))


def test_prompts_that_quote_a_training_prompt_are_dropped() -> None:
    quoted = "one two three four five six seven eight"
    wording = "say in a word or two what you think"
    train = [{"prompt": f"Read: {quoted.upper()}!"}, {"prompt": "nothing of note"}]
    train += [{"prompt": f"{wording} of {n}"} for n in range(26)]
    evaluation = [
        {"prompt": f"Is it so? {quoted}, nine"},
        {"prompt": quoted.replace("eight", "nine")},  # seven words in a row
        {"prompt": f"{wording} about this"},  # the wording of a template
    ]
    assert drop_overlapping(evaluation, train) == evaluation[1:]
    assert (
        drop_overlapping(evaluation, train[:3]) == evaluation[1:2]
    )  # a wording that one prompt alone has
    assert drop_overlapping(evaluation, []) == evaluation


# The prompts on which the instruction study's `elsewhere` was measured.
EVALUATED = {
    "self_instruct": (252, "7ebb0ba6608bcbb335bf47107f573abd8a3097dd766e27e498f5137a06538afc"),
    "vicuna": (10, "7464cd6494f7e40cc73b8ee2180f9aabf0846333aff8935a30aebdd9ca10ce6a"),
}


@needs_files
@pytest.mark.parametrize("name", list(EVALUATED))
def test_sets_for_evaluation_only(name: str) -> None:
    data = load_instructions(name)
    assert (len(data.train), len(data.validation)) == (0, 0)
    assert (len(data.test), data.data_hash) == EVALUATED[name]
    assert data.train.column_names == data.test.column_names
    again = with_prompt_template(name, alpaca_prompt)
    for column in ("item", "source", "completion"):
        assert again.test[column][:] == data.test[column][:]
    assert again.data_hash != data.data_hash
    assert all(text.endswith("### Response:") for text in again.test["prompt"])


def test_an_evaluation_set_with_another_prompt_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The template gets instruction and input; the plain prompt puts an empty line between them."""
    monkeypatch.setenv("GEODISTILL_DATA_DIR", str(tmp_path))
    write_evaluation(tmp_path)
    plain, again = (
        load_instructions("self_instruct"),
        with_prompt_template("self_instruct", alpaca_prompt),
    )
    assert plain.test["prompt"][:] == ["Sum up.\n\nA long text.", "Sum up."]
    assert again.test["prompt"][:] == [
        alpaca_prompt("Sum up.", "A long text."),
        alpaca_prompt("Sum up."),
    ]
    assert "### Input:\nA long text.\n" in again.test["prompt"][0]
    assert with_prompt_template("vicuna", alpaca_prompt).test["prompt"][:] == [
        alpaca_prompt("How many?")
    ]
    assert load_instructions("vicuna").test["prompt"][:] == ["How many?"]
    with pytest.raises(
        InputError, match=r"'t0' has complete prompts.*one of self_instruct, vicuna"
    ):
        with_prompt_template("t0", alpaca_prompt)


def write_evaluation(folder: Path, **changed: Any) -> None:
    """Small files of both sets; `changed` replaces the fields of a line, by the file's name."""
    lines: dict[str, dict[str, Any]] = {
        "self_instruct_eval": {
            "id": "a",
            "instruction": "Sum up.",
            "instances": [
                {"input": "A long text.", "output": "Short."},
                {"input": "", "output": "Of what?"},
            ],
        },
        "vicuna_questions": {"question_id": 7, "category": "maths", "turns": ["How many?", "Why?"]},
        "vicuna_reference_gpt4": {"question_id": 7, "choices": [{"turns": ["Two.", "So."]}]},
    }
    for name, line in lines.items():
        _write(folder / "instruct" / f"{name}.jsonl", [changed.get(name, line)])


EVAL, ASKED, ANSWERED = "self_instruct_eval", "vicuna_questions", "vicuna_reference_gpt4"
QUESTION = {"question_id": 7, "category": "c", "turns": ["a"]}
BAD_EVALUATION = [
    (EVAL, {"id": 1, "instruction": "a"}, "no 'instances'"),
    (EVAL, {"id": 1, "instruction": "a", "instances": [{"input": ""}]}, "no 'output'"),
    (EVAL, {"id": 1, "instruction": "a", "instances": [{"output": "b"}]}, "no 'input'"),
    (EVAL, {"id": 1, "instruction": "a", "instances": ["b"]}, r"\['b'\], expected a list of obj"),
    (EVAL, {"id": 1, "instruction": "a", "instances": {"input": ""}}, "expected a list of obj"),
    (
        EVAL,
        {"id": 1, "instruction": 3, "instances": [{"input": "", "output": ""}]},
        "tion is 3, ex",
    ),
    (
        EVAL,
        {"id": 1, "instruction": "a", "instances": [{"input": [], "output": ""}]},
        r"t is \[\],",
    ),
    (ASKED, {k: QUESTION[k] for k in ("question_id", "turns")}, "no 'category'"),
    (ASKED, {k: QUESTION[k] for k in ("question_id", "category")}, "no 'turns'"),
    (ASKED, {k: QUESTION[k] for k in ("category", "turns")}, "no 'question_id'"),
    (ASKED, {**QUESTION, "turns": []}, r"turns is \[\], expected a list of texts"),
    (ASKED, {**QUESTION, "turns": "How many?"}, "turns is 'How many.', expected a list of texts"),
    (ASKED, {**QUESTION, "category": None}, "category is None, expected a text"),
    (ANSWERED, {"choices": [{"turns": ["a"]}]}, "no 'question_id'"),
    (ANSWERED, {"question_id": 7}, "no 'choices'"),
    (ANSWERED, {"question_id": 7, "choices": []}, r"choices is \[\], expected a list of objects"),
    (ANSWERED, {"question_id": 7, "choices": [{}]}, "no 'turns'"),
    (ANSWERED, {"question_id": 7, "choices": [{"turns": [1]}]}, r"turns is \[1\], expected a list"),
]


@pytest.mark.parametrize(("name", "line", "message"), BAD_EVALUATION)
def test_a_malformed_evaluation_file_is_named_with_its_line(
    name: str, line: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEODISTILL_DATA_DIR", str(tmp_path))
    write_evaluation(tmp_path, **{name: line})
    with pytest.raises(InputError, match=rf"{name}\.jsonl, line 1: .*{message}"):
        load_instructions("self_instruct" if name == EVAL else "vicuna")


def test_a_users_file(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {i // 2}?", "completion": f"Answer {i}"} for i in range(400)]
    file = _write(tmp_path / "mine.jsonl", rows)
    data = load_instructions(str(file))
    assert sum(len(getattr(data, split)) for split in SPLITS) == 400
    prompts = [set(getattr(data, split)["prompt"]) for split in SPLITS]
    assert all(prompts)
    assert sum(map(len, prompts)) == 200  # both answers to a question on one split


def test_a_users_chats_among_plain_pairs(tmp_path: Path) -> None:
    """The last answer is the completion, the messages before it are the turns."""
    rows: list[Any] = [
        {"prompt": f"Question {i}?", "completion": f"Answer {i}"} for i in range(300)
    ]
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Bye")]
    before = [{"role": role, "content": text} for role, text in turns]
    for i in range(0, 300, 2):
        messages = [*before, {"role": "user", "content": f"and {i}"}]
        rows[i] = {"messages": [*messages, {"role": "assistant", "content": f"Answer {i}"}]}
    data = load_instructions(str(_write(tmp_path / "chats.jsonl", rows)))
    rows_by_item = {row["item"]: row for split in SPLITS for row in getattr(data, split)}
    assert len(rows_by_item) == 300
    assert rows_by_item["chats/2"]["turns"] == []
    assert rows_by_item["chats/1"]["turns"] == [*before, {"role": "user", "content": "and 0"}]
    assert rows_by_item["chats/1"]["completion"] == "Answer 0"
    assert rows_by_item["chats/1"]["prompt"] == (
        "system: Be brief.\nuser: Hi\nassistant: Yes?\nuser: Bye\nuser: and 0"
    )


BAD_LINES = {
    "not JSON": ('{"prompt": "a"', r"line 2: not JSON \(.*\), expected a complete object on each"),
    "a number of 5,000 digits": ("9" * 5000, r"line 2: .*digits.*, expected an object of texts"),
    "deep nesting": ("[" * 100_000, r"line 2: .*recursion.*, expected an object of texts"),
    "half a character": ('{"prompt": "\\ud800", "completion": "b"}', "line 2: not UTF-8"),
    "another name": ('{"instruction": "a"}', r"prompt is None.* \(the line has instruction\)"),
    "an array": ("[", "line 2: not JSON"),
    "no object": ("[1]", "line 2: list, expected an object"),
    "empty prompt": (
        '{"prompt": " ", "completion": "b"}',
        "line 2: prompt is ' ', expected a text",
    ),
    "no answer": ('{"prompt": "a"}', "line 2: completion is None, expected a text"),
    "a number": ('{"prompt": "a", "completion": 3}', "line 2: completion is 3, expected a text"),
    "blank line": ("", "line 2: empty, expected a JSON object"),
    "messages a text": ('{"messages": "hello"}', "line 2: messages is 'hello', expected a list"),
    "one message": ('{"messages": [1]}', r"line 2: messages is \[1\], expected a list of two"),
    "unknown role": (
        '{"messages": [{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}]}',
        "line 2, message 1: role is 'human', expected one of system, user, assistant",
    ),
    "empty turn": (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}',
        "line 2, message 2: content is ' ', expected a text",
    ),
    "no answer to the last turn": (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}',
        "line 2: the last message is of 'user', expected the assistant's answer",
    ),
    "no question": (
        '{"messages": [{"role": "system", "content": "a"}, {"role": "assistant", "content": "b"}]}',
        "line 2: no message of 'user' before the answer",
    ),
}


@pytest.mark.parametrize("case", list(BAD_LINES))
def test_a_malformed_line_is_named(case: str, tmp_path: Path) -> None:
    line, message = BAD_LINES[case]
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load_instructions(str(file))
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_t0_file_without_its_fields_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEODISTILL_DATA_DIR", str(tmp_path))
    pair = {"prompt": "a", "completion": "b", "template": "c"}
    _write(tmp_path / "instruct" / "t0_train.jsonl", [pair])
    _write(tmp_path / "instruct" / "t0_valid.jsonl", [pair, {"prompt": "d", "completion": "b"}])
    with pytest.raises(InputError, match=r"t0_valid\.jsonl, line 2: no 'template' \(the line has"):
        load_instructions("t0")


def test_a_file_is_named_by_its_path_or_in_capitals(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {i}", "completion": f"a {i}"} for i in range(200)]
    texts = [
        load_instructions(file).train["prompt"][:]
        for file in (_write(tmp_path / "x.jsonl", rows), _write(tmp_path / "x.JSONL", rows))
    ]
    assert texts[0] == texts[1]
    assert len(texts[0]) > 100


def test_a_file_that_is_missing_or_too_small(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
        load_instructions(str(tmp_path / "none.jsonl"))
    file = _write(tmp_path / "small.jsonl", [{"prompt": "a", "completion": "b"}])
    with pytest.raises(InputError, match=r"1 pairs are too few.* of which there are 1: expected"):
        load_instructions(str(file))
    alike = [{"prompt": "a", "completion": f"b {i}"} for i in range(400)]
    with pytest.raises(InputError, match=r"400 pairs are too few.* of which there are 1: expected"):
        load_instructions(str(_write(tmp_path / "alike.jsonl", alike)))
    file.write_text("")
    with pytest.raises(InputError, match=r"small\.jsonl: empty, expected rows with prompt"):
        load_instructions(str(file))


def test_a_file_of_another_system(tmp_path: Path) -> None:
    """A byte-order mark and carriage returns are accepted; another encoding is refused by line."""
    rows = [{"prompt": f"Frage {i}", "completion": f"Ä {i}"} for i in range(200)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    plain, windows, latin = (tmp_path / name / "mine.jsonl" for name in ("a", "b", "c"))
    for file, encoded in (
        (plain, text.encode()),
        (windows, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()),
        (latin, text.replace("Ä", "A", 100).encode("latin1")),
    ):
        file.parent.mkdir()
        file.write_bytes(encoded)
    assert load_instructions(str(windows)).data_hash == load_instructions(str(plain)).data_hash
    with pytest.raises(InputError, match="line 101: not UTF-8"):
        load_instructions(str(latin))

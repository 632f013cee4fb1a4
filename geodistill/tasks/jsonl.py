"""JSON lines with instructions: `prompt` and `completion`, or chat `messages`."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from geodistill.errors import InputError
from geodistill.tasks.base import Row
from geodistill.tasks.prompts import ROLES, turns_as_text


def read_pairs(rows: Iterable[tuple[str, Row]], *required: str) -> Iterator[Row]:
    """The prompt-completion pairs of rows, each with its fields and its number `line`.

    A row with `messages` (`[{"role": ..., "content": ...}, ...]`, roles system, user and
    assistant) becomes `turns`, all messages but the last; `prompt`, the same as text; and
    `completion`, the last message, which must be the assistant's.

    Args:
        rows: each after its place, as of `read_jsonl`.
        *required: further fields that each row must have.

    Raises:
        InputError: a row without a prompt, a completion or a required field, or with malformed
            messages; the error names its place.
    """
    for line, (where, row) in enumerate(rows, start=1):
        is_pair = row.get("messages") is None and "prompt" in row  # a table has both columns
        if "messages" in row and not is_pair:
            row = {**row, **_pair_from_messages(row["messages"], where)}
        for field in ("prompt", "completion"):
            text = row.get(field)
            if not isinstance(text, str) or not text.strip():
                fields = "" if field in row else _field_names(row)
                raise InputError(f"{where}: {field} is {text!r}, expected a text{fields}")
        for field in required:
            require_field(row, field, where)
        yield {**row, "line": line}


def read_jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    """The objects of a JSONL file, each after its place, such as "mine.jsonl, line 1".

    Raises:
        InputError: no such file, or a line that holds no object; the error names file and line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            where, text = f"{path}, line {line}", raw.removeprefix(BOM_UTF8) if line == 1 else raw
            yield where, _parse_object(text, where)


def require_field(row: Mapping[str, object], field: str, where: str) -> None:
    """Raise InputError unless the object of a line has the field; `where` names the line."""
    if field not in row:
        raise InputError(f"{where}: no {field!r}{_field_names(row)}")


def _field_names(row: Mapping[str, object]) -> str:
    """The fields that a line does have: in most files only the names are wrong."""
    return f" (the line has {', '.join(map(str, row)) or 'nothing'})"


def _parse_object(raw: bytes, where: str) -> Row:
    if not raw.strip():
        raise InputError(f"{where}: empty, expected a JSON object on each line")
    try:
        row = json.loads(raw.decode())
        json.dumps(row, ensure_ascii=False).encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:  # the second: half a surrogate pair
        raise InputError(f"{where}: not UTF-8 ({error.reason})") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not JSON ({error.msg}), expected a complete object on each line"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, deep nesting
        raise InputError(f"{where}: {error}, expected an object of texts") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: {type(row).__name__}, expected an object")
    return row


def _pair_from_messages(messages: object, where: str) -> Row:
    if not isinstance(messages, list) or len(messages) < 2:
        raise InputError(f"{where}: messages is {messages!r}, expected a list of two or more")
    turns = [_turn(message, f"{where}, message {i}") for i, message in enumerate(messages, 1)]
    *before, last = turns
    if last["role"] != "assistant":
        raise InputError(
            f"{where}: the last message is of {last['role']!r}, expected the assistant's answer"
        )
    if all(turn["role"] != "user" for turn in before):
        raise InputError(f"{where}: no message of 'user' before the answer")
    return {"turns": before, "prompt": turns_as_text(before), "completion": last["content"]}


def _turn(message: object, where: str) -> dict[str, str]:
    fields = message if isinstance(message, dict) else {}
    role, content = fields.get("role"), fields.get("content")
    if role not in ROLES:
        raise InputError(f"{where}: role is {role!r}, expected one of {', '.join(ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"{where}: content is {content!r}, expected a text")
    return {"role": role, "content": content}

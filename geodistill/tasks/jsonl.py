"""JSON lines with instructions: `prompt` and `completion`, or chat `messages`."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from geodistill.errors import InputError
from geodistill.tasks.base import Row
from geodistill.tasks.prompts import ROLES, plain


def read_pairs(path: Path) -> Iterator[Row]:
    """The pairs of a JSONL file, with ``line``, from 1, beside their fields.

    A line with ``messages`` (``[{"role": ..., "content": ...}, ...]``, roles system, user and
    assistant) becomes ``turns``, all messages but the last, ``prompt``, the same as plain text,
    and ``completion``, the last message, which must be the assistant's.

    Raises:
        InputError: no such file, or a line that is no object with a prompt and a completion, or
            whose messages are none; the message gives file and line.
    """
    for line, row in read_jsonl(path):
        where = f"{path}, line {line}"
        if "messages" in row:
            row = {**row, **_from_messages(row["messages"], where)}
        for field in ("prompt", "completion"):
            text = row.get(field)
            if not isinstance(text, str) or not text.strip():
                raise InputError(
                    f"{where}: {field} is {text!r}, expected a text{_instead(row, field)}"
                )
        yield {**row, "line": line}


def _instead(row: Mapping[str, Any], field: str) -> str:
    """What a line has where it lacks a field: most files are right but for their names."""
    return "" if field in row else f" (the line has {', '.join(map(str, row)) or 'nothing'})"


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers, from 1.

    Raises:
        InputError: no such file, or a line that holds no object.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            yield line, _object(raw.removeprefix(BOM_UTF8) if line == 1 else raw, path, line)


def require(row: Mapping[str, Any], fields: Sequence[str], path: Path, line: int) -> None:
    """Raise InputError unless the line's object has these fields."""
    for field in fields:
        if field not in row:
            raise InputError(f"{path}, line {line}: no {field!r}{_instead(row, field)}")


def _object(raw: bytes, path: Path, line: int) -> dict[str, Any]:
    """One line's object."""
    where = f"{path}, line {line}"
    if not raw.strip():
        raise InputError(f"{where}: empty, expected a JSON object on each line")
    try:
        row = json.loads(raw.decode())
        json.dumps(row, ensure_ascii=False).encode()
    except (
        UnicodeDecodeError,
        UnicodeEncodeError,
    ) as error:  # another encoding, or an escape of half a character
        raise InputError(f"{where}: not UTF-8 ({error.reason})") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: not JSON ({error.msg}), expected a whole object on each line"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, deep nesting
        raise InputError(f"{where}: {error}, expected an object of texts") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: {type(row).__name__}, expected an object")
    return row


def _from_messages(messages: Any, where: str) -> Row:
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
    return {"turns": before, "prompt": plain(before), "completion": last["content"]}


def _turn(message: Any, where: str) -> dict[str, str]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES:
        raise InputError(f"{where}: role is {role!r}, expected one of {', '.join(ROLES)}")
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        raise InputError(f"{where}: content is {content!r}, expected a text")
    return {"role": role, "content": content}

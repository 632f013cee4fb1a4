"""JSON lines with instructions: `prompt` and `completion`, or chat `messages`."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
                raise InputError(f"{where}: {field} is {text!r}, expected a text")
        yield {**row, "line": line}


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers, from 1.

    Raises:
        InputError: no such file, or a line that holds no object.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open(encoding="utf-8") as file:
        for line, text in enumerate(file, start=1):
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {line}: not JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {line}: {type(row).__name__}, expected an object")
            yield line, row


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

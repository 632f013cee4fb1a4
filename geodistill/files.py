"""Files and folders that are written whole or not at all, their hashes, and errors in one line."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Progress = Callable[[str], None]
"""Takes one line of text for each stage of a long task."""
_DISK_FULL = {os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}


def no_progress(line: str) -> None:
    """A `Progress` that shows nothing."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there replaces `path` if the block succeeds.

    Args:
        path: the file to write; its folder is made.

    Yields:
        A path in the same folder that no other process uses, with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which it becomes if the block succeeds.

    An older `folder` is removed just before. Of two processes that write the same folder, the one
    that ends later wins.

    Args:
        folder: the folder to write.

    Yields:
        A new empty folder on the same disk that no other process uses.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def disk_full(error: BaseException) -> str:
    """Why a write failed, if for lack of space ("No space left on device"); else an empty string.

    Libraries such as safetensors lose the error's number and keep its text.
    """
    return next((reason for reason in _DISK_FULL if reason in str(error)), "")

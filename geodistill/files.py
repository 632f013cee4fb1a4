"""Atomic writes of files and folders, checksums, and error messages of one line."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from geodistill.errors import InputError

Progress = Callable[[str], None]
"""Takes one line of text for each stage of a long task."""
CHECKSUMS = "SHA256SUMS"
"""Name of the file that lists the hashes of a folder, in the format of `sha256sum`."""
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


def remove_interrupted(folder: Path) -> None:
    """Remove what killed processes left of `atomic_folder`; nobody else may be writing `folder`."""
    for partial in folder.parent.glob(f".{glob.escape(folder.name)}.*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """The SHA-256 of a file, computed again only if its size or modification time has changed.

    Results are remembered by this process, not on disk.
    """
    status = path.stat()
    return _sha256(path.absolute(), status.st_size, status.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return sha256(path)


def write_checksums(folder: Path) -> None:
    """Write `SHA256SUMS` with the hash of each Parquet file in `folder`.

    The shell command `sha256sum -c SHA256SUMS` checks it too. A writer that replaces a listed file
    deletes `SHA256SUMS` first and calls this last, so that a crash in between leaves no false hash.
    """
    paths = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    lines = [f"{sha256(path)}  {path.name}\n" for path in paths]
    with atomic_file(folder / CHECKSUMS) as partial:
        partial.write_text("".join(lines), encoding="utf-8")


def verify_checksum(path: Path) -> None:
    """Compare a file with its hash in the `SHA256SUMS` of its folder, if it is listed there.

    The file is hashed once per process and again if its size or modification time has changed.

    Raises:
        InputError: the hash differs, or `SHA256SUMS` is damaged.
    """
    listing = path.with_name(CHECKSUMS)
    if not listing.is_file():
        return
    try:
        lines = [
            line.split(maxsplit=1) for line in listing.read_text(encoding="utf-8").splitlines()
        ]
        expected = {name: digest for digest, name in lines}.get(path.name)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{listing} is damaged ({error}); restore it, by `git checkout` if it is committed"
        ) from error
    if expected is not None and (actual := sha256_once(path)) != expected:
        raise InputError(
            f"{path} is damaged or was changed: its SHA-256 is {actual}, {listing.name} has "
            f"{expected}; restore it by `git checkout`, or delete it and {listing.name} and run "
            "its `geodistill experiments` again"
        )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def error_summary(error: BaseException) -> str:
    """The type of an error and the first 200 characters of its message, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def disk_full(error: BaseException) -> str:
    """The reason of a failed write if it is a lack of space, such as "No space left on device".

    Of any other error it is an empty string.

    Libraries such as safetensors lose the error's number and keep its text.
    """
    return next((reason for reason in _DISK_FULL if reason in str(error)), "")

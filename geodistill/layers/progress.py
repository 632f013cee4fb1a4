"""Progress bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from tqdm.auto import tqdm  # type: ignore[import-untyped]

T = TypeVar("T")


def progress_bar(items: Sequence[T], name: str, show: bool) -> Iterable[T]:
    """The items, with a bar that is shown on terminals only and disappears at the end."""
    bar: Iterable[T] = tqdm(items, name, leave=False, disable=not show or None)
    return bar

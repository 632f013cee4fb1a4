"""Errors that a user can fix; the command line prints them as one line."""

import os
from collections.abc import Collection, Sequence


class InputError(ValueError):
    """An argument, parameter or file is not usable.

    The message names it, the value and what was expected.

    Example:
        >>> from geodistill.tasks.assets import path
        >>> try:
        ...     path("bert")
        ... except InputError as error:
        ...     print(error)
        asset is 'bert'; expected one of minilm, smollm2, sentiment, mpnet
    """


class AssetError(RuntimeError):
    """A model or data set is missing, out of reach or damaged; the message says what to do.

    Example:
        >>> try:
        ...     raise AssetError("asset 'minilm' is missing; run `geodistill download`")
        ... except RuntimeError as error:
        ...     print(error)
        asset 'minilm' is missing; run `geodistill download`
    """


def missing_package(error: ModuleNotFoundError, user: str, extras: str) -> str:
    """Which package is not installed, what needs it, and how to install it, in one sentence.

    Args:
        error: of the import.
        user: the command or name that needs the package.
        extras: of the distribution that bring it, separated by commas.
    """
    return (
        f"there is no package {error.name} here, which {user} needs; install its extras: "
        f"pip install 'geodistill[{extras}]', or '.[{extras}]' in a checkout"
    )


def check_choice(name: str, value: str, known: Collection[str]) -> None:
    """Check that a value is one of those known.

    Args:
        name: of the argument.
        value: its value.
        known: the values that it can have.

    Raises:
        InputError: it is none of them; the message lists them.

    Example:
        >>> check_choice("colour", "red", ("green", "blue"))
        Traceback (most recent call last):
        geodistill.errors.InputError: colour is 'red'; expected one of green, blue
    """
    if value not in known:
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}")


def first_names(names: Sequence[object]) -> str:
    """The first ten names of a list, each shortened, and the number of the others.

    Example:
        >>> first_names("abcdefghijkl")
        'a, b, c, d, e, f, g, h, i, j and 2 others'
    """
    rest = f" and {len(names) - 10} others" if len(names) > 10 else ""
    return ", ".join(str(name)[:40] for name in names[:10]) + rest


def refuse_several_processes(work: str, instead: str = "") -> None:
    """Raise InputError in a process of torchrun or accelerate, where each would do the same.

    Args:
        work: what each process would do.
        instead: end of the sentence, which says what to use in their place.
    """
    processes = os.environ.get("WORLD_SIZE") or "1"
    if processes != "1":
        raise InputError(
            f"WORLD_SIZE is {processes}: each process would {work} in the same folder; expected "
            f"one process, started without torchrun or accelerate{instead}"
        )

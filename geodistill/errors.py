"""Errors that a user can fix; the command line prints them as one line."""


class InputError(ValueError):
    """An argument, parameter or file is not usable.

    The message names it, the value and what was expected.

    Example:
        >>> from geodistill.tasks.assets import path
        >>> try:
        ...     path("bert")
        ... except InputError as error:
        ...     print(error)
        unknown asset 'bert'; known: minilm, smollm2, sentiment, mpnet
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

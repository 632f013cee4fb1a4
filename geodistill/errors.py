"""The two errors that a user can mend; the command line prints them as one line."""


class InputError(ValueError):
    """An argument, parameter or file is not usable.

    The message names it, what was given and what was expected.
    """


class AssetError(RuntimeError):
    """A download is missing or differs from its recorded hash; the message says what to do."""

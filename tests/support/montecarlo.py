"""Sizes of the simulations: small in `make test`, full if `GEODISTILL_MONTECARLO=full`."""

import os

FULL = os.environ.get("GEODISTILL_MONTECARLO") == "full"


def repeats(small: int, full: int) -> int:
    """The number of simulated experiments."""
    return full if FULL else small


def binomial_error(share: float, n: int) -> float:
    """Standard error of a share over `n` experiments."""
    return (share * (1 - share) / n) ** 0.5

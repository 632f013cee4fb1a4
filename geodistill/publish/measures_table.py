"""The tables of book/measures.md, from the library's own data; run as a module it prints them."""

from __future__ import annotations

from collections.abc import Iterable

from geodistill.geometry import CONVENTIONS, MEASURES
from geodistill.geometry.registry import Convention, Measure

_MAPS = ("rotation", "scale", "shift", "invertible")


def measures() -> str:
    """One row a measure: what is claimed of it at its defaults."""
    head = ["measure", "large means", "range", "0 (alike: 1) where", "metric", "symmetric"]
    return _table([*head, *_MAPS, "multiplications", "source"], map(_measure, MEASURES.values()))


def conventions() -> str:
    """One row for each number that goes by the name of Procrustes or CKA."""
    return _table(["name", "used by", "is", "here"], map(_convention, CONVENTIONS))


def _measure(one: Measure) -> list[str]:
    low, high = one.range
    yes = [one.metric, one.symmetric, *(change in one.invariant_to for change in _MAPS)]
    return [
        f"`{one.function.__name__}`",
        "alike" if one.similarity else "apart",
        f"{low:g} to {'∞' if high == float('inf') else f'{high:g}'}",
        one.zero_set,
        *("yes" if holds else "no" for holds in yes),
        one.cost,
        one.source,
    ]


def _convention(one: Convention) -> list[str]:
    options = "".join(f", {key}={value!r}" for key, value in one.options.items())
    call = f"`{one.function.__name__}(x, y{options})`"
    return [one.name, one.used_by, f"${one.formula}$", call]


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(measures(), conventions(), sep="\n\n")

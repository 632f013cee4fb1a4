"""The tables of book/measures.md from the registry of measures; run as a module it prints them."""

from __future__ import annotations

from geodistill.analysis.report.format import markdown_rows
from geodistill.geometry import CONVENTIONS, MEASURES
from geodistill.geometry.measure_properties import Convention, Measure

_MAPS = ("rotation", "scale", "shift", "invertible")


def measures() -> str:
    """A Markdown table with one row per measure: its properties at its defaults."""
    head = ["measure", "kind", "range", "equal geometry where", "metric", "symmetric", *_MAPS]
    return markdown_rows([*head, "multiplications", "source"], map(_measure, MEASURES.values()))


def conventions() -> str:
    """A Markdown table with one row per quantity that is called Procrustes or CKA."""
    return markdown_rows(["name", "used by", "is", "here"], map(_convention, CONVENTIONS))


def _measure(measure: Measure) -> list[str]:
    low, high = measure.range
    holds = [measure.metric, measure.symmetric, *(m in measure.invariant_to for m in _MAPS)]
    return [
        f"`{measure.function.__name__}`",
        "similarity" if measure.similarity else "distance",
        f"{low:g} to {'∞' if high == float('inf') else f'{high:g}'}",
        measure.zero_set,
        *("yes" if value else "no" for value in holds),
        measure.cost,
        measure.source,
    ]


def _convention(convention: Convention) -> list[str]:
    options = "".join(f", {key}={value!r}" for key, value in convention.options.items())
    call = f"`{convention.function.__name__}(x, y{options})`"
    return [convention.name, convention.used_by, f"${convention.formula}$", call]


if __name__ == "__main__":
    print(measures(), conventions(), sep="\n\n")

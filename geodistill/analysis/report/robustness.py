"""Whether a verdict rests on one run, item or task: it is computed again without each of them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from geodistill.analysis.report.matching import MatchedPair
from geodistill.analysis.stats.compare import Comparison, estimate_mean
from geodistill.analysis.stats.crossed_anova import Estimate
from geodistill.analysis.stats.pairing import Block, PairedDifferences, paired_differences
from geodistill.analysis.stats.single_level import compare_over_seeds
from geodistill.analysis.stats.verdict import verdict
from geodistill.errors import InputError


def describe_influence(
    pair: MatchedPair, comparison: Comparison, p_adjusted: float, margin: float
) -> list[str]:
    """Sentences that name each part without which a pooled comparison has another verdict.

    Args:
        pair: the rows compared.
        comparison: of the pair, over all its tasks, with two or more seeds.
        p_adjusted: its corrected p; the p-values without a part are corrected by the same factor.
        margin: smallest difference that matters, in the unit of the comparison.
    """
    factor = p_adjusted / comparison.p if comparison.p > 0 else 1.0

    def word(result: Estimate, p: float) -> str:
        values = {name: getattr(result, name) for name in Estimate.__dataclass_fields__}
        return verdict(replace(comparison, **values, p_holm=min(1.0, p)), margin).word

    original = word(comparison, p_adjusted)
    changed: dict[tuple[str, str], list[str]] = {}
    for kind, name, estimate_rest in _without_one(pair):
        try:
            result = estimate_rest()
        except InputError:  # fewer than two seeds or items are left, or they do not vary
            continue
        other = word(result, result.p * factor)
        if other != original:
            changed.setdefault((kind, other), []).append(str(name))
    return [
        f"{comparison.method}: the verdict, {original}, becomes {other} without {kind} "
        + (" or ".join(names) if len(names) < 4 else f"{names[0]}, or any of {len(names) - 1} more")
        for (kind, other), names in changed.items()
    ]


def _without_one(pair: MatchedPair) -> Iterator[tuple[str, object, Callable[[], Estimate]]]:
    """The estimate without each seed, without each task, and without the most favourable item."""
    rows = pair.scored()
    if "item" in rows:
        paired = paired_differences(rows, pair.method, pair.baseline)
        for kind, name, rest in _crossed_without_one(paired):
            yield kind, name, partial(estimate_mean, rest, f"without {name}")
        return
    for kind, names in (("seed", rows["seed"].unique()), ("task", pair.tasks)):
        for name in names if len(names) > 1 else ():
            fewer = rows[rows[kind] != name]
            yield kind, name, partial(compare_over_seeds, fewer, pair.method, pair.baseline)


def _crossed_without_one(
    paired: PairedDifferences,
) -> Iterator[tuple[str, object, PairedDifferences]]:
    blocks = paired.blocks
    for number, seed in enumerate(paired.seeds):
        fewer = {name: _delete(block, number, axis=0) for name, block in blocks.items()}
        yield "seed", seed, replace(paired, blocks=fewer)
    sign = np.sign(sum(block.differences.mean() for block in blocks.values()))
    for name, block in blocks.items():
        strongest = int((sign * block.differences.mean(0)).argmax())
        fewer = {**blocks, name: _delete(block, strongest, axis=1)}
        yield "item", block.clusters[strongest], replace(paired, blocks=fewer)
    for task in paired.tables if len(paired.tables) > 1 else ():
        yield "task", task, paired.without(task)


def _delete(block: Block, number: int, axis: int) -> Block:
    """The block without one seed (axis 0) or one cluster (axis 1)."""
    return replace(block, differences=np.delete(block.differences, number, axis))

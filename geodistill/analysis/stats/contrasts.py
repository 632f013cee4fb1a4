"""What a gain depends on: the same comparison at each value of a setting, and between two places.

All answers are those of `compare`: seeds and items crossed. Tables have a line a comparison, with
the columns of `report.tidy`, so that one forest draws them all.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from geodistill.analysis.figures.style import look
from geodistill.analysis.report.format import POINTS, Unit, tidy
from geodistill.analysis.stats.compare import Comparison, compare
from geodistill.errors import InputError

_THEIRS = "what it is compared with"
CELL = ["task", "seed", "item"]
ALL = "all methods"


def contrast(
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    method: str,
    baseline: str,
    tasks: Sequence[str] | None = None,
) -> Comparison:
    """`method` in `ours` against `baseline` in `theirs`; both may have the same name.

    Args:
        ours: items, as in `compare`.
        theirs: items of the same tasks, or of more.
        method: in `ours`.
        baseline: in `theirs`.
        tasks: to average over; all of `ours` by default.

    Raises:
        InputError: as `compare`.
    """
    own = ours[ours["method"] == method]
    other = theirs[theirs["method"] == baseline].assign(method=_THEIRS)
    names = sorted(own["task"].unique()) if tasks is None else tasks
    for name, side, part in ((method, "ours", own), (baseline, "theirs", other)):
        if part.empty:
            known = ", ".join(sorted((ours if side == "ours" else theirs)["method"].unique()))
            raise InputError(f"no rows of {name!r} to compare; there are {known or 'none at all'}")
    found = compare(pd.concat([own, other], ignore_index=True), method, _THEIRS, names)
    return replace(found, baseline=baseline)


def gains(
    items: pd.DataFrame,
    by: Sequence[str] = (),
    baseline: str = "kd",
    against: pd.DataFrame | None = None,
    tasks: Sequence[str] | None = None,
    unit: Unit = POINTS,
) -> pd.DataFrame:
    """Each method's difference to the baseline at each value of a setting, tasks pooled.

    Args:
        items: as in `compare`, with the columns `by`.
        by: names of settings; a method is compared with the baseline of equal settings.
        baseline: its name.
        against: the baseline's items, where those do not share the setting.
        tasks: to average over; all by default.
        unit: of the result.

    Returns:
        `method, baseline, task, estimate, low, high`, the settings `by`, and `seeds, p, p_better`;
        sorted by setting, methods in the order of the items.

    Raises:
        InputError: as `compare`, or settings without a row of the baseline.
    """
    lines = []
    settings = items[list(by)].drop_duplicates().sort_values(list(by)) if by else pd.DataFrame([{}])
    for setting in settings.to_dict("records"):
        values = {str(name): value for name, value in setting.items()}
        here = items
        for name, value in values.items():
            here = here[here[name] == value]
        theirs = here if against is None else against
        for method in here["method"].unique():
            if against is None and method == baseline:
                continue
            one = contrast(here, theirs, method, baseline, tasks)
            more = {"seeds": one.n_seeds, "p": one.p, "p_better": one.p_better}
            lines.append(tidy([one], unit).assign(**values, **more))
    return pd.concat(lines, ignore_index=True)


def scores(items: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean item score by setting and method: over items, then seeds, then tasks."""
    keys = [*by, "method"]
    runs = items.groupby([*keys, "task", "seed"], sort=False)["score"].mean()
    return runs.groupby([*keys, "task"]).mean().groupby(keys).mean().rename("score").reset_index()


def beyond_baseline(items: pd.DataFrame, baseline: str = "kd") -> pd.DataFrame:
    """Items whose score is the difference to the baseline's on the same task, seed and item."""
    base = items[items["method"] == baseline].set_index(CELL)["score"]
    rest = items[items["method"] != baseline]
    own = base.reindex(pd.MultiIndex.from_frame(rest[CELL])).to_numpy()
    return rest.assign(score=rest["score"] - own)


def change_of_gain(
    there: pd.DataFrame, here: pd.DataFrame, method: str, baseline: str = "kd"
) -> Comparison:
    """The method's gain over the baseline in one place minus its gain in another.

    Args:
        there: items of both methods, as in `compare`.
        here: the same, elsewhere, with shared tasks, seeds and test items.
        method: whose gain is asked.
        baseline: over which it gains.

    Raises:
        InputError: as `compare`.
    """
    both = (beyond_baseline(part, baseline) for part in (there, here))
    one, other = (part[part["method"] == method] for part in both)
    return replace(contrast(one, other, method, method), baseline=baseline)


def changed(items: pd.DataFrame, against: pd.DataFrame, what: str) -> pd.DataFrame:
    """Methods with a change, each against KD and against itself without the change.

    Args:
        items: of the changed methods.
        against: of the same methods and of `kd`, unchanged.
        what: the change, for the labels.

    Returns:
        As `gains`, in points, with a `label`.

    Raises:
        InputError: as `compare`.
    """
    lines = []
    for method in items["method"].unique():
        for baseline, name in (("kd", look("kd").label), (method, "without")):
            one = tidy([contrast(items, against, method, baseline)], POINTS)
            lines.append(one.assign(label=f"{look(method).label},\n{what} vs {name}"))
    return pd.concat(lines, ignore_index=True)


def device_effects(there: pd.DataFrame, here: pd.DataFrame, baseline: str = "kd") -> pd.DataFrame:
    """The same students on another device: does the score shift, and do the gains?

    Args:
        there: items on one device.
        here: those of the same methods, tasks and seeds on the other.
        baseline: over which a gain is measured.

    Returns:
        As `gains`, in points, there minus here, with a `label`: first the shift of the mean over
        all methods, then the change of each method's gain.

    Raises:
        InputError: as `compare`.
    """
    shared = [method for method in there["method"].unique() if method in here["method"].unique()]
    there, here = (part[part["method"].isin(shared)] for part in (there, here))
    shift = contrast(_mean_method(there), _mean_method(here), ALL, ALL)
    lines = [tidy([shift], POINTS).assign(label="score,\nall methods")]
    for method in shared:
        if method != baseline:
            one = change_of_gain(there, here, method, baseline)
            name = f"gain over {look(baseline).label},\n{look(method).label}"
            lines.append(tidy([one], POINTS).assign(label=name))
    return pd.concat(lines, ignore_index=True)


def _mean_method(items: pd.DataFrame) -> pd.DataFrame:
    """Items whose score is the mean over methods."""
    mean = items.groupby([*CELL, "source"])["score"].mean().reset_index()
    return mean.assign(method=ALL, run_id=ALL)


def rerun_noise(there: pd.DataFrame, here: pd.DataFrame) -> pd.Series:
    """How far a run's score moves on another device, and how far with another seed.

    Returns:
        `device`: the deviation of the difference between the two devices, over √2: that of one run
        about what its seed and its device expect; `seed`: of runs over seeds on one device. Both
        within methods and tasks, in the unit of the score.
    """
    keys = ["task", "method", "seed"]
    pair = pd.concat(
        [part.groupby(keys)["score"].mean().rename(i) for i, part in enumerate((there, here))],
        axis=1,
        join="inner",
    )
    by_cell = [pair[1] - pair[0], pair[0], pair[1]]
    device, first, second = (
        float(one.groupby(["task", "method"]).var(ddof=1).mean()) for one in by_cell
    )
    return pd.Series({"device": (device / 2) ** 0.5, "seed": ((first + second) / 2) ** 0.5})


def in_words(lines: pd.DataFrame, unit: str) -> str:
    """The numbers of a table of differences as a sentence, for an alternative text.

    Args:
        lines: as `gains` makes them; a line's `label` names it, its `setting` is added.
        unit: of the numbers.
    """
    parts = []
    for row in lines.to_dict("records"):
        usual = f"{look(row['method']).label} vs {look(row['baseline']).label}"
        name = str(row.get("label", usual)).replace("\n", " ")
        where = f", {row['setting']}".replace("\n", " ") if "setting" in row else ""
        interval = f"{row['low']:+.1f} to {row['high']:+.1f}"
        parts.append(f"{name}{where}: {row['estimate']:+.1f} ({interval}) {unit}")
    return "; ".join(parts)

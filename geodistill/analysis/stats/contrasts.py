"""Questions of more than one pair: two parts and their interaction, and one task fewer."""

from collections.abc import Iterable

import pandas as pd

from geodistill.analysis.stats.compare import compare, estimate_mean
from geodistill.analysis.stats.pairing import contrast
from geodistill.errors import InputError


def two_by_two(
    items: pd.DataFrame, neither: str, first: str, second: str, both: str
) -> pd.DataFrame:
    """The effects of two parts of a loss, with and without each other, and their interaction.

    With s the score of a method, tasks weighted equally, the effect of the first part is
    ½[(s_first − s_neither) + (s_both − s_second)], that of the second likewise, and the interaction
    is (s_both − s_second) − (s_first − s_neither), the difference in differences: 0 if the parts
    add up. Seeds and items are crossed as in `compare`: each seed and item gives one value of the
    contrast.

    Args:
        items: `task, method, seed, item, source, score`, of the tasks to average over.
        neither: method without either part.
        first: method with the first part alone.
        second: method with the second part alone.
        both: method with both.

    Returns:
        One row each for the first part, the second part and the interaction: `effect, estimate,
        low, high` (a 95 % interval), `se, df, p, n_seeds, n_items`.

    Raises:
        InputError: an unknown or repeated method, fewer than two seeds that all four share,
            different items, or an effect that does not vary.

    Example:
        >>> from geodistill.analysis import simulate_items, two_by_two
        >>> items = simulate_items({"kd": 0.0, "kd+a": 0.1, "kd+b": 0.1, "kd+ab": 0.4})
        >>> two_by_two(items, "kd", "kd+a", "kd+b", "kd+ab")["estimate"].round(1).tolist()
        [0.2, 0.2, 0.2]
    """
    methods = (neither, first, second, both)
    if len(set(methods)) < len(methods):
        raise InputError(f"the methods are {', '.join(methods)}; expected four different ones")
    signs = {
        f"{first}, averaged over {second}": (-0.5, 0.5, -0.5, 0.5),
        f"{second}, averaged over {first}": (-0.5, -0.5, 0.5, 0.5),
        "interaction": (1.0, -1.0, -1.0, 1.0),
    }
    rows = []
    for effect, weights in signs.items():
        paired = contrast(items, dict(zip(methods, weights, strict=True)))
        sizes = {"n_seeds": len(paired.seeds), "n_items": paired.n_items}
        rows.append({"effect": effect, **vars(estimate_mean(paired, effect)), **sizes})
    names = ["effect", "estimate", "low", "high", "se", "df", "p", "n_seeds", "n_items"]
    return pd.DataFrame(rows, columns=names)


def leave_one_task_out(items: pd.DataFrame, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Each comparison again without each task: does the pooled result depend on one of them?

    Args:
        items: `run_id, task, method, seed, item, source, score` of two or more tasks.
        pairs: (method, baseline).

    Returns:
        One row per pair and task: `method, baseline, without, tasks` (those that remain),
        `estimate, low, high, p`; p is not adjusted.

    Raises:
        InputError: as `compare`; or a single task.

    Example:
        >>> import pandas as pd
        >>> from geodistill.analysis import leave_one_task_out, simulate_items
        >>> items = simulate_items({"kd": 0.0, "new": 0.2})
        >>> items = pd.concat([items.assign(task=task) for task in ("a", "b")])
        >>> leave_one_task_out(items, [("new", "kd")])[["without", "tasks"]].values.tolist()
        [['a', 'b'], ['b', 'a']]
    """
    tasks = sorted(items["task"].unique())
    if len(tasks) < 2:
        raise InputError(f"the items are of {', '.join(tasks)} alone; expected two or more tasks")
    rows = []
    for method, baseline in pairs:
        for task in tasks:
            rest = [name for name in tasks if name != task]
            row = vars(compare(items, method, baseline, rest))
            rows.append({**row, "without": task, "tasks": ", ".join(rest)})
    names = ["method", "baseline", "without", "tasks", "estimate", "low", "high", "p"]
    return pd.DataFrame(rows, columns=names)

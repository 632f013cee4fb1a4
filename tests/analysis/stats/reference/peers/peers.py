"""What autorank, baycomp, scipy and statsmodels answer on the tables beside this file.

The tables are simulated: four methods on twelve data sets, two in repeated cross-validation, two on
seeds × items. Needs `pip install autorank baycomp`, which this project does not depend on. Writes
answers.json: python tests/analysis/stats/reference/peers/peers.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import baycomp
import pandas as pd
from autorank import autorank
from scipy import stats
from statsmodels.formula.api import mixedlm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

FOLDER = Path(__file__).parent
PACKAGES = ("autorank", "baycomp", "scipy", "statsmodels")
METHODS = ["forest", "boosting", "nearest"]


def over_tasks() -> dict[str, object]:
    """Demšar's tests, and Holm's correction of paired t-tests against `tree`."""
    table = pd.read_csv(FOLDER / "datasets.csv", index_col="dataset")
    ranked = autorank(table, alpha=0.05, force_mode="nonparametric")
    t_tests = [stats.ttest_rel(table[method], table["tree"]) for method in METHODS]
    forest, tree = table["forest"].to_numpy(), table["tree"].to_numpy()
    return {
        "autorank p_friedman": ranked.pvalue,
        "autorank mean ranks": ranked.rankdf["meanrank"].to_dict(),
        "scipy p_wilcoxon": {m: stats.wilcoxon(table[m], table["tree"]).pvalue for m in METHODS},
        "scipy p": [test.pvalue for test in t_tests],
        "scipy interval": [list(test.confidence_interval()) for test in t_tests],
        "statsmodels p_holm": multipletests([t.pvalue for t in t_tests], method="holm")[1].tolist(),
        "baycomp forest worse, equivalent, better": baycomp.SignedRankTest.probs(
            tree, forest, rope=0.01, nsamples=100_000, random_state=0
        ),
    }


def over_folds() -> dict[str, object]:
    """Repeated cross-validation: the correlated t-test, which has Nadeau and Bengio's variance."""
    table = pd.read_csv(FOLDER / "folds.csv")
    wide = table.pivot(index=["repeat", "fold"], columns="method", values="accuracy")
    pair = wide["tree"].to_numpy(), wide["forest"].to_numpy()
    return {
        "baycomp worse, better": baycomp.CorrelatedTTest.probs(*pair, rope=0, runs=3),
        "baycomp worse, equivalent, better": baycomp.CorrelatedTTest.probs(
            *pair, rope=0.01, runs=3
        ),
    }


def over_items() -> dict[str, object]:
    """Seeds and items crossed by REML; and of the first seed alone, paired t and equivalence."""
    table = pd.read_csv(FOLDER / "items.csv")
    wide = table.pivot(index=["seed", "item"], columns="method", values="reward")
    rows = (wide["new"] - wide["kd"]).rename("difference").reset_index().assign(group=1)
    parts = {"seed": "0 + C(seed)", "item": "0 + C(item)"}
    fit = mixedlm("difference ~ 1", rows, groups="group", vc_formula=parts).fit(reml=True)
    first = rows[rows["seed"] == 0]["difference"]
    return {
        "statsmodels reml": {"estimate": fit.params["Intercept"], "se": fit.bse["Intercept"]},
        "scipy first seed p": stats.ttest_1samp(first, 0).pvalue,
        "statsmodels first seed p_equivalent": ttost_paired(
            first.to_numpy(), 0 * first.to_numpy(), -0.3, 0.3
        )[0],
    }


if __name__ == "__main__":
    answers = {
        "versions": {name: version(name) for name in PACKAGES},
        "datasets": over_tasks(),
        "folds": over_folds(),
        "items": over_items(),
    }
    text = json.dumps(answers, indent=1, default=float) + "\n"
    (FOLDER / "answers.json").write_text(text, encoding="utf-8")

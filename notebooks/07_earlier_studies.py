# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Earlier studies
#
# The chapters on [BERT](04_bert_classification) and on [instructions](05_opt_instruction) show the
# sections of their studies on which a claim rests. Many more were run. **All of them are in one table
# here, none of them decides a claim.** Their protocols and results are in `data/results/earlier`.
#
# **Run time**: half a minute; nothing is trained.

# %% tags=["parameters"]
profile = "laptop"
seed = 0

# %%
from IPython.display import Markdown, display

from geodistill.analysis.figures.style import method_style
from geodistill.analysis.report.earlier_sections import earlier_sections, format_earlier
from geodistill.paths import data_dir
from geodistill.publish.display import show_table

table = earlier_sections(data_dir() / "results")

# %% [markdown]
# ## Why they are set aside
#
# - **The students were weak.** They barely exceed, or do not reach, what simple baselines do on the same
#   data: for sentences a linear classifier on word embeddings, for instructions the most frequent answer
#   of a prompt's template. A gain there says little about students that can do the task.
# - **Controls collapsed.** Some controls, at the weight tuned for Procrustes, made students that predict
#   one class only. To beat such a control is no evidence.
# - **Any feature match gained.** Except in `short`, a PCA target, whose minimum has the teacher's geometry too,
#   gained more than the Procrustes term wherever both ran. So the gain is not specific to a loss that is
#   invariant to rotation.
# - **Gains came with few updates.** They are largest where training is short; with all labelled
#   sentences none is shown.
# - **Tuning was coarse.** Three weights and two seeds per term; KD itself was never tuned.
# - **The same test items were used again and again**, in many sections, so that small effects that appear
#   in one of them may be selection.

# %%
classes = table[table["unit"] == "points"]
by_method = classes.groupby("method")[["collapsed", "runs"]].sum()
rate = (by_method["collapsed"] / by_method["runs"]).sort_values(ascending=False)
assert rate["kd+procrustes-shuffled"] > 0.2 > 0.06 > rate["kd"], "controls collapse more often"
gains = classes.pivot(index=["section", "setting"], columns="method", values="gain")
gains = gains[["kd+pca", "kd+procrustes"]].dropna()
assert (gains["kd+pca"] > gains["kd+procrustes"]).sum() == len(gains) - 1, "all but `short`"
with_all = classes.query("section == 'all' and method == 'kd+procrustes'").squeeze()
assert with_all["low"] < 0 < with_all["high"], "no gain is shown with all labelled sentences"
parts = [
    f"{method_style(m).label} {by_method.loc[m, 'collapsed']:g} of {by_method.loc[m, 'runs']}"
    for m in ("kd", "kd+procrustes", "kd+spectrum", "kd+procrustes-shuffled", "kd+isotropy")
]
sections, runs = table.groupby(["study", "section"]).ngroups, table["run_ids"].explode()
display(
    Markdown(
        f"{sections} sections with {runs.nunique():,} runs. Collapsed runs of classification, all "
        f"sections here: {'; '.join(parts)}."
    )
)

# %% [markdown]
# ## The table
#
# A classification run has **collapsed** if its accuracy is at most two points above that of the majority
# class, or if 97 % of its predictions are one class; an instruction run if its exact match is at most
# two per cent, or if 97 % of its answers are equal. Scores are per cent of accuracy, or log-likelihood
# in nats per token. Gains have 95 % intervals over seeds and test items, not corrected for the number of
# comparisons. A section without KD runs of its own is compared with those of the same tasks, seeds and
# device in another section.

# %% tags=["scroll-output"]
show_table(
    format_earlier(table),
    caption="Every section of the earlier studies: what it asked, its methods and settings, and their "
    "gain over KD.",
    name="earlier-sections",
    source="stored",
    made_by="earlier versions, by the protocols in data/results/earlier",
    results="data/results/earlier",
    run_ids=sorted(set(runs)),
)

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
# # BERT classification: a small student from few labelled sentences
#
# The paper reports that Procrustes and Gram terms help BERT students on CoLA, RTE and MRPC. Here
# a real BERT teaches a real, smaller BERT on real text, on your own machine and without a model
# hub. The question: **does a term that pulls the student's feature geometry towards the teacher's
# make a better classifier, and does it keep more geometry?**
#
# **You need** the two distances of [the theory chapter](01_theory). **Time**: about five minutes on
# two cores, most of it the teacher's training. **You will learn** how a feature term joins a
# `transformers.Trainer`, what it costs, what it does to accuracy and to geometry in one run, and
# what the stored runs of a study say.

# %% tags=["parameters"]
profile = "laptop"
seed = 0
task = "product"

# %%
import warnings

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown, display
from statsmodels.stats.proportion import proportion_confint

from geodistill import FeatureTerm, ProcrustesLoss
from geodistill.analysis import figures, report
from geodistill.analysis.anatomy import (
    gain_by_difficulty,
    gain_by_factor,
    kept_and_score,
    teachers_share,
)
from geodistill.analysis.compare import compare
from geodistill.analysis.rows import load_items, load_rows, wide
from geodistill.analysis.style import geodistill_style, look
from geodistill.distill import bert_student
from geodistill.experiments import sections
from geodistill.experiments.classification import (
    STUDY,
    ClassificationSetting,
    TeacherSetting,
    open_classroom,
    run_classification,
    smoke,
)
from geodistill.experiments.store import results_dir
from geodistill.publish import claims
from geodistill.publish.provenance import show, show_table
from geodistill.tasks import few_shot, load_classification

warnings.filterwarnings("ignore", message=".*does not support non-writable.*")
hub_teacher = TeacherSetting(model="google-bert/bert-base-uncased", learning_rate=3e-5)
setting = {
    "smoke": smoke(task),
    "laptop": ClassificationSetting(task),
    "paper": ClassificationSetting(task, n_train=0, width=384, layers=6, teacher=hub_teacher),
}[profile]

# %% [markdown]
# ## The sentences
#
# People rated each sentence of some customer reviews from very negative to very positive; the sign
# of the mean rating is the label {cite}`hutto2014vader`. Sentences of one review resemble each other,
# so the review, not the sentence, is put on one side of the split.

# %%
data = load_classification(task)
parts = {"train": data.train, "validation": data.validation, "test": data.test}
sources = {name: set(part["source"]) for name, part in parts.items()}
assert not sources["train"] & sources["test"], "a review stands on both sides"
assert not sources["train"] & sources["validation"]
sizes = pd.DataFrame(
    [(name, len(part), len(sources[name]), sum(part["label"])) for name, part in parts.items()],
    columns=["part", "sentences", "sources", f"{data.label_names[1]} sentences"],
)
show_table(sizes, caption=f"The {task} sentences, split by source.", source="live")

# %% [markdown]
# ## The teacher
#
# A BERT of 6 layers and width 384, fine-tuned on the whole training part. It is trained once, runs
# once over all sentences, and its logits and last-layer features are kept on disk: every student
# reads them from there.

# %%
room = open_classroom(setting, report=print)

# %% [markdown]
# ## The student
#
# Three layers of width 128 by default. Its embeddings start as the teacher's, projected on their top
# principal directions, which costs nothing; all else starts at random. A method changes the loss,
# never the start: students of one seed are equal before their first step.

# %%
student = bert_student(room.teacher, width=setting.width, layers=setting.layers, seed=seed)
twin = bert_student(room.teacher, width=setting.width, layers=setting.layers, seed=seed)
assert all(torch.equal(a, b) for a, b in zip(student.parameters(), twin.parameters(), strict=True))
outside = {
    name: sum(p.numel() for n, p in model.named_parameters() if "embeddings" not in n)
    for name, model in (("teacher", room.teacher), ("student", student))
}
display(
    Markdown(
        f"Outside the embeddings the teacher has {outside['teacher'] / 1e6:.1f} million weights, "
        f"the student {outside['student'] / 1e6:.2f} million."
    )
)

# %% [markdown]
# ## The loss
#
# For a batch with labels $y$, student logits $s$, teacher logits $t$, and last-layer token features
# $Y$ (student, $n \times d_s$) and $X$ (teacher, $n \times d_t$), one row a token,
#
# ```{math}
# :label: bert-loss
# \mathcal L = (1-\kappa)\,\mathrm{CE}(s, y)
#   + \kappa\,T^2\,\mathrm{KL}\big(p_T(t)\,\|\,p_T(s)\big)
#   + w\,D_P^2(X, Y),
# ```
#
# with $p_T$ the softmax at temperature $T$ {cite}`hinton2015`. This is one sum: labels, logits and
# geometry in the same step. The weight $w$ is not guessed: over the first steps the term is off, the
# gradients that both parts send to the student's features are measured, and $w$ is set to a fixed
# multiple of their ratio, the same multiple for every method. In code the last summand is

# %%
term = FeatureTerm(
    teacher_layer=-1,
    student_layer=-1,
    loss=ProcrustesLoss(),
    weight=setting.factor,
    balance=setting.balance,
)
assert (term.rows, setting.kd_share, setting.temperature) == ("all", 0.9, 2.0)
print(term)

# %% [markdown]
# and a trainer takes it as `FeatureDistillationTrainer(..., terms=[term])`; [](../book/use_it) has
# the whole call. `run_classification` makes that call and scores the student.
#
# ## Two students, live
#
# The same sentences, the same start, the same order of batches; one with the term, one without.

# %%
methods = ("kd", "kd+procrustes")
shots = few_shot(room.train, setting.n_train or len(room.train), seed)
runs = {}
for method in methods:
    runs[method], _ = run_classification(room, method, seed)
    print(f"{look(method).label}: {runs[method].wall_seconds:.0f} s")
assert len({run.run_id for run in runs.values()}) == len(methods)
assert (runs["kd"].items["item"] == runs["kd+procrustes"].items["item"]).all()

# %%
live = pd.DataFrame({look(m).label: runs[m].metrics for m in methods})
wanted = {
    "accuracy": "accuracy",
    "agreement": "agreement with the teacher",
    "nll": "negative log-likelihood (nats)",
    "geometry_kept/procrustes": "geometry kept (Procrustes)",
    "geometry_kept/gram": "geometry kept (Gram)",
    "cka": "CKA with the teacher",
}
shown = live.loc[list(wanted)].rename(wanted).rename_axis("on the test sentences").reset_index()
show_table(shown, caption=f"Two students of seed {seed}, {len(shots)} sentences.", source="live")

# %%
metrics = runs["kd"].metrics
n_test = len(room.test)
scores = {
    "majority": (metrics["majority_accuracy"], "#7F7F7F"),
    **{look(m).label: (runs[m].metrics["accuracy"], look(m).color) for m in methods},
    "teacher": (metrics["teacher_accuracy"], "#0072B2"),
}
with geodistill_style():
    fig, ax = plt.subplots(figsize=(6, 2.4))
    for place, (value, colour) in enumerate(scores.values()):
        low, high = proportion_confint(round(value * n_test), n_test, method="wilson")
        ax.plot([low, high], [place, place], color=colour)
        ax.plot(value, place, "o", color=colour)
    ax.set_yticks(range(len(scores)), list(scores))
    ax.set_xlabel(f"test accuracy (line: 95 % Wilson interval over {n_test} sentences)")
told = ", ".join(f"{name} {value:.3f}" for name, (value, _) in scores.items())
show(fig, alt=f"Test accuracy of one run each: {told}.", source="live")
if profile != "smoke":
    assert metrics["teacher_accuracy"] > metrics["majority_accuracy"], "the teacher has learned"

# %%
gain = {k: runs["kd+procrustes"].metrics[k] - runs["kd"].metrics[k] for k in wanted}
display(
    Markdown(
        f"In this one run the term moved accuracy by {100 * gain['accuracy']:+.1f} points and the "
        f"geometry kept by {gain['geometry_kept/procrustes']:+.2f} (Procrustes), "
        f"{gain['geometry_kept/gram']:+.2f} (Gram), for "
        f"{runs['kd+procrustes'].wall_seconds / runs['kd'].wall_seconds:.2f} times the time. "
        "One seed is an anecdote: the interval above speaks of other sentences, not of other seeds."
    )
)

# %% [markdown]
# ## The study
#
# `data/protocol/classification.yaml` was committed before any of its rows: tasks, methods, fresh
# seeds and fresh test sentences, the rule for the weights, the margin, the family of tests, and what
# had been looked at. Its runs are made section by section (`geodistill grid classification --section
# tuning` first). A section that is not whole decides nothing.

# %%
state = sections.progress()
assert (state["stored"] <= state["planned"]).all()
show_table(
    state,
    caption="Runs of each section of the protocol: planned (before a task is dropped), and stored.",
    name="classification-sections",
    source="live",
)

# %% [markdown]
# ### How heavy should the term be?
#
# A loss at the wrong weight proves nothing. So every method gets the same three trials of its weight
# factor, on *validation* sentences of all tasks, with seeds that no reported run has. The same runs
# tell which tasks can say anything at all: where neither cross-entropy nor KD clears the majority
# class, no term can be compared, and the task is left out.

# %%
tuning = sections.tuning_rows()
gains = gain_by_factor(tuning)
chosen = {f"kd+{term}": factor for term, factor in sections.chosen_factors(tuning).items()}
percent = gains.assign(**{name: 100 * gains[name] for name in ("gain", "low", "high")})
tuned = {
    "source": "stored",
    "made_by": "geodistill grid classification --section tuning",
    "rows": "data/results/classification/tuning/rows.parquet",
    "run_ids": tuple(tuning["run_id"].unique()),
}
with geodistill_style():
    fig, ax = plt.subplots(figsize=(8, 3.6))
    figures.weight_curves(ax, percent, chosen, "points of validation score over KD")
most = percent.groupby("method")["gain"].max()
told = "; ".join(f"{look(m).label} {gain:+.1f}" for m, gain in most.items())
show(fig, alt=f"Gain over KD by weight factor. Largest: {told} points.", name="weights", **tuned)
assert gains["pairs"].nunique() == 1, "unequal trials"

# %%
left_out = sections.dropped(tuning, sections.protocol()["drop"])
plain = tuning[tuning["method"].isin(("ce", "kd"))]
best = plain.pivot_table(index=["task", "method"], columns="metric", values="value")
wanted = ["majority_accuracy", "accuracy", "matthews_correlation", "f1", "pearson"]
show_table(
    best[[name for name in wanted if name in best]].reset_index().rename_axis(columns=None),
    caption="Validation scores without a term, means over the tuning seeds. Left out by the rule: "
    f"{', '.join(left_out) or 'none'}.",
    **tuned,
)

# %% [markdown]
# The intervals are over pairs of task and seed, and are for orientation: the choice is the highest
# mean, whatever its noise. Few trials choose between near equals by luck; all methods share that.
#
# ### Does a term help?
#
# Each term against KD, on test sentences: the same subsample, start and order, seeds and sentences
# crossed as [the significance chapter](06_significance) explains. There the two primary tests get
# their correction and their words; here is the whole field.

# %%
test = claims.claim("C4a").stored
folder = test.rows(results_dir())[0]
items = test.items(results_dir())
by_protocol = not folder.startswith(claims.EXPLORATORY)
stored = {
    "source": "stored",
    "made_by": test.grid + (f" --section {claims.PRIMARY}" if by_protocol else ""),
    "rows": f"data/results/{folder}/items.parquet",
    "run_ids": items.run_ids,
}
kind = "made by the protocol" if by_protocol else "exploratory, since the protocol's are not whole"
tasks = sorted(items.frame["task"].unique())
said = f"`data/results/{folder}`, {kind}. Tasks pooled: {', '.join(tasks)}. {items.says}."
display(Markdown(f"The rows are those of {said}"))

# %%
terms = [f"kd+{name}" for name in ("procrustes", "gram", "cka", "pca", "projection")]
pooled = {m: compare(items.frame, m, "kd") for m in terms}
lines = [
    a for m in terms for a in (pooled[m], *(compare(items.frame, m, "kd", [t]) for t in tasks))
]
with geodistill_style():
    fig, ax = plt.subplots(figsize=(7, 0.36 * len(lines) + 1))
    figures.forest(ax, report.tidy(lines, test.unit), "points of accuracy", 100 * test.margin)
told = report.in_words(list(pooled.values()), test.unit)
show(fig, alt=f"Forest plot of each term against KD. {told}.", name="terms", **stored)
for method, one in pooled.items():
    parts = [a.estimate for a in lines if a.method == method and a is not one]
    assert abs(one.estimate - sum(parts) / len(parts)) < 1e-12, "tasks weigh equally"

# %% [markdown]
# A task whose labels are scores has another unit, so it is not pooled: it stands by itself, as the
# change of the squared error of the standardised score, its sign turned so that more is better.

# %%
every = load_items(results_dir() / folder)
squared = report.Unit("squared error, sign turned", digits=3)
apart = sorted(set(every.frame["task"]) - set(tasks))
beside = [compare(every.frame, m, "kd", [name]) for name in apart for m in terms]
if beside:
    shown = report.tidy(beside, squared).assign(method=[look(a.method).label for a in beside])
    assert (shown["low"] < shown["estimate"]).all()
    show_table(
        shown,
        caption=f"Differences, {squared.name}; 95 % intervals.",
        name="scores",
        **{**stored, "run_ids": every.run_ids},
    )
else:
    print("these rows hold tasks with classes alone")

# %%
kept = "geometry kept (Procrustes)"
table = wide(load_rows(results_dir() / folder).frame).rename(
    columns={"geometry_kept/procrustes": kept}
)
table = table[table["task"].isin(tasks)]
table["share of the teacher"] = teachers_share(table)
columns = ["accuracy", "share of the teacher", "agreement", "nll", "calibration_error", kept]
columns = [name for name in columns if name in table]  # the first runs lack the calibration error
means = table.groupby(["task", "method"])[columns].mean().reset_index().rename_axis(columns=None)
show_table(
    means,
    caption="Means over seeds. Share of the teacher: of its accuracy above the majority's. "
    f"Agreement: with the teacher's labels. {items.says}.",
    **stored,
)

# %% [markdown]
# ### Does the term keep the geometry, and does that go with the score?
#
# Two questions, which a scatter of runs mixes. *Between methods*: does the method that keeps more
# score higher? *Between the seeds of one method*: does the run that happens to keep more?

# %%
with geodistill_style():
    fig, axes = plt.subplots(1, len(tasks), figsize=(3.2 * len(tasks) + 2, 3.4), squeeze=False)
    for ax, name in zip(axes[0], tasks, strict=True):
        figures.kept_against_score(ax, table[table["task"] == name], kept, "accuracy")
        ax.set_title(name)
    for ax in axes[0][:-1]:
        ax.get_legend().remove()
most = means.loc[means.groupby("task")[kept].idxmax()]
told = "; ".join(f"most kept on {r.task}: {look(r.method).label}" for r in most.itertuples())
show(
    fig,
    alt=f"Geometry kept against accuracy, a mark a run, by task. {told}.",
    name="kept",
    **stored,
)

# %%
show_table(
    kept_and_score(table, kept, "accuracy").rename(columns={"r": "correlation"}),
    caption="Correlation of the geometry kept with accuracy, with 95 % intervals.",
    name="kept-and-score",
    **stored,
)

# %%
pivot = table.pivot_table(index=["task", "seed"], columns="method", values=kept)
over_kd = pivot.sub(pivot["kd"], axis=0)[[m for m in pivot if m.startswith("kd+")]]
differences = over_kd.groupby("seed").mean().melt(ignore_index=False, value_name="difference")
with geodistill_style():
    fig, ax = plt.subplots()
    figures.seed_dots(ax, differences.reset_index(), "geometry kept, minus KD's")
told = ", ".join(f"{look(m).label} {v:+.3f}" for m, v in over_kd.mean().items())
show(fig, alt=f"Geometry kept minus KD's, one dot a seed, bar: mean. {told}.", **stored)

# %% [markdown]
# ### Is it the teacher's geometry?
#
# The controls change one thing each. *Rows shuffled*: the same loss, weight and teacher rows, but no
# row meets its own. *Spectrum part*: what the Procrustes distance asks of the student's singular
# values alone. *Isotropy*: no teacher at all. A gain that they share is not the teacher's geometry.

# %%
placebo = claims.claim("P1-bert").stored
control_items = placebo.items(results_dir())
shown = ["kd+procrustes", "kd+procrustes-shuffled", "kd+spectrum", "kd+isotropy"]
shown = [method for method in shown if method in set(control_items.frame["method"])]
controls = [compare(control_items.frame, method, "kd") for method in shown]
assert len(controls) >= 2, "no control ran"
with geodistill_style():
    fig, ax = plt.subplots(figsize=(7, 0.6 * len(controls) + 1))
    figures.forest(ax, report.tidy(controls, test.unit), "points of accuracy", 100 * test.margin)
told = report.in_words(controls, test.unit)
rows_of_controls = f"data/results/{placebo.rows(results_dir())[-1]}/items.parquet"
source = {**stored, "rows": rows_of_controls, "run_ids": control_items.run_ids}
show(fig, alt=f"Procrustes and its controls against KD. {told}.", name="controls", **source)

# %% [markdown]
# ### Which sentences change?
#
# Sort the test sentences by how often KD gets them right, and ask where a term gains. An item that KD
# got wrong by bad luck gets better with *any* other model; so half of the seeds sort the sentences,
# the other half compare, and then the other way round.

# %%
hard = {m: gain_by_difficulty(items.frame, m, "kd", tasks) for m in ("kd+procrustes", "kd+gram")}
sorted_by_kd = pd.concat(hard, names=["method"]).reset_index(level=0)
assert abs(sorted_by_kd.groupby("method")["share"].sum() - 1).max() < 1e-9
numbers = ["share", "gain", "low", "high"]
sorted_by_kd[numbers] *= 100
show_table(
    sorted_by_kd.rename(
        columns={"items": "KD is", "share": "% of sentences", "gain": "gain (points)"}
    ),
    caption="Gain over KD among sentences that KD, with other seeds, never, sometimes or always gets "
    "right; 95 % intervals.",
    name="difficulty",
    **stored,
)

# %% [markdown]
# ### What does it cost?

# %%
times = load_rows(results_dir() / folder).frame.drop_duplicates("run_id")
clock = times.pivot_table(index=["task", "seed"], columns="method", values="wall_seconds")
ratio = clock.div(clock["kd"], axis=0).drop(columns="kd").median().rename("time over KD's")
show_table(
    ratio.reset_index(),
    caption="Time of training and scoring over that of KD with the same task and seed: median. The "
    "teacher ran once for all. The grid's machine did other work at times.",
    **stored,
)

# %% [markdown]
# ## The first look, and these two students
#
# Before the protocol there were eighty exploratory runs, made while the settings were being found:
# they stay in `data/results`, and in no verdict once the protocol's rows are whole. Two of them share
# configuration and seed with the two students above, so these should come out the same, up to the
# arithmetic of another processor.

# %%
first = load_rows(results_dir() / STUDY)
known = first.frame.pivot_table(index="run_id", columns="metric", values="value")
pairs = [
    (look(m).label, known.loc[run.run_id, "accuracy"], run.metrics["accuracy"])
    for m, run in runs.items()
    if run.run_id in known.index
]
if pairs:
    repeat = pd.DataFrame(pairs, columns=["method", "stored accuracy", "accuracy on this page"])
    show_table(
        repeat,
        caption="Two stored runs, made again by this page.",
        source="stored",
        made_by="geodistill grid classification",
        rows=f"data/results/{STUDY}/rows.parquet",
        run_ids=first.run_ids,
    )
else:
    print(f"profile {profile!r}, task {task!r} and seed {seed} are not in the stored grid")

# %% [markdown]
# ## What we learn, and what would change our mind
#
# - A geometry term is three lines on top of a trainer.
# - What it does to the geometry on new sentences, and what to accuracy, are two questions; the
#   figures above answer the first, the significance chapter the second.
# - The placebo (shuffled rows) has the same loss, weight and teacher. A gain that it shares is not
#   the teacher's geometry.
#
# Other settings could turn the answer: more labelled sentences, a wider student, pretrained student
# weights, another weight, the first token alone. One weight per method was tried here; a fair study
# sweeps it for each.
#
# ## Exercises
#
# ```{exercise}
# :label: bert-rows
# Use the first token's features only: `rows="first"`. How many rows does the loss then see in a
# batch of 32, and what do [finite samples](01_theory) say about a Procrustes distance on so few?
# ```
#
# ````{solution} bert-rows
# :class: dropdown
# Thirty-two rows of width 128: even unrelated features look alike there, and the loss has less to
# say. In code:
#
# ```python
# FeatureTerm(-1, -1, ProcrustesLoss(), weight=20.0, rows="first", balance=32)
# ```
# ````
#
# ```{exercise}
# :label: bert-middle
# Match a middle layer instead of the last. Which teacher layer would you give the student's layer 2?
# ```
#
# ````{solution} bert-middle
# :class: dropdown
# Layer 2 of 3 stands at two thirds of the depth, as does layer 4 of 6. The cache must then hold
# layer 4: `build_cache(..., layers=(4,))`; a term that asks for a layer it lacks is refused before
# the first step.
#
# ```python
# FeatureTerm(4, 2, ProcrustesLoss(), weight=20.0, balance=32)
# ```
# ````
#
# ```{exercise}
# :label: bert-seed
# Run this page with another seed, and compare the sign of the gain:
# `geodistill run bert -p seed 3`.
# ```
#
# ````{solution} bert-seed
# :class: dropdown
# The signs often differ: that is why the grid has five seeds, and why the next question is about
# intervals.
# ````

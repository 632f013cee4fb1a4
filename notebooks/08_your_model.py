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
# # Distil your own model: does a geometry term help yours?
#
# The other chapters ask whether a term helps in general. This one asks whether it helps with your teacher
# and your data; the executed page is the report. It is quick: to decide, add `-p seeds 5` and the control
# `kd+procrustes-shuffled` to the arms. It trains students with and without the term, gives both
# the same tuning, compares them with the test of [the significance chapter](06_significance), and saves a
# folder that `from_pretrained` loads.

# %% tags=["parameters"]
profile = "laptop"
task = "text-classification"
data = "product"
text = "text"
label = "label"
group = ""
teacher = "minilm"
student = "first"
layers = 2
arms = ["kd", "kd+procrustes"]
weight = 1.0
teacher_layer: object = -1  # a number, or the path of a block
student_layer: object = -1
seeds = 3
learning_rates = [1e-4, 3e-4, 1e-3]
epochs = 1.5
teacher_epochs = 2
batch_size = 32
max_length = 96
max_new_tokens = 32
max_rows = 0
workers = 2
scheduler = ""
out = ""

# %% tags=["hide-input"]
import os
import tempfile
import warnings
from functools import partial

from IPython.display import Markdown, display

warnings.filterwarnings("ignore", message=".*does not support non-writable.*|IProgress not found")
from geodistill import YourModelSettings, distill_your_model
from geodistill.analysis.report.export import report_table
from geodistill.publish.display import show, show_table
from geodistill.publish.study_figures import draw_runs

os.chdir(
    os.environ.get("GEODISTILL_CALLER", ".")
)  # paths are relative to where the command was given
scratch = tempfile.TemporaryDirectory()
if profile == "smoke":
    layers, seeds, learning_rates, epochs = 1, 2, learning_rates[:1], 1
    teacher_epochs, batch_size, max_rows = 1, 16, 64

# %% [markdown]
# **You need** a few hundred labelled texts, prompts with answers, or texts alone, and a teacher: a text
# classifier, an encoder that is fine-tuned first, a causal language model, or a sentence encoder. **Run
# time**: about seven minutes on two cores with the embedded pair; the table below estimates it for yours.
# **You will learn** what a term does to your student, and whether your test can detect it.
#
# ## Your data on this page
#
# The page shows the embedded pair. For yours, run one command in the folder of your data:
#
# ```
# geodistill notebook your_model -p teacher my-classifier -p data reviews.csv \
#     -p text review -p label kind -p out student
# geodistill notebook your_model -p task text-generation -p teacher my-language-model \
#     -p data pairs.jsonl -p out student
# geodistill notebook your_model -p task sentence-similarity -p teacher my-sentence-encoder \
#     -p data texts.csv -p text sentence -p out student
# ```
#
# | parameter | what it takes |
# |---|---|
# | `task` | `text-classification`, of classes or of numbers; `text-generation`; or `sentence-similarity`, embeddings of texts without labels |
# | `data`, `text`, `label`, `group` | a CSV, JSON-lines or Parquet file, a `datasets` folder, or `owner/name` of the hub, and its columns; splits of its own are kept. `text` may be two columns, `a, b`; a label is a word or an integer, decimal numbers make a regression; rows of one `group` stay in one split. For generation rows have `prompt` and `completion`, or chat `messages`; its students are scored by Rouge-L of their answers. Embeddings read no label; their students are scored by the share of the teacher's ten nearest texts that they find |
# | `teacher` | a folder or a hub name; a classifier or language model is used as it is, an encoder without a head (`minilm`, `mpnet`) is fine-tuned for `teacher_epochs`, but for embeddings, where it is taken as it is |
# | `student`, `layers` | `first` or (not for generation) `uniform`, that many of the teacher's layers; or a folder or name of a model of its kind with the teacher's tokenizer |
# | `arms` | the baseline, the method in question, and others: `kd`, `ce` (labels alone; for generation `sft`, answers alone, and `seqkd`), `kd+procrustes`, `kd+gram`, `kd+cka`, `kd+projection`, `kd+pca`, the two parts of Procrustes, `kd+spectrum` and `kd+alignment`, and the controls `kd+procrustes-shuffled` and `kd+isotropy` |
# | `weight`, `teacher_layer`, `student_layer` | the weight of the terms, as a multiple of the ratio of gradient norms; a hidden state by its number, `-1` for the last (generation: only that), or by the path of a block, `encoder.layer.5` |
# | `seeds`, `learning_rates` | number of runs per arm; the rates that each arm tries on validation |
# | `epochs`, `batch_size`, `max_length`, `max_new_tokens`, `max_rows` | `epochs` 1.5 is a quick look here; `max_length` is of a text, or of a prompt with its answer; `max_rows` 0 takes all rows |
# | `workers`, `scheduler` | processes on this machine, one compute thread each; or the address of a Dask scheduler, whose workers make the runs |
# | `out` | folder of the student; runs are kept in `<out>-runs`, and the same command resumes there. Without it nothing is kept |
#
# From Python it is one function, `distill_your_model(YourModelSettings(data="reviews.csv", ...))`. For
# images, use the trainer, as the examples in [the handbook](../book/trainers) do, and run
# `geodistill compare` on the scores.
#
# On several machines, a Dask cluster makes the runs (`pip install '.[cluster]'`). Its workers must see data,
# models and `out` by the same paths:
#
# ```
# dask scheduler                                  # on one machine
# dask worker tcp://host:8786 --nthreads 1        # on each machine, once per core
# geodistill notebook your_model -p scheduler tcp://host:8786 -p data reviews.csv -p out student
# ```

# %% tags=["hide-input"]
settings = YourModelSettings(
    task=task,
    data=data,
    text=text,
    label=label,
    group=group,
    teacher=teacher,
    student=student,
    layers=layers,
    arms=tuple(arms),
    weight=weight,
    teacher_layer=teacher_layer,
    student_layer=student_layer,
    seeds=seeds,
    learning_rates=tuple(learning_rates),
    epochs=epochs,
    teacher_epochs=teacher_epochs,
    batch_size=batch_size,
    max_length=max_length,
    max_new_tokens=max_new_tokens,
    max_rows=max_rows,
    workers=workers,
    scheduler=scheduler,
    out=out or f"{scratch.name}/student",
)

# %% [markdown]
# ## Settings in effect, and training
#
# Before students are trained, the table shows the resulting settings and warns of anything unusual. A
# batch of fewer than $1 + R/x^2$ rows cannot distinguish geometry from chance ([finite
# samples](02_finite_samples)); more rows than the teacher has directions is a safe rule of thumb. If one direction or a few tokens dominate the features, the term compares
# nothing else. Then each arm tries every learning rate once, on validation, and is trained with its best
# one and several seeds. Only these last runs are scored on the test rows.

# %%
answer = distill_your_model(
    settings,
    progress=print,
    show_plan=partial(
        show_table,
        caption="Settings in effect, before students are trained.",
        source="live",
        name="plan",
    ),
)

# %% [markdown]
# ## The answer

# %% tags=["hide-input"]
display(Markdown(f"**{answer.sentence}**"))
if answer.report:
    show_table(
        report_table(answer.report),
        caption=f"Each arm against {arms[0]}, on the test rows.",
        source="live",
        name="your-comparison",
    )
    display(Markdown(" ".join(f"{note[0].upper()}{note[1:]}." for note in answer.report.notes)))

# %% [markdown]
# The levels put the difference in proportion. A student that is not above both baselines is not worth
# keeping, whatever the term did to it; a run has collapsed if it hardly beats the most frequent class, or
# always gives one answer. Geometry kept is 0 at chance and 1 at the best that a student of this width can do: if it rises
# and the score shows no change, preserving geometry did not matter for this task, or the test is too small to show it.

# %% tags=["hide-input"]
show_table(
    answer.levels,
    caption=f"Test {answer.metric} in points, agreement and geometry, {seeds} seeds.",
    source="live",
    name="your-levels",
)
rates = ", ".join(f"{arm} {rate:g}" for arm, rate in answer.learning_rates.items())
show(
    draw_runs(answer.runs, answer.metric),
    alt="Test score of every run of arms, baselines and teacher; numbers in the table above.",
    caption=f"One mark per run; bars are medians. Learning rates, chosen on validation: {rates}.",
    source="live",
    name="your-runs",
)

# %% [markdown]
# ## The student
#
# The folder has weights, tokenizer and a model card with the answer and the levels. It is the student of
# the first arm, unless the comparison finds the second better.

# %%
from transformers import AutoTokenizer, pipeline

embeds = task == "sentence-similarity"  # for which transformers has no pipeline
distilled = pipeline("feature-extraction" if embeds else task, model=str(answer.folder))
tokenizer = AutoTokenizer.from_pretrained(answer.folder)
f"{distilled.model.num_parameters():,} weights, {len(tokenizer):,} tokens"

# %% tags=["hide-input"]
folder = (
    f"It is in `{out}`." if out else "No folder was named by `out`: it is deleted with this page."
)
display(Markdown(f"The student was trained with {answer.arm}, seed 0. {folder}"))

# %% [markdown]
# ## What would change our mind
#
# - **More seeds and rows.** If the answer is *inconclusive*, it states how many would decide.
# - **Another weight, another layer.** This page tunes the learning rate of each arm and takes weight and
#   layers as given; if you try several weights, give KD as many trials.
# - **A control.** A gain that `kd+procrustes-shuffled` shares is not due to geometry.
#
# ## Exercises
#
# ```{exercise}
# :label: own-control
# Is a gain of Procrustes due to geometry? Add the control that compares each text with the features of
# other texts.
# ```
#
# ````{solution} own-control
# :class: dropdown
# Its rows are shuffled, and all else is equal. If both arms gain equally, the term regularises, and no
# geometry is learned from the teacher:
#
# ```
# geodistill notebook your_model -p arms "['kd', 'kd+procrustes', 'kd+procrustes-shuffled']"
# ```
# ````
#
# ```{exercise}
# :label: own-rows
# The teacher is 384 wide. How many texts of 20 tokens must a batch have for the term to see more rows
# than directions? What if it compared one row per text?
# ```
#
# ````{solution} own-rows
# :class: dropdown
# Twenty texts have 400 token rows; one row per text would take batches of more than 384 texts. That is
# why terms compare tokens, and why short texts need larger batches: `-p batch_size 64`.
# ````
#
# ```{exercise}
# :label: own-tuning
# Give the term five learning rates and KD one, on any data. Why is the comparison now unfair, even if the
# term does nothing?
# ```
#
# ````{solution} own-tuning
# :class: dropdown
# The best of five trials beats a single trial even if all five are equally good, because chance favours
# the arm with more trials. Here every arm tries the same rates, so this page cannot be run that way.
# ````

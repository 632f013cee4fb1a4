"""The code blocks of README and of the handbook run as they are printed."""

import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from support.demsar import C45, TUNED
from support.tiny_models import tiny_bert
from support.tiny_project import REPOSITORY
from transformers import TrainingArguments

from geodistill.analysis.stats.ranks import rank_table


def python_blocks(document: str) -> list[str]:
    text = (REPOSITORY / document).read_text()
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def block_with(words: str) -> str:
    """The one block of the handbook that holds these words."""
    pages = ("use_it", "trainers", "own_data", "compare_layers")
    blocks = [block for page in pages for block in python_blocks(f"book/{page}.md")]
    (block,) = [block for block in blocks if words in block]
    return block


def test_the_eight_lines_run_and_learn_with_the_base_install():
    (code,) = python_blocks("README.md")
    assert code == python_blocks("book/use_it.md")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 8
    probe = (
        "import sys, torch; torch.manual_seed(0); losses = []\n"
        + code.replace(
            "    optimizer.zero_grad()", "    losses.append(loss.item()); optimizer.zero_grad()"
        )
        + "assert losses[-1] < 0.7 * losses[0], losses\n"
        "assert not {'transformers', 'pandas', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_table_is_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{method},{seed},{item},{(item * 7 + seed) % 10 < 5 + gain}"
        for method, gain in (("kd", 0), ("new", 3))
        for seed in range(4)
        for item in range(40)
    ]
    table = "\n".join(["method,seed,item,accuracy", *rows]).replace("True", "1")
    Path("rows.csv").write_text(table.replace("False", "0"))
    (block,) = python_blocks("book/compare.md")
    exec(block, {})
    assert "new" in capsys.readouterr().out


def compare_page():
    return " ".join((REPOSITORY / "book/compare.md").read_text().split()).replace("−", "-")


def test_the_sentence_on_seeds_and_items_is_what_the_stored_results_give():
    from geodistill.analysis import compare_all, read_scores

    folder = REPOSITORY / "data/results/earlier/classification/gpu"
    row = compare_all(read_scores(folder, "kd"), "kd", ["kd+procrustes"]).rows[0]
    c, page = row.comparison, compare_page()
    assert f"Over five seeds and {c.n_items:,} test items" in page
    assert c.n_seeds == 5
    assert f"{100 * c.estimate:+.1f} points (95 % interval" in page
    assert f"interval {100 * c.low:+.1f} to {100 * c.high:+.1f}, p = {c.p:.2f};" in page
    assert f"which is {row.verdict.word} at a margin of one point" in page


def test_the_sentence_on_data_sets_is_what_the_published_table_gives():
    difference, page = np.subtract(TUNED, C45), compare_page()
    test = stats.ttest_1samp(difference, 0)
    low, high = 100 * np.array(test.confidence_interval())
    assert f"adult (sample),{C45[0]},{TUNED[0]} breast cancer,{C45[1]},{TUNED[1]} ..." in page
    assert (
        f"these {len(difference)}, tuning raises AUC by {100 * difference.mean():.1f} points"
        in page
    )
    assert (
        f"interval {low:.1f} to {high:.1f}, paired t over data sets, p = {test.pvalue:.3f};" in page
    )
    signed_rank = rank_table(pd.DataFrame({"kd": C45, "new": TUNED}), "kd", 0.01)["p_wilcoxon"][0]
    assert f"signed-rank test p = {signed_rank:.3f})" in page


@pytest.mark.smoke
def test_masks_and_layer_map_run():
    namespace: dict[str, object] = {}
    masks = block_with("torch.arange(20) <")
    exec("import torch\nfrom geodistill import ProcrustesLoss\n" + masks, namespace)
    assert 0 < float(namespace["loss"]) < 2
    exec(MODELS, namespace)
    layers = block_with("compare_layers(")
    exec("import matplotlib; matplotlib.use('agg')\n" + layers, namespace)
    assert list(namespace["matches"]["layer_a"]) == list(range(7))


@pytest.mark.smoke
def test_the_trainer_is_called_as_printed(tmp_path):
    rows = torch.randint(2, 50, (64, 8)).tolist()
    torch.manual_seed(0)
    namespace = {
        "teacher": tiny_bert(width=24, layers=4, labels=2),
        "student": tiny_bert(width=16, layers=2, labels=2),
        "dataset": [{"input_ids": row, "labels": int(row[0] > 25)} for row in rows],
        "training_arguments": TrainingArguments(
            str(tmp_path), max_steps=20, logging_steps=1, report_to="none", use_cpu=True
        ),
    }
    exec(block_with("FeatureDistillationTrainer("), namespace)
    history = namespace["trainer"].state.log_history
    (weight,) = {key for row in history for key in row if key.startswith("weight/Procrustes")}
    weights = [row[weight] for row in history if weight in row]
    assert weights[:15] == [0.0] * 15  # the last batch of the warm-up has the term
    assert min(weights[15:]) > 0
    assert all(row["loss/logit"] > 0 for row in history if weight in row)


# What the blocks of the page take for granted: models and texts of the reader.
MODELS = """
from support.tiny_tokenizers import word_tokenizer
from transformers import BertConfig, BertModel

def bert(width, layers):
    return BertModel(BertConfig(vocab_size=50, hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=2, intermediate_size=16))

teacher, student = bert(24, 6), bert(16, 3)
words = [f"w{i}" for i in range(2, 50)]
tokenizer = word_tokenizer(words)
texts = [" ".join(words[i : i + 4]) for i in range(0, 40, 2)]
"""


def scores(printed: str) -> dict[str, float]:
    """The first number behind each method."""
    words = [line.split() for line in printed.splitlines() if line.startswith(("kd", "tfidf"))]
    return {method: float(first) for method, first, *_ in words}


@pytest.mark.smoke
def test_own_instructions_are_distilled(tmp_path, monkeypatch, capsys):
    from support.own_cache import own_cache
    from support.tiny_instructions import letters_teacher
    from support.tiny_models import tiny_opt

    from geodistill.experiments.instruction import setup

    monkeypatch.chdir(tmp_path)
    loaded = []

    def load_student(name, tokenizer, positions):
        loaded.append(name)
        return tiny_opt(4, vocabulary=30, positions=positions)

    monkeypatch.setattr(setup, "load_teacher", letters_teacher)
    monkeypatch.setattr(setup, "load_student", load_student)
    words = ["".join(pair) for pair in product("abcdefghijklmnopqr", repeat=2)]
    lines = [{"prompt": f"{a}{b}", "completion": b} for a, b in words]
    Path("mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    block = block_with("run_instruction")
    assert "n_train=200,\n    n_test=25,\n" in block
    namespace: dict[str, object] = {}
    with own_cache(tmp_path / "cache"):
        exec(block.replace("n_test=25,", "n_test=25, epochs=1.0, top_k=8,"), namespace)
    nll = scores(capsys.readouterr().out)
    assert list(nll) == ["kd", "kd+procrustes"]
    assert 0 < nll["kd"] < 20
    assert loaded == ["my-student"] * 2
    assert len(namespace["run"].items) == 25
    exec("from support.tiny_tokenizers import byte_tokenizer", namespace)
    namespace["tokenizer"] = namespace["byte_tokenizer"]()
    exec(block_with("print(lengths)"), namespace)
    assert str(namespace["lengths"]) in capsys.readouterr().out
    assert len(namespace["examples"]) > 200

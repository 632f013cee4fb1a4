"""README, CONTRIBUTING and the book name only what exists, and their code runs."""

import importlib
import json
import pydoc
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import typer
import yaml
from support.own_cache import own_cache
from support.tiny_instructions import letters_teacher
from support.tiny_models import tiny_opt
from support.tiny_project import REPOSITORY

import geodistill
from geodistill.experiments.instruction import setup as instruction_setup

DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "CHANGELOG.md",
    REPOSITORY / "LICENSE-prose",
    *sorted((REPOSITORY / "book").glob("*.md")),
]
MADE = ("_build/", "book/_build/", ".venv/", "~/")  # by the commands, not committed
FILES = r"\.(?:py|md|yml|toml|txt|cff|bib)$"


def name(document: Path) -> str:
    return document.name


def spans(document: Path) -> Iterator[str]:
    """Inline code, and the targets of links."""
    prose = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", prose)
    yield from re.findall(r"\]\(([^)#\s]+)\)", prose)


def commands(document: Path) -> Iterator[list[str]]:
    """Command lines in code blocks and inline code, split, without their comments."""
    text = document.read_text()
    fenced = re.findall(r"^```([^\n]*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if not language]
    inline = re.findall(r"`((?:make|geodistill|pip)\s[^`]+)`", text)
    for line in [*"\n".join(blocks).splitlines(), *inline]:
        words = shlex.split(line.replace("<", "'<").replace(">", ">'"), comments=True)
        if words:
            yield words


def is_path(text: str) -> bool:
    return bool(re.fullmatch(r"[\w~.-]+(/[\w.*-]*)+", text) or re.search(FILES, text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_path_exists(document):
    for text in spans(document):
        if "://" in text or not is_path(text) or text.startswith(MADE) or "NN_" in text:
            continue
        near = [REPOSITORY / text, document.parent / text]
        chapters = [path.with_suffix(".py") for path in near]  # the book links pages, not files
        pages = [path.with_suffix(".md") for path in near]
        assert any(path.exists() for path in near + chapters + pages), text


def test_the_path_check_finds_paths():
    found = {text for document in DOCUMENTS for text in spans(document) if is_path(text)}
    assert {"constraints.txt", "data/cards/", "../notebooks/01_theory", "LICENSE"} - found == {
        "LICENSE"
    }
    assert len(found) > 25


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_command_exists(document):
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    for words in commands(document):
        while "=" in words[0]:  # variables before the command
            words = words[1:]
        program, *rest = words
        if program == "make":
            named = [word for word in rest if "=" not in word]
            assert set(named) <= set(targets), words
        elif program == "geodistill":
            check_cli(rest)
        elif program == "pip":
            check_extras(rest)
        else:
            assert program.startswith(".venv/bin/"), words
            assert Path(sys.executable).with_name(Path(program).name).exists(), words


def check_cli(words: list[str]) -> None:
    from geodistill.cli.main import app

    group = typer.main.get_command(app)
    command = group.commands[words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {"-p"} if words[0] == "run" else set()  # taken apart by hand there
    assert {word for word in words if word.startswith("-")} <= known, words
    if words[0] == "run":
        from geodistill.publish.paths import Project

        assert Project.at(REPOSITORY).find(words[1]).exists()


def check_extras(words: list[str]) -> None:
    pyproject = (REPOSITORY / "pyproject.toml").read_text()
    for extra in re.findall(r"\[(\w+)\]", " ".join(words)):
        assert re.search(rf"^{extra} = \[", pyproject, flags=re.MULTILINE), words


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_name_of_the_library_exists(document):
    for text in spans(document):
        if re.fullmatch(r"geodistill(\.\w+)+(\(.*\))?", text):
            assert pydoc.locate(text.partition("(")[0]) is not None, text
        elif re.fullmatch(r"[A-Z]\w*(Loss|Rows|Trainer|Distillation|Term)|\w+_distance", text):
            found = hasattr(geodistill, text) or any(
                hasattr(importlib.import_module(f"geodistill.{room}"), text)
                for room in ("losses", "geometry", "distill")
            )
            assert found, text


def python_blocks(document: str) -> list[str]:
    text = (REPOSITORY / document).read_text()
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


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


@pytest.mark.smoke
def test_the_page_use_it_runs(tmp_path):
    """Its blocks in order; what the trainer's block calls yours is made here."""
    _, masks, trainer, *_, layers = python_blocks("book/use_it.md")
    namespace: dict[str, object] = {}
    exec("import torch\nfrom geodistill import ProcrustesLoss\n" + masks, namespace)
    assert 0 < float(namespace["loss"]) < 2
    exec(YOURS.format(folder=tmp_path), namespace)
    before = namespace["student"].state_dict()["bert.embeddings.word_embeddings.weight"].clone()
    exec(trainer, namespace)
    after = namespace["student"].state_dict()["bert.embeddings.word_embeddings.weight"]
    assert not before.equal(after)
    exec("import matplotlib; matplotlib.use('agg')\n" + layers, namespace)
    assert list(namespace["matches"]["layer_a"]) == list(range(7))


YOURS = """
from datasets import Dataset
from test_distill_inspect import tokenizer as of_words
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

def bert(width, layers):
    return BertForSequenceClassification(BertConfig(vocab_size=50, hidden_size=width,
        num_hidden_layers=layers, num_attention_heads=2, intermediate_size=16))

teacher, student = bert(24, 6), bert(16, 3)
rows = [{{"input_ids": [1, i, i + 1, 2], "labels": i % 2}} for i in range(8)]
dataset = Dataset.from_list(rows)
training_arguments = TrainingArguments("{folder}", max_steps=2, per_device_train_batch_size=4,
    report_to=[], disable_tqdm=True, save_strategy="no", use_cpu=True)
words = [f"w{{i}}" for i in range(2, 50)]
tokenizer = of_words(words)
texts = [" ".join(words[i : i + 4]) for i in range(0, 40, 2)]
"""


@pytest.mark.smoke
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_pages_trl_trainers_and_own_data_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    _, _, trainer, sft, gkd, own, _, _, _, two, once, _ = python_blocks("book/use_it.md")
    lines = [{"prompt": f"Ask {i}", "completion": f"Say {i}"} for i in range(300)]
    Path("mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    namespace: dict[str, object] = {}
    exec(
        "import torch\nfrom geodistill import ProcrustesLoss\n" + trainer.split("\n\n")[0],
        namespace,
    )
    for block, config in ((sft, SFT_YOURS), (gkd, GKD_YOURS)):
        exec(config, namespace)
        before = {name: p.clone() for name, p in namespace["student"].named_parameters()}
        exec(block, namespace)
        after = dict(namespace["student"].named_parameters())
        assert any(not before[name].equal(after[name]) for name in before)
        (first,) = [row for row in namespace["trainer"].state.log_history if "loss" in row]
        assert first["loss"] == pytest.approx(
            first["loss/task"] + first["loss/ProcrustesLoss[-1--1]"], rel=1e-4
        )
    exec(own, namespace)
    assert str(namespace["lengths"]) in capsys.readouterr().out
    assert len(namespace["examples"]) > 200
    check_two_tokenizers(two, once, namespace)


@pytest.mark.smoke
def test_the_pages_own_instructions_are_distilled(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = []

    def student(name, tokenizer, positions):
        given.append(name)
        return tiny_opt(4, vocabulary=30, positions=positions)

    monkeypatch.setattr(instruction_setup, "load_teacher", letters_teacher)
    monkeypatch.setattr(instruction_setup, "given_student", student)
    words = ["".join(pair) for pair in product("abcdefghijklmnopqr", repeat=2)]
    lines = [{"prompt": f"{a}{b}", "completion": b} for a, b in words]
    Path("mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (block,) = [b for b in python_blocks("book/use_it.md") if "run_instruction" in b]
    assert "n_train=200, n_test=25" in block
    namespace: dict[str, object] = {}
    with own_cache(tmp_path / "cache"):
        exec(block.replace("n_test=25", "n_test=25, epochs=1.0, top_k=8"), namespace)
    kd, procrustes = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("kd")
    ]
    assert (kd[0], procrustes[0]) == ("kd", "kd+procrustes")
    assert 0 < float(kd[1]) < 20
    assert given == ["my-student"] * 2
    assert len(namespace["run"].items) == 25


@pytest.mark.smoke
def test_the_pages_own_sentences_are_distilled(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("fine good great", "bad dull poor")
    lines = [
        f"{words[i % 2]} film {i},{'good' if i % 2 == 0 else 'bad'},a{i // 2}" for i in range(200)
    ]
    Path("mine.csv").write_text("\n".join(["review,kind,author", *lines]) + "\n")
    (block,) = [b for b in python_blocks("book/use_it.md") if 'load_file("mine.csv"' in b]
    assert "n_train=200" in block
    small = block.replace("n_train=200", "n_train=60, epochs=2.0, width=32, layers=1, balance=1")
    namespace: dict[str, object] = {}
    exec(small, namespace)
    kd, procrustes = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("kd")
    ]
    assert (kd[0], procrustes[0]) == ("kd", "kd+procrustes")
    assert 0.4 <= float(kd[1]) <= 1
    assert set(namespace["run"].items["source"]) == set(namespace["data"].test["source"])
    (block,) = [b for b in python_blocks("book/use_it.md") if "layers=2" in b]
    exec(block, namespace)
    assert len(namespace["student"].bert.encoder.layer) == 2
    name, accuracy, kept = capsys.readouterr().out.splitlines()[-1].split()
    assert (name, float(accuracy) <= 1, float(kept) <= 1) == ("truncate", True, True)


def check_two_tokenizers(two, once, namespace):
    """A teacher that reads words, a student that reads bytes; the cache says the same."""
    exec(TWO_YOURS, namespace)
    exec(two, namespace)
    live = namespace["trainer"].state.log_history[0]["loss/ProcrustesLoss[-1--1]"]
    assert 0.01 < live < 2
    exec(once, namespace)
    exec(TWO_YOURS, namespace)  # the student as it was
    exec(two.replace("teacher_model=teacher", "teacher_cache=cache"), namespace)
    cached = namespace["trainer"].state.log_history[0]["loss/ProcrustesLoss[-1--1]"]
    assert cached == pytest.approx(live, abs=2e-3)


TRL_YOURS = """
from datasets import Dataset
from test_tasks_prompts import CHATML, tokenizer as of_bytes
from support.tiny_models import tiny_opt
from trl import SFTConfig
from trl.experimental.gkd import GKDConfig
student, teacher = (tiny_opt(i, width=16 * i, vocabulary=300, positions=96) for i in (1, 2))
common = dict(max_steps=1, per_device_train_batch_size=2, logging_steps=1, max_length=48,
    report_to="none", disable_tqdm=True, save_strategy="no", use_cpu=True, bf16=False)
"""
SFT_YOURS = (
    TRL_YOURS
    + """
tokenizer = of_bytes()
pairs = Dataset.from_list([{"prompt": "Ask", "completion": f" Say {i}"} for i in range(4)])
sft_config = SFTConfig("sft", **common)
"""
)
TWO_YOURS = """
from test_distill_other_tokens import of_words
from transformers import TrainingArguments
tokenizer, teacher_tokenizer = of_bytes(), of_words(["Ask", "Say"])
student, teacher = (tiny_opt(i, width=16 * i, vocabulary=300, positions=96) for i in (1, 2))
training_arguments = TrainingArguments("two", max_steps=1, per_device_train_batch_size=16,
    logging_steps=1, report_to="none", disable_tqdm=True, save_strategy="no", use_cpu=True)
"""
GKD_YOURS = (
    TRL_YOURS
    + """
tokenizer = of_bytes(CHATML)
chats = Dataset.from_list([{"messages": [{"role": "user", "content": "Ask"},
    {"role": "assistant", "content": f"Say {i}"}]} for i in range(4)])
gkd_config = GKDConfig("gkd", lmbda=1.0, max_new_tokens=8, **common)
"""
)


def test_every_citation_is_in_the_bibliography():
    keys = set(re.findall(r"^@\w+\{(\w+),", (REPOSITORY / "book/references.bib").read_text(), re.M))
    sources = [*DOCUMENTS, *(REPOSITORY / "notebooks").glob("*.py")]
    cited = {
        key.strip()
        for source in sources
        for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", source.read_text())
        for key in group.split(",")
    }
    assert cited <= keys
    assert len(cited) > 10


def test_citation_file_agrees_with_the_package():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == geodistill.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["references"][0]["url"].endswith("2509.25253")


def test_constraints_hold_the_installed_versions_without_local_suffix():
    from importlib.metadata import version

    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert "torch" in pins
    assert not any("+" in pin for pin in pins.values())
    for package in ("jupyter-book", "papermill", "sphinx", "myst-nb", "numpy", "transformers"):
        (pin,) = [pins[key] for key in pins if key.lower() == package]
        assert version(package) == pin


def test_binder_gets_the_cpu_build_of_torch():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert any(package.startswith("pytorch-cpu") for package in conda)
    assert pip == {"pip": ["-e .[book]"]}  # torch is there already, so pip brings no other

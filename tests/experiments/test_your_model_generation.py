"""Your own model that answers prompts: checked first, tuned alike, answered, and loadable."""

import json
import random
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from support.own_cache import own_cache
from support.tiny_models import tiny_opt
from support.tiny_tokenizers import CHATML, byte_tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel

from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.experiments.your_model import YourModelSettings, distill_your_model, text_generation

pytestmark = pytest.mark.smoke
PROMPT, VOCABULARY, POSITIONS = "last of {}", 258, 40


def save_model(folder, seed=0, **config):
    """A language model of bytes, with its tokenizer."""
    options = {"width": 32, "layers": 3, "vocabulary": VOCABULARY, "positions": POSITIONS}
    model = tiny_opt(seed, **options | config)
    tokenizer = byte_tokenizer()
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """What the teacher gives is cached for this module alone."""
    with own_cache(tmp_path_factory.mktemp("user") / "cache"):
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Words with their last letters, and a teacher that has learned to give them."""
    folder, draw = tmp_path_factory.mktemp("home"), random.Random(0)
    words = ["".join(draw.choices("abc", k=draw.randint(3, 6))) for _ in range(240)]
    pairs = [{"prompt": PROMPT.format(word), "completion": word[-1]} for word in words]
    (folder / "mine.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    teacher, tokenizer = save_model(folder / "teacher"), byte_tokenizer()
    save_model(folder / "untrained", seed=1, layers=2)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    texts = [f"{p['prompt']}\n{p['completion']}</s>" for p in pairs]
    batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -2:] = batch["input_ids"][:, -2:]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    for _ in range(60):
        optimizer.zero_grad()
        teacher(**inputs, labels=labels).loss.backward()
        optimizer.step()
    teacher.save_pretrained(folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def settings(home):
    return YourModelSettings(
        task="text-generation", data=str(home / "mine.jsonl"), teacher=str(home / "teacher"),
        student=str(home / "untrained"), seeds=2, learning_rates=(3e-3, 1e-2), epochs=3,
        batch_size=16, max_length=24, max_new_tokens=4, out=str(home / "student"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def distilled(settings):
    """The answer and the plan."""
    plans = []
    answer = distill_your_model(settings, lambda line: None, plans.append)
    return answer, plans[0].set_index("what")


def stored(settings, name):
    (path,) = settings.runs_folder.glob(f"*/{name}.parquet")
    return read_stored(path)


def test_the_student_in_the_folder_answers_as_its_run_did(distilled, settings, home):
    """By a plain call of `generate` on each prompt alone."""
    answer, _ = distilled
    model = AutoModelForCausalLM.from_pretrained(answer.folder)
    tokenizer = AutoTokenizer.from_pretrained(answer.folder)
    items = stored(settings, "test/items")
    run = items[(items["method"] == answer.arm) & (items["seed"] == 0)]
    lines = (home / "mine.jsonl").read_text().splitlines()
    assert model.config.num_hidden_layers == 2
    assert len(run) > 10
    for row in run.itertuples():
        pair = json.loads(lines[int(row.item.split("/")[1]) - 1])
        ids = tokenizer(pair["prompt"] + "\n", return_tensors="pt")["input_ids"]
        out = model.generate(ids, max_new_tokens=4, do_sample=False)
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert text == row.answer
        assert row.rougeL == float(text.strip() == pair["completion"])  # answers of one word


@pytest.fixture
def another(home, settings, tmp_path):
    """Settings with a folder of their own for the teacher, whose tokenizer a function changes."""

    def make(change, lines=()):
        shutil.copytree(home / "teacher", tmp_path / "teacher")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "teacher")
        change(tokenizer)
        tokenizer.save_pretrained(tmp_path / "teacher")
        text = (home / "mine.jsonl").read_text().splitlines()
        (tmp_path / "mine.jsonl").write_text("\n".join([*lines, *text[len(lines) :]]))
        own = {"teacher": str(tmp_path / "teacher"), "data": str(tmp_path / "mine.jsonl")}
        return replace(settings, student="first", layers=1, **own)

    return make


def prepared(settings, folder):
    task = text_generation.TextGeneration()
    inputs = task.read(settings)
    return task, inputs, task.prepare(inputs, "test", folder, lambda line: None)


def test_prompts_are_those_of_the_saved_tokenizer(another, tmp_path):
    """Which may begin a text by a token of its own."""

    def begin(tokenizer):
        tokenizer.bos_token = "a"
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="a $A", special_tokens=[("a", tokenizer.bos_token_id)]
        )

    task, inputs, setup = prepared(another(begin), tmp_path)
    task.save_rest(tmp_path / "saved", inputs, setup)
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    prompts = {row["item"]: row["prompt"] for row in inputs.data.test}
    for example in setup.test:
        assert example["prompt_ids"] == saved(prompts[example["item"]] + "\n")["input_ids"]
        assert example["prompt_ids"][0] == saved.bos_token_id


CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"}]}


@pytest.mark.parametrize(
    ("n_chats", "expected"),
    [
        (0, " A line break follows the prompt, then the answer."),
        (240, " Prompts are chats and went through the chat template."),
        (120, "went through the chat template; a line break follows the others, then the answer."),
    ],
)
def test_the_card_says_how_these_prompts_are_given(another, tmp_path, n_chats, expected):
    chats = [json.dumps(CHAT).replace("hi", f"h{i}") for i in range(n_chats)]

    def chat(tokenizer):
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"

    task, settings = text_generation.TextGeneration(), another(chat, chats)
    inputs = task.read(settings)
    setup = SimpleNamespace(tokenizer=AutoTokenizer.from_pretrained(settings.teacher))
    assert task.save_rest(tmp_path / "saved", inputs, setup).endswith(expected)


def test_a_teacher_that_was_trained_further_gives_its_own_outputs(another, tmp_path):
    settings = another(lambda tokenizer: None)
    _, _, before = prepared(settings, tmp_path)
    save_model(tmp_path / "teacher", seed=3)
    _, _, after = prepared(settings, tmp_path)
    assert [e["input_ids"] for e in after.train] == [e["input_ids"] for e in before.train]
    assert before.train_cache.folder != after.train_cache.folder
    example = after.train[0]
    with torch.no_grad():
        logits = after.teacher(torch.tensor([example["input_ids"]])).logits[0]
    position = example["labels"].index(example["input_ids"][len(example["prompt_ids"])]) - 1
    expected = logits[position].log_softmax(-1).max()
    stored_value = after.train_cache.array("top_values")[0].max()
    assert float(stored_value) == pytest.approx(float(expected), abs=0.01)


def test_levels_and_sentence_are_those_of_the_runs(distilled):
    answer, _ = distilled
    assert answer.metric == "rougeL"
    means = 100 * answer.runs.groupby("method")["rougeL"].mean()
    shown = answer.levels.set_index("student")["mean (points)"].astype(float)
    assert list(shown.index) == ["lookup", "nearest", "KD", "KD + Procrustes", "teacher"]
    assert shown["KD + Procrustes"] == pytest.approx(means["kd+procrustes"], abs=0.05)
    difference = means["kd+procrustes"] - means["kd"]
    assert f"kd+procrustes vs kd: {difference:+.1f} points (interval" in answer.sentence
    assert means["teacher"] > means["lookup"] > 0
    card = (answer.folder / "README.md").read_text()
    assert "pipeline_tag: text-generation" in card
    assert "A line break follows the prompt, then the answer." in card


def test_the_plan_is_what_is_trained(distilled, settings):
    answer, plan = distilled
    taken, odd = plan["taken"], plan["odd"]
    rows = stored(settings, "test/rows")
    config = json.loads(rows.loc[rows["method"] == "kd", "config"].iloc[0])
    n_train = config["n_train"]
    steps = 3 * int(np.ceil(n_train / 16))
    assert f"{n_train} pairs to train" in taken["data"]
    assert f"8 runs of {steps} steps of 16 texts" in taken["arms"]
    assert f"- Steps: {steps}\n" in (answer.folder / "README.md").read_text()
    assert "about 32, one per answer token, 32 wide" in taken["rows of a batch"]  # and its end
    assert "few pairs for validation" in odd["data"]
    assert "nats per answer token" in taken["teacher"]
    assert odd["teacher"] == ""


def test_the_term_is_weighted_by_the_ratio_of_gradient_norms(settings):
    configs = stored(settings, "test/rows")["config"].map(json.loads)
    assert {config["weight_warmup_batches"] for config in configs} == {9}


def test_too_long_pairs_are_counted_and_left_out(settings, tmp_path, monkeypatch):
    long = {"prompt": PROMPT.format("a" * 30), "completion": "a"}
    lines = [json.dumps(long)] * 3
    (tmp_path / "mine.jsonl").write_text(
        "\n".join([*lines, (settings.runs_folder.parent / "mine.jsonl").read_text()])
    )
    task = text_generation.TextGeneration()
    inputs = task.read(replace(settings, data=str(tmp_path / "mine.jsonl")))
    assert inputs.n_long == 3
    assert sum(inputs.sizes.values()) == 240
    few = task.read(replace(settings, max_rows=9))
    assert few.sizes == {"train": 9, "validation": min(9, inputs.sizes["validation"]), "test": 9}


def bad(changes, message):
    return pytest.param(changes, message, id=str(changes)[:40])


@pytest.fixture(scope="module")
def bad_home(home):
    """The folder with models and files that can't be used."""
    BertModel(
        BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(home / "encoder")
    byte_tokenizer().save_pretrained(home / "encoder")
    save_model(home / "short", positions=16)
    save_model(home / "small", vocabulary=99)
    save_model(home / "padded", vocabulary=VOCABULARY + 6)
    save_model(home / "other")
    byte_tokenizer(CHATML).save_pretrained(home / "other")
    vocabulary = json.loads((home / "other" / "tokenizer.json").read_text())
    vocabulary["model"]["vocab"]["ab"] = 256
    (home / "other" / "tokenizer.json").write_text(json.dumps(vocabulary))
    (home / "few.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    (home / "torn.jsonl").write_text("{")
    return home


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        bad({"arms": ("kd", "ce")}, "method is 'ce'; expected one of sft, seqkd, kd"),
        bad({"max_new_tokens": 0}, "max_new_tokens is 0; expected 1 or more"),
        bad({"data": "product"}, "unknown instruction set 'product'; known: "),
        bad({"data": "computed-wordings"}, "which has no train split: expected a .csv, .jsonl"),
        bad({"data": "no.jsonl"}, "no.jsonl"),
        bad({"data": "few.jsonl"}, "1 pairs are too few"),
        bad({"data": "torn.jsonl"}, "torn.jsonl, line 1"),
        bad({"max_length": 6}, "none of them with at most 6 tokens; expected a larger max_length"),
        bad({"max_length": 99}, "takes 40 tokens, and max_length . max_new_tokens is 103"),
        bad({"teacher": "nowhere"}, "teacher is .*expected smollm2, opt-computed, or a folder"),
        bad({"teacher": "encoder"}, "is a BertModel; expected smollm2"),
        bad({"teacher": "small"}, "tokenizer of 258 tokens with the end token .*takes 99"),
        bad({"student": "uniform"}, "student is 'uniform'; for text generation expected 'first'"),
        bad({"student": "nowhere"}, "student is .*expected a folder or hub name of a causal"),
        bad({"student": "padded"}, "264 logits, the teacher 258, .+ resize_token_embeddings.258"),
        bad({"student": "short"}, "takes 16 tokens; expected at least 28"),
        bad({"layers": 9, "student": "first"}, "layers is 9; expected 1 to 3, the teacher's"),
        bad({"text": "question"}, "text is 'question'; expected 'text', the default: for text"),
        bad({"label": "answer"}, "label is 'answer'; expected 'label', the default: for text gen"),
        bad({"group": "topic"}, "group is 'topic'; expected '', the default: for text generation"),
        bad({"teacher_layer": 1}, "teacher_layer is 1 and student_layer -1; expected -1 for both"),
    ],
)  # fmt: skip
def test_what_cannot_be_distilled_is_refused_before_any_training(
    bad_home, settings, changes, message, monkeypatch
):
    monkeypatch.setattr(text_generation, "prepare_instruction", lambda *args: pytest.fail("work"))
    own = {
        "nowhere",
        "encoder",
        "small",
        "padded",
        "short",
        "other",
        "no.jsonl",
        "few.jsonl",
        "torn.jsonl",
    }
    values = {name: str(bad_home / x) if x in own else x for name, x in changes.items()}
    values = {"out": str(bad_home / "new"), **values}
    with pytest.raises(InputError, match=message):
        distill_your_model(replace(settings, **values), lambda line: None, lambda plan: None)
    assert not (bad_home / "new").exists()
    assert not (bad_home / "new-runs").exists()


def test_a_finished_distillation_trains_nothing(distilled, settings, monkeypatch):
    monkeypatch.setattr(text_generation, "run_instruction", lambda *args: pytest.fail("a run"))
    again = distill_your_model(settings, lambda line: None, lambda plan: None)
    assert again.sentence == distilled[0].sentence
    pd.testing.assert_frame_equal(again.levels, distilled[0].levels)

"""A teacher with another tokenizer: it reads its own tokens, losses compare one row per text."""

import random

import pandas as pd
import pytest
import torch
from support import tiny_models
from support.tiny_models import logged, moved, procrustes, tiny_bert, tiny_opt, weights
from support.tiny_tokenizers import CHATML
from support.tiny_tokenizers import byte_tokenizer as of_bytes
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from geodistill.distill import (
    FeatureDistillation,
    FeatureDistillationTrainer,
    FeatureTerm,
    batches_by_length,
    build_cache,
    count_valid_tokens,
    pad,
    teacher_inputs,
)
from geodistill.distill.feature_term import loss_mask
from geodistill.errors import InputError
from geodistill.losses import KLDivergenceLoss, ProcrustesLoss, ShuffledRows
from geodistill.tasks.prompts import encode_pair, encode_pairs, encode_texts

WORDS = [f"w{i}" for i in range(40)]
STUDENTS, TEACHERS = 300, 60  # sizes of the two vocabularies, padded as real ones are
NAME = "loss/ProcrustesLoss[-1--1]"


def of_words(order=WORDS):
    """Words are tokens; every text begins with [CLS] where special tokens are wanted."""
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "</s>", *order])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    core.post_processor = TemplateProcessing("[CLS] $A", "[CLS] $A $B", [("[CLS]", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", eos_token="</s>"
    )


def row(prompt, completion, **more):
    pair = {"prompt": prompt, "completion": completion}
    return {"item": "a/1", "source": "a/1", **pair, "turns": [], **more}


def pairs(count=6, seed=0):
    """Questions and answers of several words; no two rows have one length in both tokenizers."""
    draw = random.Random(seed)

    def words(n):
        return " ".join(draw.choices(WORDS, k=n))

    return [row(words(1 + i % 3), words(1 + i % 4), item=f"p/{i}") for i in range(count)]


def examples(count=6, **limits):
    given = {"max_length": 48, "max_prompt_length": 24, **limits}
    made, _ = encode_pairs(pairs(count), of_bytes(), teacher_tokenizer=of_words(), **given)
    return made


EXAMPLES = examples()
TEXTS, _ = encode_texts(
    [p["prompt"] + " " + p["completion"] for p in pairs()],
    of_bytes(), labels=[0, 1, 2, 0, 1, 2], max_length=30, teacher_tokenizer=of_words(),
)  # fmt: skip
LANGUAGE = pytest.param(
    lambda: tiny_opt(1, vocabulary=STUDENTS, positions=64),
    lambda: tiny_opt(2, width=48, vocabulary=TEACHERS), EXAMPLES, id="opt",
)  # fmt: skip
CLASSES = pytest.param(
    lambda: tiny_bert(1, vocabulary=STUDENTS),
    lambda: tiny_bert(2, width=48, vocabulary=TEACHERS), TEXTS, id="bert",
)  # fmt: skip
BOTH = pytest.mark.parametrize(("student", "teacher", "data"), [LANGUAGE, CLASSES])


KNOWN = {"teacher_tokenizer": of_words(), "processing_class": of_bytes()}
LONE = [{k: v for k, v in e.items() if "teacher" not in k} for e in EXAMPLES]


def language_models():
    """A student and its teacher."""
    return [make() for make in LANGUAGE.values[:2]]


def term(pooling="mean", loss=None, weight=2.0):
    return FeatureTerm(-1, -1, loss or ProcrustesLoss(), weight=weight, pooling=pooling)


def collate(batch):
    """Pad ids of their own on both sides: 7 and 9 are real tokens, so that masks must do it."""
    return pad(batch, 7, teacher_pad_id=9)


def distiller(folder, student, data, teacher=None, terms=None, **settings):
    given = {"num_train_epochs": 1, "per_device_train_batch_size": 6, "data_collator": collate}
    given |= {"teacher_model": teacher, "terms": [term()] if terms is None else terms}
    return tiny_models.distiller(folder, student, data, **{**given, **settings})


def pooled(features, mask, pooling):
    """One row per example, by plain indexing of its valid positions."""
    valid = features[mask.nonzero()[:, 0]]
    return {"mean": valid.mean(0), "first": valid[0], "last": valid[-1]}[pooling]


def by_hand(model, data, pooling):
    """Features of each example alone, unpadded: (examples, d)."""
    found = []
    for example in data:
        batch = pad([example], 0)
        out = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            output_hidden_states=True,
        )
        found.append(pooled(out.hidden_states[-1][0], loss_mask(batch)[0], pooling))
    return torch.stack(found)


# ---- what is compared ----


@BOTH
@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_each_side_reads_its_own_tokens_and_padding_does_not_matter(
    tmp_path, student, teacher, data, pooling
):
    """Against each text by itself, unpadded, through each model with its own tokens."""
    one, other = student(), teacher()
    with torch.no_grad():
        own = [teacher_inputs(e) for e in data]
        expected = procrustes(
            by_hand(one.eval(), data, pooling), by_hand(other.eval(), own, pooling)
        )
    trainer = distiller(tmp_path, one, data, other, [term(pooling)])
    trainer.train()
    (found,) = logged(trainer, NAME)
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert found > 0.05


@BOTH
def test_the_student_learns_and_the_teacher_stays(tmp_path, student, teacher, data):
    one, other = student(), teacher()
    before = weights(other)
    trainer = distiller(tmp_path, one, data, other, num_train_epochs=8)
    trainer.task_weight = 0.0  # the term alone
    trainer.train()
    losses = logged(trainer, NAME)
    assert losses[-1] < losses[0] - 0.01
    assert moved(before, weights(other)) == 0
    assert all(p.grad is None for p in other.parameters())
    assert moved(weights(student()), weights(one)) > 1e-3


@BOTH
def test_another_text_for_the_teacher_is_another_loss(tmp_path, student, teacher, data):
    changed = [dict(e) for e in data]
    ids = list(changed[2]["teacher_input_ids"])
    ids[-1] = ids[-1] + 1 if ids[-1] < 20 else ids[-1] - 1
    ids[0] = ids[0] + 1
    changed[2]["teacher_input_ids"] = ids
    values = []
    for given in (data, changed):
        trainer = distiller(tmp_path, student(), given, teacher(), learning_rate=0.0)
        trainer.train()
        values.append((logged(trainer, NAME)[0], logged(trainer, "loss/task")[0]))
    assert abs(values[0][0] - values[1][0]) > 1e-3
    assert values[0][1] == pytest.approx(values[1][1], rel=1e-6)  # the student read the same


@BOTH
@pytest.mark.parametrize("ids", [True, False])
def test_a_cached_teacher_teaches_like_a_live_one(tmp_path, student, teacher, data, ids):
    """Whether the examples still have the teacher's tokens or not."""
    own = [teacher_inputs(e) for e in data]
    cache = build_cache(
        teacher(),
        batches_by_length(own, 2, 0),
        count_valid_tokens(own),
        tmp_path / "cache",
        layers=(-1,),
    )
    lean = [{k: v for k, v in e.items() if ids or "teacher" not in k} for e in data]
    settings = {"per_device_train_batch_size": 3, "num_train_epochs": 3}
    terms = [term("mean"), term("last", ShuffledRows(ProcrustesLoss(), seed=1))]
    live = distiller(tmp_path, student(), data, teacher(), terms, **settings)
    cached = distiller(
        tmp_path, student(), lean, None, terms, teacher_cache=cache, **settings, **KNOWN
    )
    terms[1].loss.calls.zero_()
    live.train()
    terms[1].loss.calls.zero_()
    cached.train()
    for name in ("loss", NAME, "loss/ShuffledRows[-1--1]"):
        path = logged(live, name)
        assert len(path) == 6
        assert max(path) - min(path) > 1e-3
        assert logged(cached, name) == pytest.approx(path, abs=2e-3, rel=2e-3), name


def test_classifiers_share_logits_whatever_their_tokens(tmp_path):
    """A class is a class: logit distillation stays, of the teacher's reading of its own tokens."""
    student, teacher = (p() for p in CLASSES.values[:2])
    with torch.no_grad():
        batch = pad(TEXTS, 0)
        own = pad([teacher_inputs(e) for e in TEXTS], 0)
        target = teacher.eval()(**own).logits.log_softmax(-1)
        mine = student.eval()(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits.log_softmax(-1)
        expected = (target.exp() * (target - mine)).sum(-1).mean()
    trainer = distiller(tmp_path, student, TEXTS, teacher, [], logit_loss=KLDivergenceLoss())
    trainer.train()
    assert logged(trainer, "loss/logit") == [pytest.approx(float(expected), rel=1e-4)]
    assert expected > 0.05


def test_evaluation_is_the_trainers_own(tmp_path):
    student, teacher = language_models()
    trainer = distiller(tmp_path, student, EXAMPLES, teacher, per_device_eval_batch_size=6)
    trainer.eval_dataset = EXAMPLES
    batch = pad(EXAMPLES, 0)
    given = {k: batch[k] for k in ("input_ids", "attention_mask", "labels")}
    expected = float(student.eval()(**given).loss.detach())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-4)


def test_columns_that_no_model_takes_are_kept_for_the_teacher(tmp_path):
    from datasets import Dataset

    student, teacher = language_models()
    trainer = distiller(
        tmp_path, student, Dataset.from_list(EXAMPLES), teacher, remove_unused_columns=True
    )
    trainer.train()
    again = distiller(tmp_path, LANGUAGE.values[0](), EXAMPLES, teacher)
    again.train()
    assert logged(trainer, NAME) == [pytest.approx(logged(again, NAME)[0], rel=1e-5)]


# ---- what is refused, before a weight moves ----


def test_losses_that_compare_tokens_are_refused_with_both_tokenizers(tmp_path):
    student, teacher = language_models()
    words = (
        r"processing_class \(.*, 258 tokens\) and teacher_tokenizer \(.*, 44 tokens\) differ: "
        r"'.+' is token \d+ and none"
    )
    with pytest.raises(InputError, match=f"logit_loss compares token with token, but {words}"):
        distiller(tmp_path, student, EXAMPLES, teacher, [], logit_loss=KLDivergenceLoss(), **KNOWN)
    with pytest.raises(InputError, match=rf"pooling='all', one row per .*{words}.*pooling='mean'"):
        distiller(tmp_path, student, EXAMPLES, teacher, [term("all")], **KNOWN)


def test_vocabularies_of_one_size_and_other_words_are_refused(tmp_path):
    """Sizes tell nothing here: the same words under other numbers."""
    swapped = [WORDS[1], WORDS[0], *WORDS[2:]]
    student, teacher = tiny_opt(1, vocabulary=TEACHERS), tiny_opt(2, vocabulary=TEACHERS)
    data = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}]
    known = {"processing_class": of_words(), "logit_loss": KLDivergenceLoss()}
    with pytest.raises(InputError, match=r"differ: 'w0' is token 4 and 5.*leave logit_loss out"):
        distiller(
            tmp_path, student, data, teacher, [], teacher_tokenizer=of_words(swapped), **known
        )
    same = distiller(tmp_path, student, data, teacher, [], teacher_tokenizer=of_words(), **known)
    same.train()
    assert logged(same, "loss/logit")[0] > 0.01


@pytest.mark.parametrize("late", [False, True])
def test_examples_with_two_readings_refuse_token_losses_without_any_tokenizer(tmp_path, late):
    """Early from the examples; where a collator adds the tokens, at its first batch."""
    student, teacher = language_models()

    class Hidden(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(EXAMPLES)

    data = Hidden() if late else EXAMPLES
    known = {"processing_class": of_bytes(), "teacher_tokenizer": of_bytes(), "max_steps": 1}
    with pytest.raises(InputError, match=r"pooling='all'.* ha(ve|s) teacher_input_ids"):
        distiller(tmp_path, student, data, teacher, [term("all")], **known).train()
    assert moved(weights(student), weights(LANGUAGE.values[0]())) == 0


def test_sizes_that_differ_ask_for_the_tokenizers(tmp_path):
    student, teacher = language_models()
    with pytest.raises(
        InputError, match=r"embeds 60 tokens, the student 300.*teacher_tokenizer and processing_cl"
    ):
        distiller(tmp_path, student, LONE, teacher)
    with pytest.raises(InputError, match=r"teacher has 60 logits, the student 300 \(OPTFor"):
        distiller(tmp_path, student, LONE, teacher, [], logit_loss=KLDivergenceLoss())
    padded = tiny_opt(2, vocabulary=STUDENTS + 20, positions=64)  # one tokenizer, padded heads
    both = {"teacher_tokenizer": of_bytes(), "processing_class": of_bytes()}
    trainer = distiller(tmp_path, student, LONE, padded, [term("all")], **both)
    trainer.train()
    assert logged(trainer, NAME)[0] > 0.05


def test_a_tokenizer_alone_and_examples_without_the_teachers_tokens(tmp_path):
    student, teacher = language_models()
    with pytest.raises(InputError, match="teacher_tokenizer is given and processing_class is not"):
        distiller(tmp_path, student, EXAMPLES, teacher, teacher_tokenizer=of_words())
    trainer = distiller(tmp_path, student, LONE, teacher, **KNOWN)
    with pytest.raises(InputError, match=r"batch has no teacher_input_ids, but processing_class"):
        trainer.train()
    assert moved(weights(student), weights(LANGUAGE.values[0]())) == 0


def test_a_trainer_that_runs_the_teacher_itself_is_refused(tmp_path):
    """As TRL's GKDTrainer does: it knows the student's tokens only."""

    class RunsTeacher(FeatureDistillationTrainer.__mro__[2]):
        def __init__(self, *args, teacher_model=None, **kwargs):
            super().__init__(*args, **kwargs)
            self.teacher_model = teacher_model

    class Over(FeatureDistillation, RunsTeacher):
        pass

    student, teacher = language_models()
    with pytest.raises(InputError, match="trainer below Over runs the teacher on the student's"):
        distiller(tmp_path, student, EXAMPLES, teacher, kind=Over)


def test_a_cache_of_another_vocabulary_or_of_features_alone_has_no_logits_to_give(tmp_path):
    data = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "row": 0}]
    made = {
        top: build_cache(
            tiny_opt(2, vocabulary=TEACHERS),
            batches_by_length(data, 1, 0),
            [2],
            tmp_path / str(top),
            layers=(-1,),
            top_k=top,
        )
        for top in (0, 5)
    }
    student = tiny_opt(1)
    for top, words in ((5, "teacher has 60 logits, the student 100"), (0, "holds features only")):
        with pytest.raises(InputError, match=words):
            distiller(
                tmp_path, student, data, terms=[], teacher_cache=made[top],
                logit_loss=KLDivergenceLoss(),
            )  # fmt: skip


# ---- the helpers that make such examples ----


def test_pairs_are_the_same_text_in_both_tokenizers():
    made = examples()
    for given, example in zip(pairs(), made, strict=True):
        alone = encode_pair(given, of_words())
        assert example["teacher_input_ids"] == alone["input_ids"]
        assert example["teacher_labels"] == alone["labels"]
        assert example["input_ids"] == encode_pair(given, of_bytes())["input_ids"]
        assert len(example["teacher_input_ids"]) < len(example["input_ids"])
    assert (
        "teacher_input_ids"
        not in encode_pairs(pairs(), of_bytes(), max_length=48, max_prompt_length=24)[0][0]
    )


def test_limits_hold_for_both_tokenizers():
    """Bytes are longer than words: what they can't hold goes, whichever side they are."""
    limits = {"max_length": 16, "max_prompt_length": 9}
    short = [p for p in pairs() if len(p["prompt"]) + 1 <= 9]
    cut = [p for p in short if len(p["prompt"]) + 1 + len(p["completion"]) + 1 > 16]
    assert 0 < len(cut) < len(short) < len(pairs())
    for tokenizers in ((of_bytes(), of_words()), (of_words(), of_bytes())):
        made, lengths = encode_pairs(
            pairs(), tokenizers[0], teacher_tokenizer=tokenizers[1], **limits
        )
        assert (lengths.n_dropped, lengths.n_truncated) == (len(pairs()) - len(short), len(cut))
        sizes = [len(e[name]) for e in made for name in ("input_ids", "teacher_input_ids")]
        assert max(sizes) == 16


def test_chats_go_through_each_ones_own_template():
    turns = [{"role": "user", "content": "w1 w2"}]
    chat = row(prompt="w1 w2", completion="w3", turns=turns)
    (example,), _ = encode_pairs(
        [chat], of_bytes(), max_length=90, max_prompt_length=80, teacher_tokenizer=of_bytes(CHATML)
    )
    assert len(example["teacher_input_ids"]) > len(example["input_ids"])
    assert example["teacher_input_ids"] == encode_pair(chat, of_bytes(CHATML))["input_ids"]


def test_texts_and_pairs_of_texts_with_special_tokens_and_labels():
    made, cut = encode_texts(
        ["w0 w1", ("w2", "w3 w4 w5")], of_words(), labels=[1, 0], max_length=4,
        teacher_tokenizer=of_bytes(),
    )  # fmt: skip
    assert made[0]["input_ids"] == [2, 4, 5]  # [CLS] w0 w1
    assert made[1]["input_ids"][0] == 2
    assert [e["labels"] for e in made] == [1, 0]
    assert [e["row"] for e in made] == [0, 1]
    assert [len(e["teacher_input_ids"]) for e in made] == [4, 4]
    assert cut == 2
    assert encode_texts(["w0 w1"], of_words(), max_length=9)[1] == 0
    for texts, labels, words in (
        (["w0", " "], None, "number 1 is ' ', expected a text or a pair"),
        (["w0", None], None, "number 1 is None, expected a text or a pair"),
        ([("w0", "w1", "w2")], None, r"number 0 is \('w0', 'w1', 'w2'\), expected a text or"),
        (["w0"], [1, 2], "labels has 2 entries for 1 texts"),
        ("w0", None, "texts is 'w0': expected a list"),
        ([], None, r"texts is \[\]: expected a list"),
    ):
        with pytest.raises(InputError, match=words):
            encode_texts(texts, of_words(), max_length=9, labels=labels)


def test_labels_of_a_series_are_those_of_the_texts_beside_them():
    table = pd.DataFrame({"text": [f"w{i}" for i in range(6)], "label": range(6)})
    shuffled = table.sample(frac=1, random_state=1)[:4]  # neither sorted nor from 0
    made, _ = encode_texts(shuffled["text"], of_words(), max_length=9, labels=shuffled["label"])
    alone, _ = encode_texts(table["text"], of_words(), max_length=9)
    of_text = {tuple(e["input_ids"]): index for index, e in enumerate(alone)}
    assert [e["labels"] for e in made] == [of_text[tuple(e["input_ids"])] for e in made]


def test_an_answer_needs_an_end_token():
    tokenizer = of_words()
    tokenizer.eos_token = None
    row = {"item": "a", "source": "a", "prompt": "w0", "completion": "w1"}
    with pytest.raises(InputError, match="tokenizer has no end token, which each answer needs"):
        encode_pair(row, tokenizer)
    chats = of_bytes(CHATML)  # whose template writes the end
    chat = {**row, "turns": [{"role": "user", "content": "w0"}]}
    example = encode_pair(chat, chats)
    chats.eos_token = None
    assert encode_pair(chat, chats) == example


def test_valid_tokens_are_counted_as_the_masks_do():
    for data in (EXAMPLES, TEXTS, [teacher_inputs(e) for e in EXAMPLES]):
        batch = pad([{k: e[k] for k in ("input_ids", "labels") if k in e} for e in data], 0)
        assert count_valid_tokens(data) == loss_mask(batch).sum(1).tolist()
        assert min(count_valid_tokens(data)) > 0

"""The teacher's stored outputs: what is stored, found again, refused; what a kill leaves."""

import errno
import json
import shutil
import signal
import subprocess
import sys
import warnings
from collections import namedtuple
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from support.model_matrix import _SPEECH, CASES, SPEECH, bert, made, stacked
from support.tiny_models import (
    answers,
    arguments,
    collate,
    distiller,
    moved,
    sentences,
    tiny_bert,
    tiny_opt,
    weights,
    without,
)
from transformers import BertForTokenClassification

from geodistill.distill import FeatureDistillationTrainer, TeacherCache, build_cache
from geodistill.distill.collate import batches_by_length, count_valid_tokens, pad
from geodistill.distill.feature_term import loss_mask
from geodistill.distill.teacher_cache import cache_key
from geodistill.distill.teacher_outputs import TeacherOutputs, topk_with_tail
from geodistill.errors import InputError
from geodistill.files import no_progress
from geodistill.losses import KLDivergenceLoss

SENTENCES = sentences([6, 3, 5, 4, 6], seed=1)
LENGTHS = [len(row["input_ids"]) for row in SENTENCES]
ANSWERS = answers([8, 7, 8, 6], kept=[3, 1, 5, 2], seed=1)
KEPT = [3, 1, 5, 2]
FRAMES = [((400 - 90 * i - 8) // 4 + 1 - 8) // 4 + 1 for i in range(4)]  # of SPEECH


def classifier_cache(folder, data=SENTENCES, counts=LENGTHS, *, teacher=None, **settings):
    given = {"layers": (1, -1), "progress": no_progress, **settings}
    batches = batches_by_length(data, 2, 0)
    return build_cache(teacher or tiny_bert(2), batches, counts, folder, **given)


def language_cache(folder, data=ANSWERS, *, teacher=None, **settings):
    given = {"layers": (-1,), **settings}
    return build_cache(teacher or tiny_opt(2), batches_by_length(data, 2, 0), KEPT, folder, **given)


@torch.no_grad()
def test_a_classifiers_outputs_are_found_again_in_any_order_and_padding(tmp_path):
    cache = classifier_cache(tmp_path / "c")
    assert len(cache) == 5
    batch = collate([SENTENCES[i] for i in (4, 1, 2)])
    mask = batch["attention_mask"].bool()
    out = tiny_bert(2).eval()(**without(batch, "row", "labels"), output_hidden_states=True)
    found = cache.lookup(batch["row"], mask, [1, 2])
    assert torch.allclose(found.logits, out.logits, atol=1e-5)
    assert set(found.features) == {1, 2}
    for layer, features in found.features.items():
        expected = out.hidden_states[layer]
        assert features.shape == expected.shape
        assert torch.allclose(features[mask], expected[mask], rtol=1e-3, atol=1e-3)
        assert (features[~mask] == 0).all()
        assert expected[mask].abs().max() > 0.5


@torch.no_grad()
def test_a_language_models_outputs_are_its_answers_positions(tmp_path):
    cache = language_cache(tmp_path / "c", top_k=7)
    batch = collate([ANSWERS[i] for i in (2, 0)])
    mask = loss_mask(batch)
    out = tiny_opt(2).eval()(**without(batch, "row", "labels"), output_hidden_states=True)
    found = cache.lookup(batch["row"], mask, [2])
    assert found.logits is None
    values, indices = found.top
    expected = out.logits[mask].log_softmax(-1).topk(7)
    assert values.shape == (8, 7)
    assert torch.allclose(values, expected.values, atol=1e-5)
    assert torch.equal(indices, expected.indices)
    assert torch.allclose(found.features[2][mask], out.hidden_states[2][mask], atol=1e-3)


def test_a_finished_cache_is_opened_not_built(tmp_path):
    first = classifier_cache(tmp_path / "c")
    stamp = (tmp_path / "c" / "logits.npy").stat().st_mtime_ns
    again = classifier_cache(tmp_path / "c", layers=(-1,))
    assert np.array_equal(first.array("logits"), again.array("logits"))
    assert (tmp_path / "c" / "logits.npy").stat().st_mtime_ns == stamp


def test_progress_is_reported_in_examples(tmp_path):
    seen = []
    classifier_cache(tmp_path / "c", on_batch=lambda *state: seen.append(state))
    assert seen == [(2, 5), (4, 5), (5, 5)]


# ---- kills ----

BUILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from support.tiny_models import sentences, tiny_bert
from geodistill.distill import batches_by_length, build_cache
from geodistill.files import no_progress

EXAMPLES = sentences([6, 3, 5, 4, 6], seed=1)

def batches():
    for i, batch in enumerate(batches_by_length(EXAMPLES, 2, 0)):
        if i == 2:
            print("half", flush=True)
            time.sleep(60)
        yield batch

build_cache(
    tiny_bert(2), batches(), [6, 3, 5, 4, 6], Path({folder!r}), layers=(1, -1), progress=no_progress
)
"""


def test_a_cache_killed_half_way_is_no_cache_and_is_built_again(tmp_path):
    folder = tmp_path / "c"
    code = BUILD.format(tests=str(Path(__file__).parents[1]), folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as build:
        assert build.stdout.readline() == "half\n"
        build.send_signal(signal.SIGKILL)
    assert not folder.exists()
    assert len(list(tmp_path.glob(".c.*.partial"))) == 1
    with pytest.raises(InputError, match=r"teacher cache .* has no manifest.json; build it again"):
        TeacherCache(folder)
    whole, fresh = classifier_cache(folder), classifier_cache(tmp_path / "fresh")
    assert not list(tmp_path.glob(".c.*"))
    for name in ("logits", "features_1", "features_2"):
        assert np.array_equal(whole.array(name), fresh.array(name))
        assert np.abs(whole.array(name)).sum() > 0


RACE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from support.tiny_models import sentences, tiny_bert
from geodistill.distill import batches_by_length, build_cache
from geodistill.files import no_progress

folder, seen = Path({folder!r}), []
batches = batches_by_length(sentences([6, 3, 5, 4, 6], seed=1), 2, 0)
print("ready", flush=True)
sys.stdin.readline()
cache = build_cache(
    tiny_bert(2), batches, [6, 3, 5, 4, 6], folder, layers=(1, -1),
    on_batch=lambda *state: seen.append(state), progress=no_progress,
)
print(len(seen), len(cache), float(abs(cache.array("logits")).sum()), flush=True)
"""


def test_of_two_processes_one_builds_and_the_other_opens(tmp_path):
    code = RACE.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path / "c"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(2)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = sorted(racer.communicate(timeout=100)[0].split() for racer in racers)
    assert [batches for batches, _, _ in said] == ["0", "3"]
    assert said[0][1:] == said[1][1:]
    assert said[0][1] == "5"
    assert not list(tmp_path.glob(".c.*"))


@pytest.mark.parametrize("older", [False, True])
def test_a_disk_that_fills_up_leaves_no_half_cache(tmp_path, older):
    def disk_full(done, total):
        raise OSError(errno.ENOSPC, "No space left on device")

    if older:  # an older cache, of another layer, is kept until the new one is whole
        classifier_cache(tmp_path / "c", layers=(1,))
    words = r"teacher cache .*c: No space left on device while writing, nothing is kept; set GEODIS"
    warned = pytest.warns(match="teacher_layer 2 is not in the cache") if older else nullcontext()
    with warned, pytest.raises(InputError, match=words):
        classifier_cache(tmp_path / "c", on_batch=disk_full)
    assert not list(tmp_path.glob(".c.*"))
    assert (tmp_path / "c").exists() == older
    if older:
        assert TeacherCache(tmp_path / "c").manifest["layers"] == [1]
    else:
        assert len(classifier_cache(tmp_path / "c")) == 5


# ---- damaged and foreign ----


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def edit_manifest(folder, without="", **changes):
    path = folder / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    manifest.pop(without, None)
    path.write_text(json.dumps(manifest))


def shorten(path):
    np.save(path, np.load(path)[:-1])


DAMAGE = {
    "manifest": lambda folder: cut(folder / "manifest.json"),
    "manifest of a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "manifest of an earlier version": lambda folder: edit_manifest(folder, without="inputs"),
    "no layers": lambda folder: edit_manifest(folder, layers=None),
    "an array not listed": lambda folder: edit_manifest(folder, arrays=["logits", "features_1"]),
    "top_k without arrays": lambda folder: edit_manifest(folder, top_k=4),
    "array": lambda folder: cut(folder / "features_1.npy"),
    "header": lambda folder: (folder / "logits.npy").write_bytes(b"\x93NU"),
    "missing": lambda folder: (folder / "offsets.npy").unlink(),
    "fewer rows": lambda folder: shorten(folder / "features_1.npy"),
    "fewer examples": lambda folder: shorten(folder / "logits.npy"),
    "fewer inputs": lambda folder: shorten(folder / "inputs.npy"),
    "no offsets": lambda folder: np.save(folder / "offsets.npy", np.zeros(0, dtype=np.int64)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_cache_is_refused_and_built_again(tmp_path, kind):
    fresh = classifier_cache(tmp_path / "fresh")
    classifier_cache(tmp_path / "c")
    DAMAGE[kind](tmp_path / "c")
    with pytest.raises(InputError, match=r"teacher cache .*c is damaged \(.*\); build it again"):
        TeacherCache(tmp_path / "c")
    with pytest.warns(match="building the teacher cache again: .*is damaged"):
        again = classifier_cache(tmp_path / "c")
    assert np.array_equal(again.array("features_1"), fresh.array("features_1"))


def flip(path, place=-3):
    """One bit, far from the examples that a stored cache is compared on."""
    whole = bytearray(path.read_bytes())
    whole[place] ^= 1
    path.write_bytes(whole)


@pytest.mark.parametrize("name", ["features_1", "logits"])
def test_a_changed_bit_is_told_and_the_cache_built_again(tmp_path, name):
    fresh = classifier_cache(tmp_path / "c").array(name).copy()
    TeacherCache(tmp_path / "c").verify_checksums()
    flip(tmp_path / "c" / f"{name}.npy")
    told = rf"teacher cache .*c is damaged \({name}\.npy has sha256 \w+, \w+ is recorded\); build"
    with pytest.raises(InputError, match=told):
        TeacherCache(tmp_path / "c").verify_checksums()
    with pytest.warns(match="building the teacher cache again: .*is damaged"):
        again = classifier_cache(tmp_path / "c")
    assert np.array_equal(again.array(name), fresh)


# ---- other examples ----


def cached_step(folder, student, data, cache):
    """The first log and how far the weights of the student have moved."""
    before = weights(student)
    trainer = distiller(
        folder, student, data, teacher_cache=cache, logit_loss=KLDivergenceLoss(), max_steps=1,
        per_device_train_batch_size=2,
    )  # fmt: skip
    try:
        trainer.train()
    finally:
        distance = moved(before, weights(student))
    return trainer.state.log_history[0], distance


def other_words(row):
    return {**row, "input_ids": [t % 90 + 7 for t in row["input_ids"]]}


def other_positions(row):
    """The same texts and numbers of labels, at other tokens."""
    return {**row, "labels": [*row["labels"][1:], -100]}


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [rows[0], other_words(rows[1]), *rows[2:]],
        lambda rows: [{**row, "input_ids": row["input_ids"][::-1]} for row in rows],
        lambda rows: [{**row, "row": i} for i, row in enumerate([rows[2], rows[1], rows[0]])],
        lambda rows: [other_positions(row) for row in rows],
    ],
    ids=["other words", "another order of words", "rows numbered anew", "labels elsewhere"],
)
def test_other_examples_with_as_many_tokens_are_refused_before_a_step(tmp_path, change):
    rows = answers([8, 7, 8, 6], kept=[3, 2, 3, 2], seed=1)
    cache = build_cache(
        tiny_opt(2), batches_by_length(rows, 2, 0), [3, 2, 3, 2], tmp_path / "c", layers=(-1,),
        top_k=5, progress=no_progress,
    )  # fmt: skip
    log, distance = cached_step(tmp_path, tiny_opt(1), rows, cache)
    assert log["loss/logit"] > 0.1 < distance + 0.1
    student = tiny_opt(1)
    words = r"example \d has other input_ids, or labels at other tokens, than the cache was built"
    with pytest.raises(InputError, match=words):
        cached_step(tmp_path, student, change(rows), cache)
    assert moved(weights(student), weights(tiny_opt(1))) == 0


def test_padding_on_the_other_side_is_the_same_example(tmp_path):
    cache = classifier_cache(tmp_path / "c")
    right = collate(SENTENCES[:2])
    left = {name: right[name].flip(1) for name in ("input_ids", "attention_mask")}
    for i, n in enumerate(LENGTHS[:2]):
        left["input_ids"][i, -n:] = left["input_ids"][i, -n:].flip(0)
    assert left["input_ids"].tolist() != right["input_ids"].tolist()
    for batch in (right, left):
        cache.check_examples(right["row"], batch, batch["attention_mask"].bool())


def test_a_cache_of_other_texts_at_the_end_is_built_again(tmp_path):
    """The teacher is compared on the first two examples of a batch only."""
    classifier_cache(tmp_path / "c")
    data = [*SENTENCES[:1], other_words(SENTENCES[1]), *SENTENCES[2:]]  # the shortest, so the last
    with pytest.warns(match="building the teacher cache again: .*example 1 has other input_ids"):
        again = classifier_cache(tmp_path / "c", data)
    fresh = classifier_cache(tmp_path / "d", data)
    for name in ("logits", "features_1"):
        assert np.array_equal(again.array(name), fresh.array(name))


def test_other_images_and_sounds_are_refused(tmp_path):
    for case in (c for c in CASES if c.family in ("ViT", "Wav2Vec2")):
        batches = [case.collator(case.rows[i : i + 2]) for i in (0, 2)]
        counts = [17] * 4 if case.family == "ViT" else FRAMES
        folder = tmp_path / case.family
        cache = build_cache(case.teacher(2), batches, counts, folder, layers=(-1,))
        changed = [dict(row) for row in case.rows]
        name = "pixel_values" if case.family == "ViT" else "input_values"
        changed[2][name] = changed[2][name] + 0.25
        for rows, refused in ((case.rows, False), (changed, True)):
            batch = case.collator(rows)
            words = f"example 2 has other {name}"
            with pytest.raises(InputError, match=words) if refused else nullcontext():
                cache.check_examples(batch["row"], batch, None)


def test_a_cache_of_frames_with_letters_is_that_of_a_live_teacher(tmp_path):
    """CTC: logits of frames, labels of letters, which are fewer."""
    settings = {**_SPEECH, "vocab_size": 12, "pad_token_id": 0, "final_dropout": 0.0}

    def model(seed):
        return made(hf.Wav2Vec2ForCTC, hf.Wav2Vec2Config, seed, **settings)

    rows = [{**row, "labels": torch.tensor([3, 5, 7 + i])} for i, row in enumerate(SPEECH)]
    batch = without(stacked(rows), "row", "labels")
    with torch.no_grad():
        q, p = (model(seed).eval()(**batch).logits for seed in (1, 2))
    mask = torch.arange(q.shape[1]) < torch.tensor(FRAMES)[:, None]
    expected = kl(q[mask].log_softmax(-1), p[mask].log_softmax(-1))
    assert expected > 0.01
    for layers in ((), (-1,)):
        cache = build_cache(
            model(2), [stacked(rows[i : i + 2]) for i in (0, 2)], FRAMES,
            tmp_path / f"c{len(layers)}", layers=layers,
        )  # fmt: skip
        for teacher in ({"teacher_model": model(2)}, {"teacher_cache": cache}):
            trainer = distiller(
                tmp_path, model(1), rows, data_collator=stacked, logit_loss="auto", max_steps=1,
                per_device_train_batch_size=4, **teacher,
            )  # fmt: skip
            trainer.train()
            log = trainer.state.log_history[0]
            assert log["loss/logit"] == pytest.approx(expected, rel=1e-3), (layers, teacher)


def test_a_foreign_cache_is_built_again(tmp_path):
    """Another teacher, other texts of the same lengths, more texts, other layers."""
    other = [{**row, "input_ids": row["input_ids"][::-1]} for row in SENTENCES]
    classifier_cache(tmp_path / "c", teacher=tiny_bert(3))
    foreign = r"building the teacher cache again: .*is another teacher's, or of other texts"
    with pytest.warns(match=foreign):
        mine = classifier_cache(tmp_path / "c")
    assert np.array_equal(mine.array("logits"), classifier_cache(tmp_path / "d").array("logits"))
    with pytest.warns(match=foreign):
        classifier_cache(tmp_path / "c", data=other)
    with pytest.warns(match="has top_k 0 of 5 examples, not 0 of 3"):
        assert len(classifier_cache(tmp_path / "c", SENTENCES[:3], LENGTHS[:3])) == 3


def test_a_language_models_cache_of_another_teacher_is_built_again(tmp_path):
    language_cache(tmp_path / "c", top_k=7)
    with warnings.catch_warnings(action="error"):
        language_cache(tmp_path / "c", top_k=7)
    with pytest.warns(match="another teacher's"):
        language_cache(tmp_path / "c", teacher=tiny_opt(3), top_k=7)
    with pytest.warns(match="has top_k 7 of 4 examples, not 5 of 4"):
        language_cache(tmp_path / "c", teacher=tiny_opt(3), top_k=5)


@pytest.mark.parametrize("other", [{"vocabulary": 60}, {"width": 48}])
def test_a_cache_of_another_vocabulary_or_width_is_built_again(tmp_path, other):
    """Its token numbers, or its columns, are none of the new teacher's."""
    ids = [[i % 50 for i in row["input_ids"]] for row in ANSWERS]
    data = [{**row, "input_ids": new} for row, new in zip(ANSWERS, ids, strict=True)]
    language_cache(tmp_path / "c", data, top_k=7)
    with pytest.warns(match="another teacher's"):
        again = language_cache(tmp_path / "c", data, teacher=tiny_opt(2, **other), top_k=7)
    fresh = language_cache(tmp_path / "d", data, teacher=tiny_opt(2, **other), top_k=7)
    assert np.array_equal(again.array("features_2"), fresh.array("features_2"))
    assert again.num_logits == other.get("vocabulary", 100)


@torch.no_grad()
def test_a_language_models_features_alone(tmp_path):
    """Without top_k no logits are stored; without a mask the rows of each example stand left."""
    cache = language_cache(tmp_path / "c")
    assert sorted(cache.manifest["arrays"]) == ["features_2"]
    found = cache.lookup(torch.tensor([2, 0]), None, [2])
    assert found.logits is found.top is cache.num_logits is None
    assert found.masks[2].sum(1).tolist() == [5, 3]
    assert found.masks[2][1].tolist() == [True] * 3 + [False] * 2
    for place, number in enumerate((2, 0)):
        batch = collate([ANSWERS[number]])
        out = tiny_opt(2).eval()(**without(batch, "row", "labels"), output_hidden_states=True)
        expected = out.hidden_states[-1][loss_mask(batch)]
        assert torch.allclose(found.features[2][place][found.masks[2][place]], expected, atol=1e-3)
        assert expected.abs().max() > 0.5
    with warnings.catch_warnings(action="error"):
        language_cache(tmp_path / "c")  # opened, not built
    with pytest.raises(InputError, match="holds features only: drop logit_loss, or build it wit"):
        cache.require_logits(1.0)


def test_a_classifier_has_no_top_k_of_tokens(tmp_path):
    with pytest.raises(InputError, match="top_k is 2, a BertForSequenceClassification gives no lo"):
        classifier_cache(tmp_path / "c", top_k=2)


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(
        InputError, match=r"is not a teacher cache, it holds thesis.tex: expected a"
    ):
        classifier_cache(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years"
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "data.npy", np.ones(3))
    with pytest.raises(InputError, match="it holds arrays without a manifest"):
        classifier_cache(tmp_path / "mine")


def test_no_batches(tmp_path):
    with pytest.raises(InputError, match="batches is empty: expected at least one"):
        build_cache(tiny_bert(2), [], [], tmp_path / "c", layers=(1,))


# ---- top k and one bucket ----


def kl(student, teacher):
    return float((teacher.exp() * (teacher - student)).sum(-1).mean())


def logits(seed, rows=20, outcomes=30):
    return 3 * torch.randn(rows, outcomes, generator=torch.Generator().manual_seed(seed))


def top_k_loss(k, student, teacher):
    """What the trainer computes from a cache of the top k."""
    top = teacher.log_softmax(-1).topk(k)
    said = TeacherOutputs(None, top=(top.values, top.indices))
    return float(KLDivergenceLoss()(*said.aligned_logits(student)))


def test_all_outcomes_but_one_give_the_whole_divergence():
    student, teacher = logits(0), logits(1)
    whole = kl(student.log_softmax(-1), teacher.log_softmax(-1))
    assert top_k_loss(29, student, teacher) == pytest.approx(whole, rel=1e-4)
    assert whole > 1


def test_fewer_outcomes_are_a_lower_bound_that_grows_with_k():
    student, teacher = logits(0), logits(1)
    values = [top_k_loss(k, student, teacher) for k in (1, 2, 4, 8, 16, 29)]
    assert values == sorted(values)
    assert 0.1 < values[0] < 0.9 * values[-1]
    assert top_k_loss(4, teacher, teacher) == pytest.approx(0, abs=1e-5)


def test_the_gradient_of_the_rest_falls_on_the_outcomes_in_it():
    """d KL / d logit of outcome j in the rest: Q_j (1 - P_rest / Q_rest)."""
    student, teacher = logits(0, 1, 6).double().requires_grad_(), logits(1, 1, 6).double()
    top = teacher.log_softmax(-1).topk(2)
    p, q = (
        topk_with_tail(top.values),
        topk_with_tail(student.log_softmax(-1).gather(-1, top.indices)),
    )
    (gradient,) = torch.autograd.grad((p.exp() * (p - q)).sum(), student)
    outcome = next(j for j in range(6) if j not in top.indices[0].tolist())
    share = student.softmax(-1)[0, outcome]
    expected = share * (1 - p.exp()[0, -1] / q.exp()[0, -1])
    expected = float(expected.detach())
    assert float(gradient[0, outcome]) == pytest.approx(expected, rel=1e-9)
    assert abs(expected) > 1e-4


def test_a_certain_teacher_has_a_finite_rest():
    sure = torch.tensor([[0.0, -200.0]])
    assert torch.isfinite(topk_with_tail(sure)).all()


# ---- refusals ----


@pytest.mark.parametrize("place", [0, 3])
def test_other_texts_are_noticed(tmp_path, place):
    cache = classifier_cache(tmp_path / "c")
    batch = collate([*SENTENCES[:place], {**SENTENCES[place], "input_ids": [5, 6]}])
    words = rf"example {place} has {LENGTHS[place]} stored rows, the batch keeps 2; it was built"
    with pytest.raises(InputError, match=words):
        cache.lookup(batch["row"], batch["attention_mask"].bool(), [])


def test_an_example_beyond_the_cache_is_refused(tmp_path):
    cache = classifier_cache(tmp_path / "c")
    with pytest.raises(InputError, match="holds examples 0 to 4; the batch asks for rows 3 to 5"):
        cache.lookup(torch.tensor([3, 5]), torch.ones(2, 4, dtype=torch.bool), [])


def test_a_layer_that_is_not_stored(tmp_path):
    cache = classifier_cache(tmp_path / "c")
    cache.check_layer(2)
    with pytest.raises(InputError, match=r"teacher_layer 0 is not in the cache .*holds \[1, 2\]"):
        cache.check_layer(0)


def test_an_unknown_layer(tmp_path):
    with pytest.raises(InputError, match="teacher_layer is 3, the teacher has layers 0"):
        classifier_cache(tmp_path / "c", layers=(3,))


def test_temperature_needs_whole_logits(tmp_path):
    language_cache(tmp_path / "c", top_k=5).require_logits(1.0)
    classifier_cache(tmp_path / "d").require_logits(2.0)
    cache, loss = TeacherCache(tmp_path / "c"), KLDivergenceLoss(temperature=2.0)
    with pytest.raises(InputError, match=r"temperature is 2.0; a cache of top-5 logits serves 1.0"):
        FeatureDistillationTrainer(
            tiny_opt(1), arguments(tmp_path), teacher_cache=cache, logit_loss=loss
        )


def test_a_full_disk_is_told_before_anything_runs(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10_000, 9_000, 1_000))
    with pytest.raises(
        InputError, match=r"cache needs 0 MB, .* has 0 MB free; set GEODISTILL_CACHE"
    ):
        classifier_cache(tmp_path / "c")
    assert not (tmp_path / "c").exists()
    # 24 tokens of two layers of 32 halves, 5 times 3 logits of 4 bytes: 3,132 bytes.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10_000, 6_000, 3_500))
    assert len(classifier_cache(tmp_path / "c")) == 5


def test_token_counts_that_are_not_the_batches(tmp_path):
    with pytest.raises(InputError, match="token_counts: 9 for example 2, its batch has 5"):
        classifier_cache(tmp_path / "c", counts=[6, 3, 9, 4, 6])
    with pytest.raises(InputError, match="token_counts has 6 examples, the batches hold 5"):
        classifier_cache(tmp_path / "c", counts=[*LENGTHS, 4])
    assert not (tmp_path / "c").exists()


def test_the_size_is_reported_before_anything_is_written(tmp_path):
    lines = []

    def progress(line):
        lines.append((line, [path.name for path in tmp_path.rglob("*.npy")]))

    cache = classifier_cache(tmp_path / "c", progress=progress)
    ((line, written),) = lines
    size = sum(cache.array(name).nbytes for name in cache.manifest["arrays"])
    assert line.startswith(f"teacher cache: {size / 1e6:.1f} MB to write, ")
    assert written == []
    classifier_cache(tmp_path / "c", progress=progress)
    assert len(lines) == 1  # an opened one writes nothing


def test_a_last_layer_of_another_width_than_the_others_is_stored_as_it_is(tmp_path):
    """OPT-350m: `hidden_states[-1]` has word_embed_proj_dim numbers, not hidden_size."""
    teacher = tiny_opt(2, projected=16)
    with torch.no_grad():
        (batch,) = batches_by_length(ANSWERS, 4, 0)
        out = teacher(batch["input_ids"], batch["attention_mask"], output_hidden_states=True)
    assert out.hidden_states[-1].shape[-1] == 16
    settings = {"teacher": teacher, "layers": (1, -1), "top_k": 5}
    cache = language_cache(tmp_path / "c", **settings)
    mask = loss_mask(batch)
    found = cache.lookup(batch["row"], mask, (1, 2)).features
    for layer, width in ((1, 32), (2, 16)):
        assert found[layer].shape[-1] == width
        assert torch.allclose(found[layer][mask], out.hidden_states[layer][mask], atol=2e-3)
    again = language_cache(
        tmp_path / "c", on_batch=lambda done, total: pytest.fail("built again"), **settings
    )
    assert len(again) == 4


def test_texts_longer_than_the_teacher_takes_are_refused(tmp_path):
    with pytest.raises(InputError, match="a batch has 8 tokens, the teacher takes 7"):
        language_cache(tmp_path / "c", teacher=tiny_opt(2, positions=7))


def test_a_tokenizer_without_a_token_for_padding_is_told():
    with pytest.raises(InputError, match=r"pad_id is None: expected .*pad_token = tokenizer.eos"):
        next(batches_by_length(ANSWERS, 2, None))


@pytest.mark.parametrize("kind", [np.array, tuple, torch.tensor])
def test_columns_of_any_kind_are_padded_as_lists_are(kind):
    """As `datasets` gives them with_format("numpy") or ("torch")."""
    lists = [
        {"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 0], "token_type_ids": [0, 1, 1, 0],
         "labels": [-100, -100, 7, 8]},
        {"input_ids": [8, 9], "attention_mask": [1, 1], "token_type_ids": [0, 1],
         "labels": [-100, 9]},
    ]  # fmt: skip
    given = [{name: kind(x) for name, x in row.items()} | {"text": "left out"} for row in lists]
    batch, expected = pad(given, 3), pad(lists, np.int64(3))
    assert batch.keys() == expected.keys() == lists[0].keys()
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 0], [8, 9, 3, 3]]
    assert batch["token_type_ids"].tolist() == [[0, 1, 1, 0], [0, 1, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 8], [-100, 9, -100, -100]]
    counts = count_valid_tokens(given)
    assert counts == [2, 1]
    assert [type(count) for count in counts] == [int, int]


def test_no_example_gives_no_batch():
    with pytest.raises(InputError, match="examples is empty: expected at least one"):
        pad([], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 1}, r"layers is 1: expected a list of layers, such as \[1\]"),
        ({"layers": "layer.1"}, r"layers is 'layer.1': expected a list of layers, such as \['lay"),
        ({"rows": None}, "a batch has no column `row`: expected the index of each example"),
        ({"rows": [0, -1]}, "row is -1 in a batch, and token_counts has 2 examples: expected 0 to"),
        ({"rows": [0, 2]}, "row is 2 in a batch, and token_counts has 2 examples"),
        ({"rows": [1, 1]}, "row 1 comes twice in the batches: expected each example once"),
        ({"batches": 2}, "row 0 comes twice in the batches"),
        ({"counts": [3]}, "row is 1 in a batch, and token_counts has 1 examples"),
    ],
)
def test_arguments_that_do_not_fit_the_examples_are_refused(tmp_path, change, message):
    given = {"layers": (1,), "rows": [0, 1], "batches": 1, "counts": [3, 3], **change}
    batch = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 2]])}
    batch |= {} if given["rows"] is None else {"row": torch.tensor(given["rows"])}
    with pytest.raises(InputError, match=message):
        build_cache(
            tiny_bert(2), [batch] * given["batches"], given["counts"], tmp_path / "c",
            layers=given["layers"], progress=no_progress,
        )  # fmt: skip
    assert not (tmp_path / "c").exists()


def test_a_folder_may_be_a_string_and_counts_an_array(tmp_path):
    cache = classifier_cache(str(tmp_path / "c"), counts=torch.tensor(LENGTHS))
    assert len(cache.array("features_1")) == sum(LENGTHS)
    again = classifier_cache(str(tmp_path / "c"), counts=np.array(LENGTHS), on_batch=pytest.fail)
    assert len(again) == len(LENGTHS)


def test_features_beyond_float16_are_refused(tmp_path):
    teacher = tiny_bert(2)
    with torch.no_grad():
        teacher.bert.encoder.layer[0].output.LayerNorm.weight.fill_(1e6)
    with pytest.raises(InputError, match="teacher features_1 exceed float16's range"):
        classifier_cache(tmp_path / "c", teacher=teacher)


def test_more_outcomes_than_the_vocabulary_has(tmp_path):
    with pytest.raises(InputError, match="top_k is 100; expected 0 to 99"):
        language_cache(tmp_path / "c", top_k=100)
    with pytest.raises(InputError, match="top_k is True; expected 0 to 99"):
        language_cache(tmp_path / "c", top_k=True)


def test_a_key_depends_on_every_part_and_on_their_borders():
    keys = {cache_key(*parts) for parts in (("a", "b"), ("a", "c"), ("ab",), ("a", "", "b"))}
    assert len(keys) == 4
    assert cache_key("a", "b") == cache_key("a", "b")


def test_the_manifest_says_what_is_stored(tmp_path):
    language_cache(tmp_path / "c", top_k=5)
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    assert manifest["layers"] == [2]
    assert manifest["top_k"] == 5
    assert {path.stem for path in (tmp_path / "c").glob("*.npy")} == {
        "features_2", "top_values", "top_indices", "offsets", "inputs",
    }  # fmt: skip


def test_token_labels_need_a_teacher_that_takes_them(tmp_path):
    batch = collate(answers([6, 5], kept=[3, 2]))
    with pytest.raises(InputError, match="OPTModel takes no labels, so which positions count"):
        build_cache(tiny_opt(2).model, [batch], [3, 2], tmp_path / "cache", layers=(2,))


def test_unlabelled_texts_keep_a_logit_per_token(tmp_path):
    teacher = bert(BertForTokenClassification, 2, num_labels=3).eval()
    rows = [without(row, "labels") for row in sentences([6, 4])]
    batch = collate(rows)
    cache = build_cache(teacher, [batch], [6, 4], tmp_path / "cache", layers=())
    with torch.no_grad():
        logits = teacher(batch["input_ids"], batch["attention_mask"]).logits
    expected = logits[batch["attention_mask"].bool()]
    assert torch.allclose(torch.tensor(cache.array("logits")), expected, atol=1e-5)

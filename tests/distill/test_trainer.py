"""The trainer against steps done by hand, and what must hold of every distillation."""

import inspect
import math
from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file
from support import tiny_models
from support.tiny_models import (
    answers,
    arguments,
    collate,
    logged,
    moved,
    procrustes,
    sentences,
    tiny_bert,
    tiny_opt,
    weights,
    without,
)
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import Trainer, TrainingArguments

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm, build_cache
from geodistill.distill.collate import batches_by_length, count_valid_tokens
from geodistill.distill.feature_term import loss_mask
from geodistill.distill.teacher_outputs import TeacherOutputs
from geodistill.errors import InputError
from geodistill.losses import (
    CKALoss,
    KLDivergenceLoss,
    ProcrustesLoss,
    ProjectionLoss,
    ShuffledRows,
)

TASK, LOGIT, FEATURE = 0.3, 0.7, 2.0
TEMPERATURE = 2.0
RATE = 0.1
SENTENCES = sentences([6, 4, 5, 6], seed=1)
ANSWERS = answers([8, 7, 8, 6], kept=[3, 1, 5, 2], seed=1)


def distiller(tmp_path, student, data, teacher=None, terms=(), *, size=4, **settings):
    """A trainer with both losses and one pass over `data` in batches of `size`."""
    given = {
        "logit_loss": KLDivergenceLoss(temperature=TEMPERATURE), "task_weight": TASK,
        "logit_weight": LOGIT, "num_train_epochs": 1, "per_device_train_batch_size": size,
        "learning_rate": RATE, "teacher_model": teacher, "terms": terms,
    }  # fmt: skip
    return tiny_models.distiller(tmp_path, student, data, **{**given, **settings})


def term(loss=None, **settings):
    return FeatureTerm(-1, -1, loss or ProcrustesLoss(), **{"weight": FEATURE, **settings})


# ---- the same by hand ----


def kl(student, teacher):
    """T² Σ p (log p - log q), a value a row."""
    p, q = ((a / TEMPERATURE).softmax(-1) for a in (teacher, student))
    return TEMPERATURE**2 * (p * (p.log() - q.log())).sum(-1)


def micro_batch(student, teacher, batch, feature):
    """Task and logit losses of every item, and the feature loss of the micro-batch."""
    batch = without(batch, "row")
    labels, mask = batch.pop("labels"), loss_mask(batch)
    out = student(**batch, output_hidden_states=True)
    with torch.no_grad():
        said = teacher(**batch, output_hidden_states=True)
    if labels.dim() == 2:  # the position before a label predicts it
        targets = labels[:, 1:]
        mask = torch.cat([targets != -100, torch.zeros(len(labels), 1, dtype=torch.bool)], 1)
        task = cross_entropy(out.logits[mask], targets[targets != -100], reduction="none")
        logit = kl(out.logits[mask], said.logits[mask])
    elif out.logits.shape[1] == 1:
        task = mse_loss(out.logits[:, 0], labels, reduction="none")
        logit = torch.zeros(len(labels))
    else:
        task = cross_entropy(out.logits, labels, reduction="none")
        logit = kl(out.logits, said.logits)
    return task, logit, feature(out.hidden_states[-1][mask], said.hidden_states[-1][mask])


def steps_by_hand(student, teacher, accumulated, feature=procrustes, trained=()):
    """One SGD step for each list of micro-batches; the three losses of each step."""
    history = []
    parameters = [*student.parameters(), *trained]
    for batches in accumulated:
        parts = [micro_batch(student, teacher, b, feature) for b in batches]
        task = torch.cat([p[0] for p in parts]).mean()
        logit = torch.cat([p[1] for p in parts]).mean()
        geometry = torch.stack([p[2] for p in parts]).mean()
        loss = TASK * task + LOGIT * logit + FEATURE * geometry
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter -= RATE * gradient
        history.append([float(x.detach()) for x in (loss, task, logit, geometry)])
    return history


def assert_same_weights(one, other, tolerance=2e-5):
    assert moved(weights(one), weights(other)) < tolerance


MODELS = [pytest.param(tiny_bert, SENTENCES, id="bert"), pytest.param(tiny_opt, ANSWERS, id="opt")]


@pytest.mark.parametrize(("model", "data"), MODELS)
@pytest.mark.parametrize("repeats", [1, 3])
def test_accumulation_neither_multiplies_nor_divides(tmp_path, model, data, repeats):
    student, by_hand, teacher = model(1), model(1), model(2)
    trainer = distiller(
        tmp_path, student, data * repeats, teacher, [term()], gradient_accumulation_steps=repeats
    )
    assert trainer.model_accepts_loss_kwargs  # so the trainer counts items and does not divide
    trainer.train()
    ((loss, task, logit, geometry),) = steps_by_hand(by_hand, teacher, [[collate(data)]])
    assert_same_weights(student, by_hand)
    assert moved(weights(model(1)), weights(student)) > 1e-3
    assert trainer.state.global_step == 1
    for name, expected in {
        "loss": loss,
        "loss/task": task,
        "loss/logit": logit,
        "loss/ProcrustesLoss[-1--1]": geometry,
        "weight/ProcrustesLoss[-1--1]": FEATURE,
    }.items():
        assert logged(trainer, name) == [pytest.approx(expected, rel=1e-4)], name
        assert abs(expected) > 1e-2


@pytest.mark.parametrize(
    ("model", "data"),
    [
        pytest.param(tiny_bert, sentences([6, 4, 5, 6, 5, 3, 4], seed=3), id="bert"),
        pytest.param(
            tiny_opt, answers([8, 7, 8, 6, 7, 8, 8], [1, 1, 5, 4, 2, 6, 3], seed=3), id="opt"
        ),
    ],
)
def test_unequal_micro_batches_give_means_over_all_items(tmp_path, model, data):
    """Micro-batches of 3, 3 and 1 examples: two are one step, the last is a step by itself."""
    student, by_hand, teacher = model(1), model(1), model(2)
    distiller(
        tmp_path, student, data, teacher, [term()], size=3, gradient_accumulation_steps=2
    ).train()
    batches = [collate(data[i : i + 3]) for i in (0, 3, 6)]
    steps_by_hand(by_hand, teacher, [batches[:2], batches[2:]])
    assert_same_weights(student, by_hand)


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_task_loss_that_ignores_the_count_of_items_is_not_multiplied(tmp_path, repeats):
    """transformers' regression loss is a mean over its micro-batch whatever the count."""
    data = [{**row, "labels": 0.5 * row["labels"]} for row in SENTENCES]
    student, by_hand, teacher = (tiny_bert(i, labels=1) for i in (1, 1, 2))
    distiller(
        tmp_path, student, data * repeats, teacher, [term()], logit_loss=None,
        gradient_accumulation_steps=repeats,
    ).train()  # fmt: skip
    steps_by_hand(by_hand, teacher, [[collate(data)]])
    assert_same_weights(student, by_hand)


def test_label_smoothing_does_not_move_the_logit_loss_off_the_answers(tmp_path):
    values = []
    for smoothing in (0.0, 0.1):
        trainer = distiller(
            tmp_path, tiny_opt(1), ANSWERS, tiny_opt(2), label_smoothing_factor=smoothing
        )
        trainer.train()
        values.append((logged(trainer, "loss/logit")[0], logged(trainer, "loss/task")[0]))
    assert values[0][0] == pytest.approx(values[1][0], rel=1e-5)
    assert abs(values[0][1] - values[1][1]) > 1e-3


# ---- a learned projection ----


def test_a_projection_is_trained_like_the_student(tmp_path):
    """Three steps by hand: its gradient is cleared between them, like the student's."""
    student, by_hand, teacher = tiny_bert(1), tiny_bert(1), tiny_bert(2, width=48)
    loss = ProjectionLoss(32, 48)
    start = loss.weight.detach().clone()
    own = start.clone().requires_grad_()

    def feature(y, x):
        x, y = (a - a.mean(0) for a in (x, y))
        return (x / x.norm() - y / y.norm() @ own).square().sum()

    distiller(tmp_path, student, SENTENCES * 3, teacher, [term(loss)]).train()
    steps_by_hand(by_hand, teacher, [[collate(SENTENCES)]] * 3, feature, [own])
    assert_same_weights(student, by_hand)
    assert torch.allclose(loss.weight, own, atol=2e-5)
    assert float((loss.weight.detach() - start).abs().max()) > 1e-3


def test_a_projection_is_in_the_optimiser_once_without_decay(tmp_path):
    loss = ProjectionLoss(32, 32)
    trainer = distiller(
        tmp_path, tiny_bert(1), SENTENCES, tiny_bert(2), [term(loss)], weight_decay=0.1
    )
    trainer.train()
    trainer.create_optimizer()
    groups = [
        g for g in trainer.optimizer.param_groups if any(p is loss.weight for p in g["params"])
    ]
    assert [g["weight_decay"] for g in groups] == [0.0]
    assert any(g["weight_decay"] == 0.1 for g in trainer.optimizer.param_groups)


def test_a_projection_joins_an_optimiser_that_was_given(tmp_path):
    loss, student = ProjectionLoss(32, 32), tiny_bert(1)
    start = loss.weight.detach().clone()
    given = torch.optim.SGD(student.parameters(), lr=RATE)
    distiller(
        tmp_path, student, SENTENCES, tiny_bert(2), [term(loss)], optimizers=(given, None)
    ).train()
    assert float((loss.weight.detach() - start).abs().max()) > 1e-3


class SkipsFirst(torch.optim.SGD):
    """Like mixed precision, which leaves out a step whose gradients overflow."""

    skipped = False

    def step(self, closure=None):
        if self.skipped:
            super().step(closure)
        self.skipped = True


def test_a_skipped_step_leaves_no_gradient_behind(tmp_path):
    loss, student = ProjectionLoss(32, 32), tiny_bert(1)
    start = loss.weight.detach().clone()
    skips = SkipsFirst(student.parameters(), lr=RATE)
    distiller(
        tmp_path, student, SENTENCES * 2, tiny_bert(2), [term(loss)], optimizers=(skips, None)
    ).train()
    once, other = deepcopy(loss), tiny_bert(1)
    with torch.no_grad():
        once.weight.copy_(start)
    distiller(tmp_path, other, SENTENCES, tiny_bert(2), [term(once)]).train()
    assert torch.allclose(loss.weight, once.weight, atol=1e-6)
    assert_same_weights(student, other)


def eight_steps(folder, seed, resume=None):
    """AdamW on shuffled data; a weight warm-up that the checkpoint after step 4 cuts."""
    student, loss = tiny_bert(seed), ProjectionLoss(32, 48)
    terms = [term(loss, weight_warmup_batches=6), term(ShuffledRows(CKALoss()), weight=0.5)]
    trainer = distiller(
        folder, student, SENTENCES * 4, tiny_bert(2, width=48), terms, size=2, optim="adamw_torch",
        learning_rate=1e-3, train_sampling_strategy="random", save_strategy="steps", save_steps=4,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return trainer, student, loss


def test_a_run_resumed_at_a_checkpoint_ends_like_one_that_was_not_stopped(tmp_path):
    whole, student, loss = eight_steps(tmp_path / "whole", seed=1)
    again, resumed, other = eight_steps(
        tmp_path / "resumed", seed=9, resume=str(tmp_path / "whole" / "checkpoint-4")
    )
    assert_same_weights(student, resumed, 1e-6)
    assert torch.allclose(loss.weight, other.weight, atol=1e-6)
    assert again.term_weights() == pytest.approx(whole.term_weights(), rel=1e-6)
    assert again.term_weights()["weight/ProjectionLoss[-1--1]"] > 0
    tail = [
        row["loss"] for row in whole.state.log_history if row.get("step", 0) > 4 and "loss" in row
    ]
    assert logged(again, "loss")[-4:] == pytest.approx(tail, rel=1e-6)
    # The projection did take part after the checkpoint.
    saved = load_file(tmp_path / "whole" / "checkpoint-4" / "feature_terms.safetensors")
    assert float((saved["0.loss.weight"] - loss.weight.detach()).abs().max()) > 1e-5


def test_one_loss_in_two_terms_can_be_saved(tmp_path):
    loss = ProjectionLoss(32, 32)
    trainer = distiller(
        tmp_path, tiny_bert(1), SENTENCES, tiny_bert(2),
        [FeatureTerm(1, 1, loss), FeatureTerm(2, 2, loss)], save_strategy="steps", save_steps=1,
    )  # fmt: skip
    trainer.train()
    saved = load_file(tmp_path / "checkpoint-1" / "feature_terms.safetensors")
    assert torch.equal(saved["0.loss.weight"], loss.weight)
    assert torch.equal(saved["1.loss.weight"], loss.weight)


def test_the_exported_student_is_the_student_alone(tmp_path):
    trainer, student, _ = eight_steps(tmp_path, seed=1)
    trainer.save_model(str(tmp_path / "export"))
    for folder in ("export", "checkpoint-8"):
        stored = load_file(tmp_path / folder / "model.safetensors")
        assert stored.keys() == student.state_dict().keys()
        assert not any("loss" in name or "terms" in name for name in stored)
    loaded, report = type(student).from_pretrained(tmp_path / "export", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys"))
    assert_same_weights(student, loaded, 1e-9)
    assert not (tmp_path / "export" / "feature_terms.safetensors").exists()


# ---- weight warm-up ----


@pytest.mark.parametrize(("warmup", "on"), [(7, 0), (6, 1), (5, None), (0, None)])
def test_a_warmup_as_long_as_the_training_is_warned_of(tmp_path, recwarn, warmup, on):
    data = sentences([6, 4, 5, 6, 5, 3, 4, 6], seed=4)  # two batches, three times
    terms = [term(weight_warmup_batches=warmup)]
    trainer = distiller(tmp_path, tiny_bert(1), data * 3, tiny_bert(2), terms)
    trainer.train()
    assert trainer.state.max_steps == 6
    said = [str(w.message) for w in recwarn if "micro-batches: its weight" in str(w.message)]
    assert len(said) == (on is not None)
    assert on is None or f"is on in {on} of 6 micro-batches" in said[0]
    factors = [row[f"weight/{trainer.term_modules[0].name}"] for row in trainer.state.log_history
               if "loss" in row]  # fmt: skip
    assert sum(factor > 0 for factor in factors) == (6 if on is None and not warmup else 7 - warmup)


def test_the_weight_is_the_ratio_of_gradient_norms_at_the_students_features(tmp_path):
    student, by_hand, teacher = tiny_bert(1), tiny_bert(1), tiny_bert(2)
    data = sentences([6, 4, 5, 6, 5, 3, 4, 6], seed=4)
    trainer = distiller(tmp_path, student, data * 3, teacher, [term(weight_warmup_batches=2)])
    trainer.train()

    sums = torch.zeros(2)
    for batch in (collate(data[:4]), collate(data[4:])):
        inputs = without(batch, "row", "labels")
        mask = batch["attention_mask"].bool()
        said = teacher(**inputs, output_hidden_states=True)
        out = by_hand(**inputs, output_hidden_states=True)
        features = out.hidden_states[-1]
        base = TASK * cross_entropy(out.logits, batch["labels"])
        base = base + LOGIT * kl(out.logits, said.logits.detach()).mean()
        own = procrustes(features[mask], said.hidden_states[-1][mask].detach())
        sums += torch.stack(
            [torch.autograd.grad(x, features, retain_graph=True)[0].norm() for x in (base, own)]
        )
        # The first step is the base loss alone; the second already has the term.
        gradients = torch.autograd.grad(base, list(by_hand.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                parameter -= RATE * gradient
    expected = FEATURE * float(sums[0] / sums[1])
    seen = logged(trainer, "weight/ProcrustesLoss[-1--1]")
    assert seen == [0, *[pytest.approx(expected, rel=1e-3)] * 5]
    assert trainer.term_weights() == {"weight/ProcrustesLoss[-1--1]": pytest.approx(seen[-1])}
    assert expected > 0


# ---- teacher and student ----


@pytest.mark.parametrize(("model", "data"), MODELS)
def test_the_student_moves_the_teacher_does_not(tmp_path, model, data):
    student, teacher = model(1), model(2)
    before = weights(student), weights(teacher)
    distiller(tmp_path, student, data, teacher, [term()]).train()
    assert moved(before[0], weights(student)) > 1e-3
    assert moved(before[1], weights(teacher)) == 0
    assert all(p.grad is None for p in teacher.parameters())
    assert not teacher.training


@pytest.mark.parametrize("part", ["logit", "feature"])
def test_another_teacher_makes_another_student(tmp_path, part):
    def train(seed):
        student = tiny_bert(1)
        if part == "logit":
            distiller(tmp_path, student, SENTENCES, tiny_bert(seed)).train()
        else:
            distiller(
                tmp_path, student, SENTENCES, tiny_bert(seed), [term()], logit_loss=None
            ).train()
        return weights(student)

    assert moved(train(2), train(3)) > 1e-3
    assert moved(train(2), train(2)) == 0


def test_terms_of_one_loss_and_one_layer_pair_are_logged_apart(tmp_path):
    pair = [term(pooling="all", weight=0.5), term(pooling="first", weight=0.25)]
    trainer = distiller(tmp_path, tiny_bert(1), SENTENCES, tiny_bert(2), pair, logit_loss=None)
    trainer.train()
    name = "ProcrustesLoss[-1--1]"
    assert trainer.term_weights() == {f"weight/{name}": 0.5, f"weight/{name} #2": 0.25}
    whole, first = (logged(trainer, f"loss/{one}")[-1] for one in (name, f"{name} #2"))
    assert abs(whole - first) > 1e-3


def cache_of(teacher, data, folder, **settings):
    batches, counts = batches_by_length(data, 3, 0), count_valid_tokens(data)
    return build_cache(teacher, batches, counts, folder, layers=(1, -1), **settings)


@pytest.mark.parametrize(("model", "data"), MODELS)
def test_a_cached_teacher_teaches_like_a_live_one(tmp_path, model, data):
    live, cached, teacher = model(1), model(1), model(2)
    cache = cache_of(teacher, data, tmp_path / "cache", top_k=99 if model is tiny_opt else 0)
    terms = [FeatureTerm(1, 1, CKALoss(), weight=1.0), term()]
    settings = {"size": 2, "num_train_epochs": 3, "logit_loss": KLDivergenceLoss()}
    one = distiller(tmp_path, live, data, teacher, terms, **settings)
    other = distiller(tmp_path, cached, data, None, terms, teacher_cache=cache, **settings)
    one.train()
    other.train()
    for name in ("loss", "loss/task", "loss/logit", "loss/CKALoss[1-1]"):
        path = logged(one, name)
        assert len(path) == 6
        assert max(path) - min(path) > 1e-3
        assert logged(other, name) == pytest.approx(path, abs=2e-3, rel=2e-3), name


def test_the_cached_rows_follow_their_example_in_any_order(tmp_path):
    """Shuffled batches: the same losses as the live teacher's only if `row` finds the example."""
    teacher = tiny_bert(2)
    cache = cache_of(teacher, SENTENCES, tmp_path / "c")
    losses = []
    for settings in ({"teacher": teacher}, {"teacher_cache": cache}):
        trainer = distiller(
            tmp_path, tiny_bert(1), SENTENCES[::-1], terms=[term()], size=1, **settings
        )
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    assert len(set(losses[0])) == 4


def test_evaluation_is_the_plain_loss(tmp_path):
    student = tiny_bert(1)
    trainer = distiller(
        tmp_path, student, SENTENCES, tiny_bert(2), [term()], eval_dataset=SENTENCES
    )
    batch = collate(SENTENCES)
    labels, _ = batch.pop("labels"), batch.pop("row")
    expected = float(cross_entropy(student(**batch).logits, labels).detach())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert expected > 0.1
    trainer.train()
    assert "eval_loss" not in trainer.state.log_history[0]


def hooks(model):
    return {
        name: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for name, m in model.named_modules()
    }


def test_the_teacher_is_frozen_and_in_eval_mode_before_training(tmp_path):
    teacher = tiny_bert(2).train()
    distiller(tmp_path, tiny_bert(1), SENTENCES, teacher, [term()])
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize("name", ["task_weight", "logit_weight"])
def test_a_weight_of_zero_is_allowed(tmp_path, name):
    trainer = FeatureDistillationTrainer(
        model=tiny_opt(1), args=arguments(tmp_path), train_dataset=ANSWERS, **{name: 0.0}
    )
    assert getattr(trainer, name) == 0


@pytest.mark.parametrize(("model", "data"), MODELS)
def test_student_and_teacher_keep_no_trace_of_the_training(tmp_path, model, data):
    student, teacher = model(1), model(2)
    signature = inspect.signature(student.forward)
    distiller(tmp_path, student, data, teacher, [term()]).train()
    assert inspect.signature(student.forward) == signature
    fresh = model(5).eval()
    fresh.load_state_dict(student.state_dict())
    fresh.config.use_cache = student.config.use_cache  # every transformers trainer sets it
    batch = without(collate(data), "row", "labels")
    fresh(**batch, output_hidden_states=True)
    assert hooks(student) == hooks(teacher) == hooks(fresh)  # transformers leaves some of its own
    one, other = student.eval()(**batch), fresh(**batch)
    assert one.keys() == other.keys()
    assert torch.equal(one.logits, other.logits)


def prompt_tuned():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    return peft.get_peft_model(tiny_opt(1), config)


@pytest.mark.parametrize("student", [lambda: tiny_opt(1), prompt_tuned])
def test_without_teacher_and_terms_it_is_the_plain_trainer(tmp_path, student):
    one, other = student(), student()
    FeatureDistillationTrainer(
        model=one, args=arguments(tmp_path), train_dataset=ANSWERS, data_collator=collate
    ).train()
    plain = [without(row, "row") for row in ANSWERS]
    Trainer(
        model=other, args=arguments(tmp_path), train_dataset=plain, data_collator=collate
    ).train()
    # Up to rounding: the plain trainer computes the head for every token.
    assert moved(weights(one), weights(other)) < 1e-5
    assert moved(weights(one), weights(student())) > 1e-3


# ---- bad input ----


def test_exactly_one_teacher(tmp_path):
    teacher = tiny_bert(2)
    cache = cache_of(teacher, SENTENCES, tmp_path / "c")
    with pytest.raises(InputError, match="teacher_model and teacher_cache: neither given"):
        distiller(tmp_path, tiny_bert(1), SENTENCES)
    with pytest.raises(InputError, match="teacher_model and teacher_cache: both given"):
        distiller(tmp_path, tiny_bert(1), SENTENCES, teacher, teacher_cache=cache)
    with pytest.warns(UserWarning, match="a teacher is given, and nothing is learned from it"):
        distiller(tmp_path, tiny_bert(1), SENTENCES, teacher, logit_loss=None)


def test_two_terms_may_share_a_loss_but_not_a_memory(tmp_path):
    student, teacher = tiny_bert(1), tiny_bert(2)
    for loss in (shared := CKALoss(decay=0.9), ShuffledRows(shared)):
        terms = [FeatureTerm(1, 1, shared), FeatureTerm(2, 2, loss)]
        with pytest.raises(
            InputError, match=r"CKALoss\[1-1\] and .*\[2-2\] share one CKALoss with decay.* its own"
        ):
            distiller(tmp_path, student, SENTENCES, teacher, terms)
    distiller(tmp_path, student, SENTENCES, teacher, [term(alone := CKALoss()), term(alone)])


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((3, 1), r"teacher_layer is 3, the teacher has layers 0 \(embeddings\) to 2"),
        ((1, -5), r"student_layer is -5, the student has layers 0 \(embeddings\) to 1"),
    ],
)
def test_an_unknown_layer_is_refused_before_any_step(tmp_path, layers, words):
    with pytest.raises(InputError, match=words):
        distiller(
            tmp_path, tiny_bert(1, layers=1), SENTENCES, tiny_bert(2),
            [FeatureTerm(*layers, ProcrustesLoss())],
        )  # fmt: skip


def test_several_gpus_in_one_process_are_refused(tmp_path, monkeypatch):
    """`Trainer` would give each a piece of the batch: half its rows, under the whole one's mask."""
    distiller(tmp_path, tiny_opt(0), ANSWERS, tiny_opt(1), [term()])
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    with pytest.raises(InputError, match=r"one process has 2 GPUs, .*torchrun --nproc-per-node 2"):
        distiller(tmp_path, tiny_opt(0), ANSWERS, tiny_opt(1), [term()])


def test_a_cache_without_the_layer_says_what_it_holds(tmp_path):
    cache = cache_of(tiny_bert(2), SENTENCES, tmp_path / "c")
    with pytest.raises(InputError, match=r"teacher_layer 0 is not in the cache .*\[1, 2\]"):
        distiller(
            tmp_path, tiny_bert(1), SENTENCES, terms=[FeatureTerm(0, 0, CKALoss())],
            teacher_cache=cache,
        )  # fmt: skip


def test_a_cache_needs_the_row_of_each_example(tmp_path):
    cache = cache_of(tiny_bert(2), SENTENCES, tmp_path / "c")
    data = [without(row, "row") for row in SENTENCES]
    with pytest.raises(InputError, match="no `row` column"):
        distiller(tmp_path, tiny_bert(1), data, teacher_cache=cache).train()


def test_another_vocabulary_is_refused_before_a_weight_moves(tmp_path):
    student = tiny_opt(1)
    with pytest.raises(InputError, match=r"teacher has 120 logits, the student 100.*one tokenizer"):
        distiller(tmp_path, student, ANSWERS, tiny_opt(2, vocabulary=120)).train()
    assert moved(weights(student), weights(tiny_opt(1))) == 0


@pytest.mark.parametrize("owner", ["student", "teacher"])
def test_a_text_beyond_the_context_is_refused_before_a_weight_moves(tmp_path, owner):
    """Of 32 positions; without the check PyTorch fails on an index, on a GPU for good."""
    longer = {"positions": 64}
    student = tiny_opt(1, **(longer if owner == "teacher" else {}))
    teacher = tiny_opt(2, **(longer if owner == "student" else {}))
    before = weights(student)
    data = answers([33, 8], kept=[3, 2])
    with pytest.raises(
        InputError, match=rf"a batch has 33 tokens, the {owner} takes 32 .*truncate the"
    ):
        distiller(tmp_path, student, data, teacher, [term()]).train()
    assert moved(before, weights(student)) == 0
    distiller(tmp_path, student, answers([32, 8], kept=[3, 2]), teacher, [term()]).train()
    assert moved(before, weights(student)) > 1e-3


def test_an_example_without_answer_is_refused_by_terms_with_one_row_per_text(tmp_path):
    data = [{**ANSWERS[0], "labels": [-100] * 8}, *ANSWERS[1:]]
    with pytest.raises(InputError, match=r"ProcrustesLoss\[-1--1\]: mask keeps no token of examp"):
        distiller(tmp_path, tiny_opt(1), data, tiny_opt(2), [term(pooling="mean")]).train()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"terms": [ProcrustesLoss()]}, r"terms is \[ProcrustesLoss\(\)\]: expected a list of Fea"),
        ({"terms": term()}, "expected a list of FeatureTerm"),
        ({"teacher": "facebook/opt-125m"}, "teacher_model is 'facebook/opt-125m': expected a mod"),
        (
            {"logit_loss": KLDivergenceLoss},
            "logit_loss is <class .*: expected a module, such as KL",
        ),
        (
            {"teacher": None, "teacher_cache": "outputs"},
            "teacher_cache is 'outputs': expected Teach",
        ),
    ],
)
def test_arguments_of_another_kind_are_refused_by_name(tmp_path, given, words):
    with pytest.raises(InputError, match=words):
        distiller(tmp_path, tiny_opt(1), ANSWERS, **{"teacher": tiny_opt(2), **given})


@pytest.mark.parametrize("name", ["task_weight", "logit_weight"])
@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_makes_no_sense_is_refused(tmp_path, name, weight):
    with pytest.raises(InputError, match=rf"{name} is {weight}; expected a finite number"):
        FeatureDistillationTrainer(
            model=tiny_opt(1), args=arguments(tmp_path), train_dataset=ANSWERS, **{name: weight}
        )


class BreaksAtThird(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, student, teacher, mask=None):
        self.calls += 1
        return student.sum() * (math.nan if self.calls == 3 else 1e-6)


def test_a_loss_that_is_not_finite_is_named_and_leaves_its_batch_and_the_checkpoints(tmp_path):
    trainer = distiller(
        tmp_path, tiny_bert(1), SENTENCES * 4, tiny_bert(2), [term(BreaksAtThird())],
        save_strategy="steps", save_steps=1,
    )  # fmt: skip
    told = r"BreaksAtThird\[-1--1\] is nan at step 2; its batch is in .*not_finite_step_2\.safe"
    with pytest.raises(FloatingPointError, match=told):
        trainer.train()
    expected = collate(SENTENCES)
    stored = load_file(tmp_path / "not_finite_step_2.safetensors")
    assert stored.keys() == expected.keys() - {"row"}
    assert all(torch.equal(stored[name], expected[name]) for name in stored)
    assert (tmp_path / "checkpoint-1" / "model.safetensors").exists()
    assert (tmp_path / "checkpoint-2" / "model.safetensors").exists()
    assert not (tmp_path / "checkpoint-3").exists()


@pytest.mark.parametrize(("strategy", "most"), [("group_by_length", 0.15), ("random", 1.0)])
def test_batches_by_length_are_hardly_padded(tmp_path, strategy, most):
    """Lengths 4 to 19, each four times, in batches of four."""
    data = answers([4 + i % 16 for i in range(64)], [2] * 64)
    trainer = distiller(
        tmp_path, tiny_opt(1), data, train_sampling_strategy=strategy, logit_loss=None
    )
    batches = list(trainer.get_train_dataloader())
    masks = torch.cat([batch["attention_mask"].flatten() for batch in batches]).float()
    assert len(batches) == 16
    share = 1 - float(masks.mean())
    assert share < most
    assert strategy == "group_by_length" or share > 0.2


def test_a_student_that_diverged_is_told_by_its_task_loss(tmp_path):
    student = tiny_bert(1)
    with torch.no_grad():
        student.classifier.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="the loss task is nan at step 0"):
        distiller(tmp_path, student, SENTENCES, tiny_bert(2), [term()]).train()


def test_a_batch_without_answers_is_refused(tmp_path):
    data = [{**row, "labels": [-100] * len(row["input_ids"])} for row in ANSWERS]
    with pytest.raises(InputError, match="all labels of a batch are -100; leave examples"):
        distiller(tmp_path, tiny_opt(1), data, tiny_opt(2)).train()


class TakesAnything(nn.Module):
    """A reader's own loss, which hands NaN on instead of refusing it."""

    def forward(self, student, teacher, mask=None):
        return mse_loss(student[mask], teacher[mask])


@pytest.mark.parametrize("loss", [ProcrustesLoss(), TakesAnything()])
def test_nan_features_of_the_teacher_are_told_as_the_teachers_and_leave_the_batch(tmp_path, loss):
    teacher = tiny_bert(2)
    with torch.no_grad():
        teacher.bert.encoder.layer[1].output.dense.weight.fill_(math.nan)
    terms = [FeatureTerm(2, 1, loss)]
    told = r"^the teacher's features of layer 2 are not finite at step 0; its batch is in .*step_0"
    with pytest.raises(FloatingPointError, match=told):
        distiller(tmp_path, tiny_bert(1), SENTENCES, teacher, terms, logit_loss=None).train()
    stored = load_file(tmp_path / "not_finite_step_0.safetensors")
    assert torch.equal(stored["input_ids"], collate(SENTENCES)["input_ids"])


@pytest.mark.parametrize(("model", "data"), [(tiny_bert, SENTENCES), (tiny_opt, ANSWERS)])
def test_nan_logits_of_the_teacher_are_told_as_the_teachers(tmp_path, model, data):
    teacher = model(2)
    with torch.no_grad():
        head = teacher.lm_head if model is tiny_opt else teacher.classifier
        head.bias = nn.Parameter(torch.full(head.weight.shape[:1], math.nan))
    told = r"^the teacher's logits are not finite at step 0; its batch is in "
    with pytest.raises(FloatingPointError, match=told):
        distiller(tmp_path, model(1), data, teacher).train()
    assert (tmp_path / "not_finite_step_0.safetensors").is_file()


def test_what_the_teacher_says_of_padding_does_not_count():
    mask = torch.tensor([[True, False]])
    features = torch.tensor([[[1.0], [math.nan]]])
    assert TeacherOutputs(None, {3: features}, masks={3: mask}).first_nonfinite() == ""
    assert (
        TeacherOutputs(None, {3: features}, masks={3: mask | True}).first_nonfinite()
        == "features of layer 3"
    )
    assert TeacherOutputs(torch.tensor([[math.inf]])).first_nonfinite() == "logits"

"""A training starts anew, stops at a bad gradient, and resumes from a whole checkpoint only."""

import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import arguments, collate, distiller, moved, sentences, tiny_bert, weights
from torch import nn
from transformers import Trainer

from geodistill.distill import FeatureTerm
from geodistill.distill.training import checkpoints
from geodistill.errors import InputError
from geodistill.losses import CKALoss, FeatureGramLoss, ProcrustesLoss, ProjectionLoss, ShuffledRows

DATA = sentences([6, 4, 5, 6], seed=1)


def trainer_in(folder, terms, *, student=None, steps=4, **settings):
    given = {"max_steps": steps, "optim": "adamw_torch", "learning_rate": 1e-3, **settings}
    if "model_init" not in given:
        student = student or tiny_bert(1)
    return distiller(
        folder, student, DATA, teacher_model=tiny_bert(2), terms=terms,
        per_device_train_batch_size=4, **given,
    )  # fmt: skip


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def test_a_second_training_is_the_first(tmp_path):
    """Projection, memory, measured weight and the order of shuffled rows start as they were."""
    torch.manual_seed(0)
    terms = [
        FeatureTerm(-1, -1, ProjectionLoss(32, 32), weight_warmup_batches=2),
        FeatureTerm(1, 1, CKALoss(decay=0.9)),
        FeatureTerm(1, 1, ShuffledRows(ProcrustesLoss())),
    ]
    trainer = trainer_in(tmp_path, terms, model_init=lambda: tiny_bert(1))
    trainer.train()
    first, measured = losses(trainer), trainer.term_weights()
    start = terms[0].loss.weight.detach().clone()
    trainer.train()
    assert losses(trainer) == first
    assert trainer.term_weights() == measured
    assert torch.equal(terms[0].loss.weight, start)
    assert max(first) - min(first) > 1e-3


class InfiniteSlope(nn.Module):
    """Finite, and from its third call on with an infinite gradient."""

    calls = 0

    def forward(self, student, teacher, mask=None):
        self.calls += 1
        value = student.square().sum() * 1e-3
        return value + (student.sum() * 0).abs().sqrt() if self.calls > 2 else value


def test_a_gradient_that_is_not_finite_stops_before_the_weights_move(tmp_path):
    student = tiny_bert(1)
    terms = [FeatureTerm(-1, -1, ProcrustesLoss()), FeatureTerm(1, 1, InfiniteSlope())]
    trainer = trainer_in(tmp_path, terms, student=student, steps=3)
    told = r"gradient of the loss InfiniteSlope\[1-1\] is not finite at step 2, though the loss is"
    with pytest.raises(FloatingPointError, match=told):
        trainer.train()
    assert all(bool(p.isfinite().all()) for p in student.parameters())
    assert moved(weights(student), weights(tiny_bert(1))) > 1e-4


@pytest.fixture
def stored(tmp_path):
    """Checkpoints after steps 2 and 4 of a training with a projection."""
    trainer_in(
        tmp_path, [FeatureTerm(-1, -1, ProjectionLoss(32, 32))], save_strategy="steps", save_steps=2
    ).train()
    return tmp_path


def resumed(folder, where=True):
    trainer = trainer_in(folder, [FeatureTerm(-1, -1, ProjectionLoss(32, 32))], steps=5)
    trainer.train(resume_from_checkpoint=where)
    return trainer


def test_a_whole_checkpoint_is_taken(stored):
    with warnings.catch_warnings(action="error", category=UserWarning):
        assert len(losses(resumed(stored))) == 5


@pytest.mark.parametrize(
    ("name", "cut", "flaw"),
    [
        ("optimizer.pt", False, "optimizer.pt is missing"),
        ("scheduler.pt", False, "scheduler.pt is missing"),
        ("trainer_state.json", False, "trainer_state.json is missing"),
        ("trainer_state.json", True, "trainer_state.json is damaged"),
        ("model.safetensors", False, "the weights are missing"),
        ("model.safetensors", True, "model.safetensors is damaged"),
        ("optimizer.pt", True, "optimizer.pt is damaged"),
        ("rng_state.pth", True, "rng_state.pth is damaged"),
        ("feature_terms.safetensors", True, "feature_terms.safetensors is damaged"),
        ("feature_terms.safetensors", False, "missing .of a trainer without these terms"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_passed_over_or_refused(stored, name, cut, flaw):
    last = stored / "checkpoint-4"
    if cut:
        content = (last / name).read_bytes()
        (last / name).write_bytes(content[: len(content) * 2 // 3])
    else:
        (last / name).unlink()
    with pytest.raises(InputError, match=rf"checkpoint-4, in which .*{flaw}.*complete one is .*-2"):
        resumed(stored, str(last))
    with pytest.warns(UserWarning, match=rf"resumed from checkpoint-2: in checkpoint-4 .*{flaw}"):
        assert resumed(stored)._initial_global_step == 2


def test_without_a_whole_checkpoint_nothing_is_resumed(tmp_path):
    with pytest.raises(InputError, match=r"True, and .* has no complete checkpoint$"):
        resumed(tmp_path)
    with pytest.raises(InputError, match="no folder is found; there is no complete one"):
        resumed(tmp_path, str(tmp_path / "checkpoint-7"))


def test_a_plain_trainers_checkpoint_serves_terms_without_a_state(tmp_path):
    Trainer(
        model=tiny_bert(1),
        args=arguments(tmp_path, max_steps=2, save_strategy="steps", save_steps=2),
        train_dataset=[{k: v for k, v in row.items() if k != "row"} for row in DATA],
        data_collator=collate,
    ).train()
    trainer = trainer_in(tmp_path, [FeatureTerm(-1, -1, ProcrustesLoss())], optim="sgd")
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4
    with pytest.raises(InputError, match=r"feature_terms.safetensors is missing"):
        resumed(tmp_path)


@pytest.mark.parametrize(
    ("terms", "given"),
    [
        ([FeatureTerm(1, -1, ProcrustesLoss(decay=0.9))], r"ProcrustesLoss\[1--1\] \(center=True"),
        ([FeatureTerm(-1, -1, ProcrustesLoss())], r"ProcrustesLoss\[-1--1\] .*, scale=frob"),
        ([FeatureTerm(-1, -1, FeatureGramLoss(decay=0.9))], r"FeatureGramLoss\[-1--1\] "),
        ([FeatureTerm(-1, -1, ProcrustesLoss(decay=0.9), pooling="mean")], "pooling=mean"),
        ([FeatureTerm(-1, -1, ProcrustesLoss(decay=0.9, center=False))], "center=False"),
        ([], "none"),
    ],
)
def test_memories_of_other_terms_are_refused(tmp_path, terms, given):
    first = [FeatureTerm(-1, -1, ProcrustesLoss(decay=0.9))]
    trainer_in(tmp_path, first, save_strategy="steps", save_steps=2, steps=2).train()
    same = trainer_in(tmp_path, [FeatureTerm(-1, -1, ProcrustesLoss(decay=0.9))], steps=2)
    checkpoints.load_terms(same.terms, tmp_path / "checkpoint-2")
    assert torch.equal(same.terms[0].loss.past_xy, first[0].loss.past_xy)
    told = rf"of other terms: .*ProcrustesLoss\[-1--1\] \(center=True.* and given are .*{given}"
    with pytest.raises(InputError, match=told):
        trainer_in(tmp_path, terms).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_terms_whose_parameters_were_trained_cannot_be_left_out(stored):
    with pytest.raises(InputError, match=r"is of ProjectionLoss\[-1--1\].* given are none"):
        trainer_in(stored, [], steps=5).train(resume_from_checkpoint=True)


def test_a_checkpoint_of_an_earlier_version_is_taken(stored):
    path = stored / "checkpoint-4" / "feature_terms.safetensors"
    save_file(load_file(path), path)  # without the names
    assert len(losses(resumed(stored))) == 5


def test_a_checkpoint_of_other_terms_is_refused(stored):
    other = FeatureTerm(-1, -1, ProjectionLoss(16, 32))
    trainer = trainer_in(stored, [other], student=tiny_bert(1, width=16))
    with pytest.raises(
        InputError, match=r"feature_terms.safetensors is of other terms: .*size mis"
    ):
        checkpoints.load_terms(trainer.terms, stored / "checkpoint-4")

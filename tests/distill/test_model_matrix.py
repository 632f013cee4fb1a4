"""Every family and head: the losses of a step by hand, live, cached, and without a teacher."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.model_matrix import CASES, DECODE, Case, observed, table
from support.tiny_models import distiller, moved, weights, without
from support.tiny_project import REPOSITORY
from transformers import Trainer

from geodistill.distill import FeatureTerm, build_cache
from geodistill.losses import ProcrustesLoss


def trained(case, folder, **settings):
    """A trainer after one step, and its log."""
    trainer = distiller(
        folder, case.student(1), case.rows, data_collator=case.collator, max_steps=1,
        per_device_train_batch_size=4, learning_rate=0.01, **settings,
    )  # fmt: skip
    trainer.train()
    return trainer, trainer.state.log_history[0]


def distilled(case, folder, **teacher):
    terms = [FeatureTerm(case.layer, case.layer, ProcrustesLoss())]
    logit_loss = "auto" if case.logits else None
    log = trained(case, folder, terms=terms, logit_loss=logit_loss, **teacher)[1]
    named = {name.partition("[")[0]: value for name, value in log.items()}
    names = ("loss/task", "loss/logit", "loss/ProcrustesLoss")
    parts = {name: named[name] for name in names if name in named}
    assert log["loss"] == pytest.approx(sum(parts.values()), rel=1e-4)
    return parts


cases = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@cases
def test_a_live_teacher_gives_the_losses_done_by_hand(case: Case, tmp_path: Path) -> None:
    expected = case.by_hand()
    assert distilled(case, tmp_path, teacher_model=case.teacher(2)) == pytest.approx(
        expected, rel=1e-3, abs=2e-5
    )
    assert expected["loss/ProcrustesLoss"] > 0.05


@cases
def test_a_cached_teacher_gives_them_too(case: Case, tmp_path: Path) -> None:
    batches = [case.collator(case.rows[i : i + 2]) for i in (0, 2)]
    with torch.no_grad():
        features = observed(case.student(1), case.batch(), case.layer)[1]
        mask = case._mask(case.batch(), case.student(1), features)
    of_tokens = case.positions == "next" or case.head == "masked tokens" or case.family in DECODE
    cache = build_cache(
        case.teacher(2), batches, mask.sum(1).tolist(), tmp_path / "cache", layers=(case.layer,),
        top_k=99 if of_tokens and case.logits else 0, progress=lambda _: None,
    )  # fmt: skip
    found = distilled(case, tmp_path, teacher_cache=cache)
    assert found == pytest.approx(case.by_hand(), rel=5e-3, abs=2e-3)


@cases
def test_without_a_teacher_it_is_the_plain_trainer(case: Case, tmp_path: Path) -> None:
    rows = [without(r, "row", "token_type_ids") for r in case.rows]
    plain_case = replace(case, rows=rows)
    one, mine = trained(plain_case, tmp_path)
    other, theirs = trained(plain_case, tmp_path, kind=Trainer)
    assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert moved(weights(one.model), weights(other.model)) < 1e-6
    assert moved(weights(one.model), weights(case.student(1))) > 1e-6


def test_the_handbook_has_this_matrix() -> None:
    page = (REPOSITORY / "book" / "trainers.md").read_text(encoding="utf-8")
    assert table() in page, f"put this table into book/trainers.md:\n{table()}"

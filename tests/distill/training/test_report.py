"""What is logged, measured in evaluation and written into the model card, by a second way."""

import warnings

import numpy as np
import pytest
import torch
from support.model_matrix import softmax_kl
from support.tiny_models import arguments, collate, distiller, procrustes, sentences, tiny_bert
from transformers import Trainer

from geodistill.distill import FeatureTerm
from geodistill.geometry import geometry_kept, procrustes_distance
from geodistill.losses import CKALoss, KLDivergenceLoss, ProcrustesLoss, ShuffledRows

DATA = sentences([6, 4, 5, 6, 7, 3, 5, 6] * 3, seed=1)
UNSEEN = sentences([5, 6, 7, 4], seed=9)


def trained(folder, terms, *, train=True, **settings):
    given = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "learning_rate": 0.02}
    trainer = distiller(
        folder, tiny_bert(1), DATA, eval_dataset=UNSEEN, teacher_model=tiny_bert(2, width=48),
        terms=terms, logit_loss=KLDivergenceLoss(), **{**given, **settings},
    )  # fmt: skip
    if train:
        trainer.train()
    return trainer


@pytest.mark.parametrize("accumulated", [1, 4])
def test_weights_times_losses_sum_to_the_loss(tmp_path, accumulated):
    """Also over a log that spans a warm-up and a step of fewer micro-batches than the others."""
    trainer = trained(
        tmp_path, [FeatureTerm(-1, -1, ProcrustesLoss(), weight_warmup_batches=2),
                   FeatureTerm(1, 1, CKALoss(), weight=0.5)],
        task_weight=0.3, logit_weight=0.7, logging_steps=2,
        gradient_accumulation_steps=accumulated,
    )  # fmt: skip
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == {1: 3, 4: 1}[accumulated]
    for row in rows:
        names = [name.removeprefix("loss/") for name in row if name.startswith("loss/")]
        assert set(names) == {"task", "logit", "ProcrustesLoss[-1--1]", "CKALoss[1-1]"}
        parts = [row[f"weight/{name}"] * row[f"loss/{name}"] for name in names]
        assert sum(parts) == pytest.approx(row["loss"], rel=1e-5)
        assert min(parts) >= 0
    assert rows[-1]["weight/CKALoss[1-1]"] == pytest.approx(0.5)


def test_evaluation_knows_the_terms_and_the_geometry_kept(tmp_path):
    trainer = trained(tmp_path, [FeatureTerm(2, -1, ProcrustesLoss())], train=False)
    batch = collate(UNSEEN)
    labels, _ = batch.pop("labels"), batch.pop("row")
    mask = batch["attention_mask"].bool()
    with torch.no_grad():
        y, x = (
            model.eval()(**batch, output_hidden_states=True).hidden_states[-1][mask]
            for model in (tiny_bert(1), tiny_bert(2, width=48))
        )
    metrics = trainer.evaluate()
    assert metrics["eval_loss/ProcrustesLoss[2--1]"] == pytest.approx(
        float(procrustes(y, x)), rel=1e-4
    )
    kept = geometry_kept(procrustes_distance, x, y)
    assert metrics["eval_geometry_kept"] == pytest.approx(kept, rel=1e-4)
    assert abs(kept) > 0.01
    assert len(labels) == 4


def test_evaluation_changes_nothing_that_training_uses(tmp_path):
    logs = []
    for strategy in ("no", "steps"):
        terms = [FeatureTerm(1, 1, ShuffledRows(CKALoss())), FeatureTerm(2, 2, CKALoss(decay=0.9))]
        trainer = trained(tmp_path, terms, eval_strategy=strategy, eval_steps=2)
        logs.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert logs[0] == logs[1]
    assert sum("eval_geometry_kept" in row for row in trainer.state.log_history) == 3


def test_the_best_model_may_be_that_of_the_best_geometry(tmp_path):
    trainer = trained(
        tmp_path, [FeatureTerm(-1, -1, ProcrustesLoss(), weight=4.0)], eval_strategy="steps",
        eval_steps=2, save_strategy="steps", save_steps=2, load_best_model_at_end=True,
        metric_for_best_model="geometry_kept", greater_is_better=True,
    )  # fmt: skip
    kept = [r["eval_geometry_kept"] for r in trainer.state.log_history if "eval_geometry_kept" in r]
    assert trainer.state.best_metric == max(kept)
    assert trainer.evaluate()["eval_geometry_kept"] == pytest.approx(max(kept), rel=1e-5)


@pytest.mark.parametrize(
    ("weight", "words"), [(1e5, "dominates"), (1e-5, "hardly counts"), (1.0, "")]
)
def test_a_term_that_is_all_or_nothing_is_told_once(tmp_path, weight, words):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trained(tmp_path, [FeatureTerm(-1, -1, ProcrustesLoss(), weight=weight)],
                learning_rate=1e-9)  # fmt: skip
    said = [str(one.message) for one in told if "weighted loss is" in str(one.message)]
    assert len(said) == bool(words)
    assert not words or f"ProcrustesLoss[-1--1] {words}: its weighted loss is" in said[0]


def test_the_model_card_says_what_was_distilled(tmp_path):
    trainer = trained(tmp_path, [FeatureTerm(-1, 1, ProcrustesLoss(), weight=2.0)])
    kept = trainer.evaluate()["eval_geometry_kept"]
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---")  # what the trainer itself writes
    for words in (
        "Teacher: BertForSequenceClassification, 0.0 million weights",
        "Data: unnamed, 24 examples",
        "Steps: 6",
        "| task | 1 |",
        "| logits: `KLDivergenceLoss()` | 1 |",
        "| `ProcrustesLoss[-1-1]` (teacher layer - student layer) | 2 |",
        f"| eval_geometry_kept | {kept:.4g} |",
        "geodistill 0.1.0",
        "https://arxiv.org/abs/2509.25253",
    ):
        assert words in card, words


def test_the_divergence_of_the_helpers_is_torchs():
    y, x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    value = torch.nn.functional.kl_div(
        y.log_softmax(-1), x.log_softmax(-1), reduction="batchmean", log_target=True
    )
    assert float(softmax_kl(y, x)) == pytest.approx(float(value), rel=1e-5)


def test_predictions_are_those_of_the_plain_trainer(tmp_path):
    """Hidden states, which the terms ask for, are none of them."""
    seen = []

    def keep(prediction):
        seen.append(prediction.predictions)
        return {
            "accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())
        }

    trainer = trained(tmp_path, [FeatureTerm(2, -1, ProcrustesLoss())], train=False)
    trainer.compute_metrics = keep
    metrics = trainer.evaluate()
    plain = Trainer(
        tiny_bert(1), arguments(tmp_path), eval_dataset=UNSEEN, data_collator=collate,
        compute_metrics=keep,
    )  # fmt: skip
    assert metrics["eval_accuracy"] == plain.evaluate()["eval_accuracy"]
    assert seen[0].shape == (4, 3)
    assert np.allclose(*seen)
    assert "eval_geometry_kept" in metrics

"""Texts packed into one row: each model reads each text alone, and pooling is refused."""

import pytest
import torch
from datasets import Dataset
from support.tiny_models import arguments, procrustes
from torch.nn.functional import kl_div
from transformers import DataCollatorWithFlattening, LlamaConfig, LlamaForCausalLM

from geodistill import FeatureDistillationTrainer, FeatureTerm, KLDivergenceLoss, ProcrustesLoss
from geodistill.errors import InputError

TEXTS = [[4, 5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16, 17, 18], [19, 20, 21, 22, 23]]
ROWS = Dataset.from_list([{"input_ids": t, "labels": [-100] * 2 + t[2:]} for t in TEXTS])


def llama(seed, width, layers=2):
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=30, hidden_size=width, intermediate_size=2 * width,
            num_hidden_layers=layers, num_attention_heads=2, initializer_range=0.3)
    )  # fmt: skip


def trainer(folder, **term):
    settings = arguments(
        folder, max_steps=1, learning_rate=0.0, per_device_train_batch_size=4,
        per_device_eval_batch_size=4, eval_strategy="steps",
    )  # fmt: skip
    return FeatureDistillationTrainer(
        llama(1, 32), settings, train_dataset=ROWS, eval_dataset=ROWS,
        data_collator=DataCollatorWithFlattening(), teacher_model=llama(2, 48, 3),
        terms=[FeatureTerm(-1, -1, ProcrustesLoss(), **term)],
        logit_loss=KLDivergenceLoss(temperature=1.0),
    )  # fmt: skip


def rows_by_hand(model):
    """Last features and logits before each labelled token, every text in a call of its own."""
    features, logits = [], []
    for text in TEXTS:
        out = model(torch.tensor([text]), output_hidden_states=True)
        features.append(out.hidden_states[-1][0, 1:-1])
        logits.append(out.logits[0, 1:-1])
    return torch.cat(features), torch.cat(logits)


@torch.no_grad()
def test_packed_texts_do_not_see_each_other_in_either_model(tmp_path):
    (x, p), (y, q) = rows_by_hand(llama(1, 32)), rows_by_hand(llama(2, 48, 3))
    divergence = kl_div(
        p.log_softmax(-1), q.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    geometry = procrustes(x, y).item()
    packed = trainer(tmp_path)
    with torch.enable_grad():
        packed.train()
    logged = {key: value for row in packed.state.log_history for key, value in row.items()}
    assert logged["loss/ProcrustesLoss[-1--1]"] == pytest.approx(geometry, rel=1e-4)
    assert logged["eval_loss/ProcrustesLoss[-1--1]"] == pytest.approx(geometry, rel=1e-4)
    assert logged["loss/logit"] == pytest.approx(divergence.item(), rel=1e-4)
    assert packed.teacher_model.config.use_cache


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_pooling_packed_texts_is_refused(tmp_path, pooling):
    with pytest.raises(InputError, match=r"has 4 packed texts .* expected pooling='all'"):
        trainer(tmp_path, pooling=pooling).train()

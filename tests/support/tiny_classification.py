"""Classification settings whose teacher, a BERT of width 48, is trained within a second."""

from dataclasses import replace

import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from geodistill.experiments.classification.settings import TeacherSettings, smoke_settings
from geodistill.tasks import assets

MINILM = AutoTokenizer.from_pretrained(assets.path("minilm"))


def small_config(vocabulary=30522, **settings):
    return BertConfig(
        vocab_size=vocabulary, hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, **settings,
    )  # fmt: skip


def tiny_settings(folder):
    """Settings of the task product; the teacher's base model is saved in `folder`."""
    torch.manual_seed(0)
    BertModel(small_config()).save_pretrained(folder)
    MINILM.save_pretrained(folder)
    teacher = TeacherSettings(model=str(folder), epochs=1.0, max_train=16, batch_size=16)
    small = {"n_train": 8, "max_test": 8, "n_probe_items": 4}
    return replace(smoke_settings("product"), teacher=teacher, **small)

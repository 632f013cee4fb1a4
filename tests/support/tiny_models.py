"""Models of a few thousand weights and random data for the tests of `geodistill.distill`."""

from dataclasses import fields
from functools import partial
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    PrinterCallback,
    TrainingArguments,
)

from geodistill.distill import FeatureDistillationTrainer, pad

VOCABULARY = 100


def tiny_bert(seed=0, width=32, layers=2, labels=3, vocabulary=VOCABULARY, **settings):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # Larger than usual, so that teachers differ visibly.
        initializer_range=0.2,
        num_labels=labels,
        pad_token_id=0,
        **settings,
    )
    return BertForSequenceClassification(config)


def tiny_opt(seed=0, width=32, layers=2, vocabulary=VOCABULARY, positions=32, projected=None):
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        word_embed_proj_dim=projected or width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        ffn_dim=2 * width,
        max_position_embeddings=positions,
        dropout=0.0,
        init_std=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return OPTForCausalLM(config)


def sentences(lengths, seed=0, labels=3):
    """Classification examples of these lengths; `row` is an example's place."""
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "input_ids": torch.randint(2, VOCABULARY, (n,), generator=generator).tolist(),
            "labels": int(torch.randint(labels, (), generator=generator)),
            "row": i,
        }
        for i, n in enumerate(lengths)
    ]


def answers(lengths, kept, seed=0):
    """Language-model examples: the last `kept[i]` tokens of example i are its answer."""
    rows = sentences(lengths, seed)
    return [
        {**row, "labels": [-100] * (n - k) + row["input_ids"][n - k :]}
        for row, n, k in zip(rows, lengths, kept, strict=True)
    ]


def arguments(folder: Path, **settings):
    """Plain SGD in the order of the data, no clipping, no schedule: a step can be done by hand."""
    fixed = {
        "output_dir": str(folder),
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**{**fixed, **settings})


collate = partial(pad, pad_id=0)


def distiller(folder, model, data, *, kind=FeatureDistillationTrainer, **settings):
    """A silent trainer; settings are those of `arguments`, or its own."""
    names = {field.name for field in fields(TrainingArguments)}
    own = {name: value for name, value in settings.items() if name not in names}
    given = {name: value for name, value in settings.items() if name in names}
    trainer = kind(
        model=model,
        args=arguments(folder, **given),
        train_dataset=data,
        **{"data_collator": collate, **own},
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def logged(trainer, name):
    """The values of this name in a trainer's log."""
    return [row[name] for row in trainer.state.log_history if name in row]


def procrustes(student, teacher):
    """2 - 2 ‖XᵀY‖_* of centred features of unit norm."""
    x, y = (a - a.mean(0) for a in (teacher, student))
    return 2 - 2 * torch.linalg.svdvals((x / x.norm()).T @ (y / y.norm())).sum()


def without(mapping, *names):
    return {name: value for name, value in mapping.items() if name not in names}


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def moved(before, after):
    """Largest change over all weights."""
    return max(float((before[name] - after[name]).abs().max()) for name in before)

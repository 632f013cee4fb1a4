"""Students made from a teacher: narrower or shallower, with embeddings derived from its own."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    set_seed,
)

from geodistill.distill.models.layer_selection import check_layers, take_layers, uniform_layer_map
from geodistill.errors import InputError

__all__ = [
    "bert_student",
    "check_layers",
    "opt_student",
    "pca_init_embeddings",
    "principal_directions",
    "take_layers",
    "uniform_layer_map",
]

BERT_HEAD_WIDTH, OPT_HEAD_WIDTH = 32, 64


def principal_directions(embeddings: Tensor, width: int) -> Tensor:
    """Principal directions (d, width) of an embedding matrix (n, d), largest variance first.

    Raises:
        InputError: `width` is not in 1..d.
    """
    d = embeddings.shape[1]
    if not 1 <= width <= d:
        raise InputError(f"width is {width}; expected 1 to {d}, the teacher's embedding width")
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    top = vectors.flip(-1)[:, :width]
    # An eigenvector's sign is arbitrary; fixing it makes students equal on every machine.
    sign = top.gather(0, top.abs().argmax(dim=0, keepdim=True)).sign()
    directions: Tensor = (top * sign).to(embeddings.dtype)
    return directions


def check_size(layers: int, width: int, head_width: int, teacher_width: int) -> None:
    """Raise InputError unless `width` is a multiple of `head_width`, at most `teacher_width`."""
    if layers < 1:
        raise InputError(f"layers is {layers}; expected 1 or more")
    if width < head_width or width % head_width:
        raise InputError(f"width is {width}; expected a multiple of {head_width}, one head's width")
    if width > teacher_width:
        raise InputError(
            f"width is {width}; expected at most {teacher_width}, the teacher's embedding width"
        )


def bert_student(
    teacher: PreTrainedModel, *, width: int, layers: int, seed: int
) -> BertForSequenceClassification:
    """A small BERT classifier whose embeddings are set by `pca_init_embeddings`.

    Args:
        teacher: any encoder that classifies (`Auto...ForSequenceClassification`); the student gets
            its vocabulary, positions and labels.
        width: hidden size, a multiple of 32 (the width of a head), at most the teacher's.
        layers: number of blocks.
        seed: for the randomly initialised weights.

    Raises:
        InputError: the width or the number of layers is not possible.

    Example:
        >>> teacher = BertForSequenceClassification(BertConfig(hidden_size=96))
        >>> bert_student(teacher, width=32, layers=1, seed=0).config.hidden_size
        32
    """
    embeddings: Any = teacher.get_input_embeddings()
    check_size(layers, width, BERT_HEAD_WIDTH, embeddings.embedding_dim)
    copied = ("vocab_size", "max_position_embeddings", "pad_token_id", "id2label", "label2id")
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // BERT_HEAD_WIDTH,
        intermediate_size=4 * width,
        type_vocab_size=getattr(teacher.config, "type_vocab_size", 0) or 1,  # some have no types
        **{name: getattr(teacher.config, name) for name in copied},
    )
    config.problem_type = teacher.config.problem_type
    set_seed(seed)
    student = BertForSequenceClassification(config)
    pca_init_embeddings(student, teacher)
    return student


def opt_student(
    teacher: PreTrainedModel, *, width: int, layers: int, max_positions: int, seed: int
) -> OPTForCausalLM:
    """A small OPT language model with the teacher's vocabulary.

    Its token embeddings, which the head shares, are set by `pca_init_embeddings`, the other weights
    are random: this is the OPT architecture, without Meta's weights.

    Args:
        teacher: any causal language model with input embeddings.
        width: hidden size, a multiple of 64 (the width of a head), at most the teacher's.
        layers: number of blocks.
        max_positions: longest sequence in tokens.
        seed: for the randomly initialised weights.

    Raises:
        InputError: the width or the number of layers is not possible.

    Example:
        >>> teacher = OPTForCausalLM(OPTConfig(hidden_size=96, vocab_size=40, num_hidden_layers=1))
        >>> opt_student(teacher, width=64, layers=1, max_positions=32, seed=0).config.vocab_size
        40
    """
    embeddings: Any = teacher.get_input_embeddings()
    check_size(layers, width, OPT_HEAD_WIDTH, embeddings.embedding_dim)
    config = OPTConfig(
        vocab_size=embeddings.num_embeddings,
        hidden_size=width,
        word_embed_proj_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=width // OPT_HEAD_WIDTH,
        ffn_dim=4 * width,
        max_position_embeddings=max_positions,
        dropout=0.0,
        bos_token_id=teacher.config.bos_token_id,
        eos_token_id=teacher.config.eos_token_id,
        pad_token_id=teacher.config.pad_token_id,
    )
    set_seed(seed)
    student = OPTForCausalLM(config)
    pca_init_embeddings(student, teacher)
    return student


@torch.no_grad()
def pca_init_embeddings(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Initialise the student's embeddings as the teacher's in their top principal directions.

    The directions are those of the token embeddings. Between models of one type, other tables (of
    positions, of segments) are projected on them too if both have the same number of rows.

    Args:
        student: any model with token embeddings; changed in place.
        teacher: a model with the same vocabulary, at least as wide.

    Raises:
        InputError: the vocabularies differ, or the student's embeddings are wider.

    Example:
        >>> small = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
        >>> models = [BertForSequenceClassification(BertConfig(hidden_size=d, **small))
        ...           for d in (64, 32)]
        >>> teacher, student = models
        >>> pca_init_embeddings(student, teacher)
        >>> source, target = (m.get_input_embeddings().weight for m in models)
        >>> torch.allclose(target, source @ principal_directions(source, 32), atol=1e-6)
        True
    """
    source: Any = teacher.get_input_embeddings()
    target: Any = student.get_input_embeddings()
    if source.num_embeddings != target.num_embeddings:
        raise InputError(
            f"student has embeddings of {target.num_embeddings} tokens; expected "
            f"{source.num_embeddings}, the teacher's"
        )
    weight = source.weight.cpu()  # computed on the CPU, to be equal for every device
    directions = principal_directions(weight, target.embedding_dim)
    target.weight.copy_(weight @ directions)
    if student.config.model_type != teacher.config.model_type:
        return
    teacher_modules = dict(teacher.base_model.named_modules())
    for name, table in student.base_model.named_modules():
        if isinstance(table, nn.Embedding) and table is not target:
            shape = (table.num_embeddings, source.embedding_dim)
            other: Any = teacher_modules[name]
            if other.weight.shape == shape and table.embedding_dim == target.embedding_dim:
                table.weight.copy_(other.weight.cpu() @ directions)

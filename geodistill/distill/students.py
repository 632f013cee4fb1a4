"""Students made from a teacher: narrower, shallower, embeddings started from the teacher's."""

from typing import Any

import torch
from torch import Tensor

from geodistill.errors import InputError


def principal_directions(embeddings: Tensor, width: int) -> Tensor:
    """Top principal directions of an embedding matrix.

    Args:
        embeddings: (vocabulary, d).
        width: number of directions, 1..d.

    Returns:
        (d, width), orthonormal columns, largest variance first.

    Raises:
        InputError: `width` is out of range.
    """
    d = embeddings.shape[1]
    if not 1 <= width <= d:
        raise InputError(f"width is {width}; expected 1 to {d}, the teacher's embedding width")
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    top = vectors.flip(-1)[:, :width]
    # An eigenvector's sign is free; fixing it makes students equal on every machine.
    sign = top.gather(0, top.abs().argmax(dim=0, keepdim=True)).sign()
    directions: Tensor = (top * sign).to(embeddings.dtype)
    return directions


def bert_student(teacher: Any, *, width: int, layers: int, seed: int) -> Any:
    """A BERT classifier of `layers` x `width`, its embeddings by `principal_start`.

    Args:
        teacher: `BertForSequenceClassification`.
        width: hidden size, a multiple of 32 (the head size), at most the teacher's.
        layers: number of blocks.
        seed: of the weights that start at random.
    """
    from transformers import BertConfig, BertForSequenceClassification, set_seed

    if width < 32 or width % 32:
        raise InputError(f"width is {width}; expected a multiple of 32, the size of one head")
    keep = (
        "vocab_size",
        "max_position_embeddings",
        "type_vocab_size",
        "pad_token_id",
        "num_labels",
    )
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
        **{name: getattr(teacher.config, name) for name in keep},
    )
    config.problem_type = teacher.config.problem_type
    set_seed(seed)
    student = BertForSequenceClassification(config)
    source, target = teacher.bert.embeddings, student.bert.embeddings
    _principal_start(
        [source.word_embeddings, source.position_embeddings, source.token_type_embeddings],
        [target.word_embeddings, target.position_embeddings, target.token_type_embeddings],
    )
    return student


def opt_student(
    teacher: Any, *, width: int, layers: int, positions: int, seed: int, tied: bool = True
) -> Any:
    """An OPT language model of `layers` x `width` with the teacher's vocabulary.

    Its token embeddings start by `principal_start`; the rest at random: this is the OPT
    architecture, not Meta's weights.

    Args:
        teacher: any causal language model with input embeddings.
        width: hidden size, a multiple of 64 (the head size), at most the teacher's.
        layers: number of blocks.
        positions: longest sequence in tokens.
        seed: of the weights that start at random.
        tied: whether head and embeddings are one matrix; else the head starts as their copy.
    """
    from transformers import OPTConfig, OPTForCausalLM, set_seed

    if width < 64 or width % 64:
        raise InputError(f"width is {width}; expected a multiple of 64, the size of one head")
    embeddings = teacher.get_input_embeddings()
    config = OPTConfig(
        vocab_size=embeddings.num_embeddings,
        hidden_size=width,
        word_embed_proj_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        ffn_dim=4 * width,
        max_position_embeddings=positions,
        dropout=0.0,
        bos_token_id=teacher.config.bos_token_id,
        eos_token_id=teacher.config.eos_token_id,
        pad_token_id=teacher.config.pad_token_id,
        tie_word_embeddings=tied,
    )
    set_seed(seed)
    student = OPTForCausalLM(config)
    own = student.model.decoder.embed_tokens
    _principal_start([embeddings], [own])
    if not tied:
        student.lm_head.weight.data.copy_(own.weight)
    return student


@torch.no_grad()
def _principal_start(sources: list[Any], targets: list[Any]) -> None:
    """Copy the sources, projected on the first source's principal directions, into the targets."""
    weights = [source.weight.cpu() for source in sources]  # so that a GPU's student starts equal
    directions = principal_directions(weights[0], targets[0].embedding_dim)
    for weight, target in zip(weights, targets, strict=True):
        target.weight.copy_(weight @ directions)

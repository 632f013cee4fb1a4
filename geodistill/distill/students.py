"""Students made from a teacher: narrower, shallower, embeddings started from the teacher's."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

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


def same_depth(teacher: int, student: int) -> tuple[int, ...]:
    """The teacher's layer, of `teacher`, for each of the student's 1 to `student`."""
    return tuple(max(1, round(layer * teacher / student)) for layer in range(1, student + 1))


def check_width(width: int, head: int, d_teacher: int) -> None:
    """Raise InputError unless `width` is a multiple of `head`, at most `d_teacher`."""
    if width < head or width % head:
        raise InputError(f"width is {width}; expected a multiple of {head}, the size of one head")
    if width > d_teacher:
        raise InputError(
            f"width is {width}; expected at most {d_teacher}, the teacher's embedding width"
        )


def check_layers(layers: int, teacher: int) -> None:
    """Raise InputError unless `layers` is 1 to `teacher`, its number of layers."""
    if not 1 <= layers <= teacher:
        raise InputError(f"layers is {layers}; expected 1 to {teacher}, the teacher's")


def bert_student(teacher: Any, *, width: int, layers: int, seed: int) -> Any:
    """A BERT classifier of `layers` x `width`, its embeddings by `principal_start`.

    Args:
        teacher: any encoder that classifies (`Auto...ForSequenceClassification`); the student has
            its vocabulary, its positions and its labels.
        width: hidden size, a multiple of 32 (the head size), at most the teacher's.
        layers: number of blocks.
        seed: of the weights that start at random.

    Raises:
        InputError: a width that is none of those.
    """
    from transformers import BertConfig, BertForSequenceClassification, set_seed

    check_width(width, 32, teacher.get_input_embeddings().embedding_dim)
    keep = (
        "vocab_size",
        "max_position_embeddings",
        "pad_token_id",
        "num_labels",
    )
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
        type_vocab_size=getattr(teacher.config, "type_vocab_size", 0) or 1,  # some have no types
        **{name: getattr(teacher.config, name) for name in keep},
    )
    config.problem_type = teacher.config.problem_type
    set_seed(seed)
    student = BertForSequenceClassification(config)
    principal_start(student, teacher)
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

    embeddings = teacher.get_input_embeddings()
    check_width(width, 64, embeddings.embedding_dim)
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
    student: Any = OPTForCausalLM(config)
    principal_start(student, teacher)
    if not tied:
        student.lm_head.weight.data.copy_(student.get_input_embeddings().weight)
    return student


def truncate(teacher: Any, layers: int) -> Any:
    """A copy of the teacher with `layers` of its blocks, by `same_depth`; the last one stays.

    Args:
        teacher: a model whose blocks stand in one list, as in most.
        layers: number of blocks to keep.

    Raises:
        InputError: the teacher has not as many, or no such list.
    """
    depth = teacher.config.num_hidden_layers
    check_layers(layers, depth)
    student = copy.deepcopy(teacher)
    lists = [m for m in student.base_model.modules() if isinstance(m, nn.ModuleList)]
    stacks = [blocks for blocks in lists if len(blocks) == depth]
    if len(stacks) != 1:
        raise InputError(
            f"teacher {type(teacher).__name__} has {len(stacks)} lists of {depth} blocks; "
            "expected one to take layers from"
        )
    kept = [layer - 1 for layer in same_depth(depth, layers)]
    for place in reversed(range(depth)):
        if place not in kept:
            del stacks[0][place]
    for place, block in enumerate(stacks[0]):
        for part in block.modules():
            if hasattr(part, "layer_idx"):  # where attention finds its keys in a cache
                vars(part)["layer_idx"] = place
    student.config.num_hidden_layers = layers
    if getattr(student.config, "layer_types", None):
        student.config.layer_types = [teacher.config.layer_types[place] for place in kept]
    return student.requires_grad_(True)  # a frozen teacher's copy would not learn


@torch.no_grad()
def principal_start(student: Any, teacher: Any) -> None:
    """Start the student's embeddings as the teacher's, on the top principal directions of these.

    The directions are those of the token embeddings. Models of one kind have other tables too, of
    positions or of segments: these are carried over alike where student and teacher have equally
    many rows of them.

    Args:
        student: any model with a table of token embeddings; changed in place.
        teacher: one with the same vocabulary, at least as wide.

    Raises:
        InputError: another vocabulary, a student whose embeddings are wider.
    """
    source, own = teacher.get_input_embeddings(), student.get_input_embeddings()
    if source.num_embeddings != own.num_embeddings:
        raise InputError(
            f"student has embeddings of {own.num_embeddings} tokens; expected "
            f"{source.num_embeddings}, the teacher's"
        )
    weight = source.weight.cpu()  # so that a GPU's student starts equal
    directions = principal_directions(weight, own.embedding_dim)
    own.weight.copy_(weight @ directions)
    if student.config.model_type != teacher.config.model_type:
        return
    theirs = dict(teacher.base_model.named_modules())
    for name, table in student.base_model.named_modules():
        if isinstance(table, nn.Embedding) and table is not own:
            shape = (table.num_embeddings, source.embedding_dim)
            if theirs[name].weight.shape == shape and table.embedding_dim == own.embedding_dim:
                table.weight.copy_(theirs[name].weight.cpu() @ directions)

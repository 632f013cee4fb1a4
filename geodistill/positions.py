"""How many tokens a text model takes and how many it knows, read from its tables."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn

NO_LIMIT = 1 << 40
_POSITION_TABLES = ("position_embeddings", "embed_positions", "position_embedding", "wpe")
_limits: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()


def max_positions(model: Any) -> int:
    """The number of tokens that a text model takes.

    A table of learned positions decides, less the rows that it reserves: RoBERTa's positions start
    after the padding index, OPT's after an offset. Relative and rotary positions have no limit.

    Args:
        model: any module; of an encoder-decoder, give one of the two.

    Example:
        >>> from transformers import RobertaConfig, RobertaModel
        >>> config = RobertaConfig(hidden_size=16, num_attention_heads=2, num_hidden_layers=1)
        >>> max_positions(RobertaModel(config)), config.max_position_embeddings
        (510, 512)
    """
    if model not in _limits:
        _limits[model] = min(_position_rows(model), default=NO_LIMIT)
    return _limits[model]


def max_tokens(model: Any) -> int:
    """`max_positions`; of a model with rotary positions, what its configuration says."""
    configured = int(getattr(model.config, "max_position_embeddings", None) or NO_LIMIT)
    return min(max_positions(model), configured if configured > 0 else NO_LIMIT)  # XLNet's is -1


def max_tokens_of(config: Any) -> int:
    """`max_tokens` of the text model that a configuration describes, without its weights.

    Example:
        >>> from transformers import RobertaConfig
        >>> max_tokens_of(RobertaConfig(max_position_embeddings=514))
        512
    """
    from transformers import AutoModel

    with torch.device("meta"):
        return max_tokens(AutoModel.from_config(config))  # type: ignore[no-untyped-call]


def num_embeddings(model: Any) -> int | None:
    """The number of different tokens that a model embeds; None if it reads no tokens."""
    try:
        embeddings = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # plain modules, speech
        return None
    return getattr(embeddings, "num_embeddings", None)


def _position_rows(model: nn.Module) -> list[int]:
    """Rows of each table of positions that is beside a table of tokens (images have patches)."""
    rows = []
    for module in model.modules():
        tables = {n: m for n, m in module.named_children() if isinstance(m, nn.Embedding)}
        for name in tables.keys() & {*_POSITION_TABLES} if len(tables) > 1 else ():
            table = tables[name]
            padding = -1 if table.padding_idx is None else table.padding_idx
            rows.append(int(table.num_embeddings) - int(getattr(table, "offset", padding + 1)))
        sines = vars(module).get("_buffers", {}).get("embed_positions")  # GPT-J, CodeGen
        if sines is not None:
            rows.append(len(sines))
    return rows

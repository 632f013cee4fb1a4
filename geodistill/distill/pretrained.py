"""Load a pretrained model, refusing weights that do not fit instead of drawing them at random."""

from __future__ import annotations

from typing import Any

from geodistill.errors import InputError

_OBSOLETE = ("masked_bias", "position_ids", "inv_freq")  # buffers that older versions stored
_POOLER = "pooler"  # of no hidden state: a part of the head


def load_pretrained(auto_class: Any, name: Any, *, new_head: bool = False, **options: Any) -> Any:
    """`auto_class.from_pretrained(name)`, checked to have loaded every weight.

    `transformers` draws missing weights at random and ignores those that it does not know, with a
    message in its log. A file whose names carry a prefix, such as `_orig_mod.` of a compiled model
    or `module.` of a parallel one, then gives a random model. A model without its head ignores the
    head's weights.

    Args:
        auto_class: such as `AutoModel` or `AutoModelForCausalLM`.
        name: folder or hub name.
        new_head: whether the head may be missing, to be trained.
        **options: of `from_pretrained`.

    Raises:
        InputError: weights of the body, or of the head unless it may be new, are missing, or the
            file has layers that the configuration lacks.
        Exception: whatever `from_pretrained` raises.

    Example:
        >>> import tempfile
        >>> from transformers import AutoModel, BertConfig, BertModel
        >>> bert = BertModel(BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bert.save_pretrained(folder)
        ...     load_pretrained(AutoModel, folder).config.hidden_size
        12
    """
    model, info = auto_class.from_pretrained(name, output_loading_info=True, **options)
    body, prefix = model.base_model, f"{model.base_model_prefix}."
    parts = {part for part, _ in body.named_children()} - {_POOLER}

    def of_body(key: str) -> bool:
        return key.removeprefix(prefix).partition(".")[0] in parts

    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if new_head or body is model:
        missing = [key for key in missing if of_body(key)]
    if not missing:  # else they may be the missing ones under another name
        unexpected = [key for key in unexpected if of_body(key) and not key.endswith(_OBSOLETE)]
    if missing or unexpected:
        raise InputError(
            f"{_summary(missing)} missing and {_summary(unexpected)} unexpected weights in {name}, "
            f"read as {type(model).__name__}: expected a folder written by save_pretrained of the "
            "plain model (of a compiled one, model._orig_mod)"
        )
    return model


def _summary(keys: list[str]) -> str:
    return f"{len(keys)} ({keys[0]}{', ...' if len(keys) > 1 else ''})" if keys else "0"

"""What a model computes on the way: the head on the rows that count alone, outputs of a forward."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def language_head(model: Any) -> Any:
    """The layer that gives a logit a token, or None: classifiers and bare encoders have none."""
    find = getattr(model, "get_output_embeddings", None)
    return None if find is None else find()


@contextmanager
def head_on_rows(model: Any, mask: Tensor) -> Iterator[None]:
    """While open, a causal language model gives logits (rows, vocabulary) at the kept positions.

    The head of a small model costs more than all its blocks, and only a few tokens of a prompt with
    its answer are scored. Nothing is left on the model afterwards.

    Args:
        model: with `get_output_embeddings()`.
        mask: (b, t), the positions kept.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][mask],))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def recorded(model: Any, *, grad: bool) -> Iterator[list[Any]]:
    """While open, whoever calls `model` has it return `hidden_states`; those outputs are listed.

    So a trainer that calls the model itself, and hands out other outputs or none, need not call it
    again for the features. TRL's fused head calls the model below the head and hands on nothing of
    what that returns, OPT's own passes that model by: so both are heard, the inner one first.

    Args:
        model: a `transformers` model, also within PEFT's; None records nothing.
        grad: list only outputs of calls that were made with gradient (True) or without (False).
    """
    outputs: list[Any] = []

    def ask(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "output_hidden_states": True}

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if torch.is_grad_enabled() == grad and getattr(output, "hidden_states", None):
            outputs.append(output)

    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    modules = [] if model is None else dict.fromkeys([whole, whole.base_model])
    hooks = [module.register_forward_pre_hook(ask, with_kwargs=True) for module in modules]
    hooks += [module.register_forward_hook(keep) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()

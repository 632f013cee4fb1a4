"""Forward hooks: the language head on some positions only, and outputs of calls made elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from geodistill.distill.feature_term import loss_mask


def lm_head(model: Any) -> Any:
    """The layer that gives one logit per token of the vocabulary; None in classifiers, encoders."""
    get_head = getattr(model, "get_output_embeddings", None)
    return None if get_head is None else get_head()


@contextmanager
def lm_head_on_positions(model: Any, mask: Tensor) -> Iterator[None]:
    """While open, a causal language model gives logits (n, vocabulary) at n positions of `mask`.

    The head of a small model costs more than all its blocks, and few tokens are scored.
    """
    hook = lm_head(model).register_forward_pre_hook(lambda _, inputs: (inputs[0][mask],))
    try:
        yield
    finally:
        hook.remove()


def teacher_forward(
    teacher: Any, inputs: Mapping[str, Any], mask: Tensor, hidden_states: bool = True
) -> Any:
    """Output of a teacher; a language model's logits are those at the True positions of `mask`."""
    inputs = {name: x for name, x in inputs.items() if name not in ("labels", "row")}
    headless = lm_head(teacher) is None
    with torch.no_grad(), nullcontext() if headless else lm_head_on_positions(teacher, mask):
        return teacher(**inputs, output_hidden_states=hidden_states)


def token_loss(
    model: nn.Module, unwrapped: nn.Module, inputs: Mapping[str, Any], hidden_states: bool
) -> tuple[Tensor, Any, Sequence[Tensor]]:
    """Mean cross-entropy of the labelled tokens, for which alone the head is computed.

    Args:
        model: possibly wrapped for mixed precision or several processes.
        unwrapped: the language model inside.
        inputs: with labels (b, t).
        hidden_states: whether to return them, after the loss and the outputs.
    """
    mask = loss_mask(inputs)
    targets = inputs["labels"][:, 1:][mask[:, :-1]]
    inputs = {name: x for name, x in inputs.items() if name != "labels"}
    with lm_head_on_positions(unwrapped, mask):
        outputs = model(**inputs, output_hidden_states=hidden_states)
    loss = nn.functional.cross_entropy(outputs["logits"].float(), targets)
    return loss, outputs, outputs.get("hidden_states", ())


@contextmanager
def record_outputs(model: Any, *, grad: bool) -> Iterator[list[Any]]:
    """While open, every call of `model` computes `hidden_states`, and its output is recorded.

    A trainer that calls the model itself then needs no second forward pass for the features. Hooks
    are on the model and on the one below its head, whose output comes first: TRL's fused head calls
    only the latter, OPT's own forward bypasses it.

    Args:
        model: a `transformers` model, possibly inside PEFT's; None records nothing.
        grad: record only calls made with gradient (True) or without (False).

    Yields:
        The list of outputs, which grows.
    """
    outputs: list[Any] = []

    def request(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "output_hidden_states": True}

    def record(_: nn.Module, __: Any, output: Any) -> None:
        if torch.is_grad_enabled() == grad and getattr(output, "hidden_states", None):
            outputs.append(output)

    with_head = model.get_base_model() if hasattr(model, "get_base_model") else model
    modules = [] if model is None else dict.fromkeys([with_head, with_head.base_model])
    hooks = [module.register_forward_pre_hook(request, with_kwargs=True) for module in modules]
    hooks += [module.register_forward_hook(record) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()

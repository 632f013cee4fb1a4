"""What a model predicts and what it reads: asked of the model, as `transformers` would."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss
from transformers.utils.generic import find_labels

from geodistill.layers.tokenized import in_eval

_SOFTMAX_PER_POSITION = ("TokenClassification", "AudioFrameClassification")
"""Heads whose loss is a softmax, whatever `problem_type` and the labels are."""
_REFUSED = (ValueError, IndexError, TypeError, KeyError, AttributeError, RuntimeError)
"""What models raise on inputs that they do not accept, by missing arguments or other shapes."""
_logger = logging.getLogger(__name__)
_names: weakref.WeakKeyDictionary[nn.Module, tuple[frozenset[str], bool]]
_names = weakref.WeakKeyDictionary()
_rules: weakref.WeakKeyDictionary[nn.Module, LabelRule] = weakref.WeakKeyDictionary()


def base_of(model: Any) -> Any:
    """The model itself, or the one inside PEFT's or `torch.compile`'s."""
    model = getattr(model, "_orig_mod", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def library_class(model: Any) -> str:
    """Name of the class of `transformers` that a model is, or inherits from; may be empty."""
    kinds = type(base_of(model)).__mro__
    return next((k.__name__ for k in kinds if k.__module__.startswith("transformers.models.")), "")


def lm_head(model: Any) -> Any:
    """The layer that gives one logit per token of the vocabulary; None in classifiers, encoders."""
    get_head = getattr(model, "get_output_embeddings", None)
    try:
        return None if get_head is None else get_head()
    except NotImplementedError:  # speech encoders
        return None


def is_encoder_decoder(model: Any) -> bool:
    """Whether labels are tokens of a decoder, whose positions are not those of the inputs."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


@dataclass(frozen=True)
class LabelRule:
    """How a model's own loss reads a label per token.

    Attributes:
        shifted: whether a position's label is the next token, as in causal language models.
        takes_kept: whether the loss is the same from logits at the labelled positions alone, with
            their targets as `shift_labels`.
    """

    shifted: bool
    takes_kept: bool = False


def label_rule(model: Any) -> LabelRule:
    """The rule of a model, found by asking for its loss on four tokens.

    With a label at the last token alone, the loss for label a less that for label b is the
    difference of two logits at the position that predicts it. Label a is 0, and b the label whose
    differences at the two positions are furthest apart. A head whose logits are all equal cannot
    tell; then the model's `loss_type` decides.

    Example:
        >>> from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel
        >>> config = BertConfig(vocab_size=9, hidden_size=12, num_hidden_layers=1, is_decoder=True)
        >>> [label_rule(kind(config)).shifted for kind in (BertForMaskedLM, BertLMHeadModel)]
        [False, True]
    """
    model = base_of(model)
    if model not in _rules:
        _rules[model] = _ask_for_rule(model)
    return _rules[model]


def takes_labels(model: Any) -> bool:
    """Whether a text model's forward takes labels, or passes on all that it is given."""
    named, takes_others = forward_names(model)
    return {"input_ids", "labels"} <= named or (takes_others and not named)


def share_label_rule(teacher: Any, student: Any) -> None:
    """Let a teacher that takes no labels, as one without head, count the student's positions."""
    if not takes_labels(teacher):
        _rules[base_of(teacher)] = label_rule(student)


@torch.no_grad()
def _ask_for_rule(model: Any) -> LabelRule:
    if is_encoder_decoder(model) or not takes_labels(model):
        return LabelRule(shifted=False)
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), _unobserved(model):
            return _answer(model)
    except _REFUSED as error:
        rule = _rule_of_class(model)
        target = "the next token's" if rule.shifted else "its own token's"
        _logger.info(
            "%s gives no loss on four tokens (%s): a label is taken as %s", type(model).__name__,
            error, target,
        )  # fmt: skip
        return rule


@contextmanager
def _unobserved(model: nn.Module) -> Iterator[None]:
    """Eval mode without hooks of other code than the model's; afterwards all is as it was.

    Hooks that the model registers meanwhile stay: `transformers` captures features by them.
    """
    hidden = []
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if not _is_of_libraries(hook)]:
                hidden.append((hooks, key, hooks.pop(key)))
    try:
        with in_eval(model):
            yield
    finally:
        for hooks, key, hook in hidden:
            hooks[key] = hook


def _is_of_libraries(hook: Any) -> bool:
    origin = getattr(getattr(hook, "func", hook), "__module__", None) or type(hook).__module__
    return origin.partition(".")[0] in ("transformers", "accelerate", "peft", "torch")


def _rule_of_class(model: Any) -> LabelRule:
    loss = LOSS_MAPPING.get(getattr(model, "loss_type", None) or "")
    return LabelRule(shifted=loss is ForCausalLMLoss)


def _answer(model: Any) -> LabelRule:
    device = next(model.parameters()).device
    ids = torch.arange(3, 7, device=device).unsqueeze(0)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def ask(label: int, **others: Any) -> tuple[float, Tensor]:
        labels = torch.full_like(ids, -100)
        labels[0, -1] = label
        output = model(**inputs, labels=labels, **others)
        if isinstance(output, Mapping):
            return float(output["loss"]), output["logits"]
        return float(output[0]), output[1]

    first, logits = ask(0)
    differences = (logits[0, -2:] - logits[0, -2:, :1]).float()  # of each label to label 0
    spread = (differences[0] - differences[1]).abs()
    label = int(spread.argmax())
    if not spread[label]:
        return _rule_of_class(model)
    second, _ = ask(label)
    errors = [abs(float(differences[p, label]) - (first - second)) for p in (0, 1)]
    rule = LabelRule(shifted=errors[0] < errors[1])
    if not rule.shifted or lm_head(model) is None:
        return rule
    hook = lm_head(model).register_forward_pre_hook(lambda _, x: (x[0][:, -2], *x[1:]))
    try:
        again, _ = ask(0, shift_labels=torch.zeros(1, dtype=torch.long, device=device))
    except _REFUSED:
        return rule
    finally:
        hook.remove()
    return LabelRule(shifted=True, takes_kept=abs(again - first) < 1e-3 * (1 + abs(first)))


def problem_type(model: Any, labels: Tensor | None = None) -> str:
    """The kind of a head, as `config.problem_type` names it.

    Args:
        model: of any class.
        labels: of a batch, which decide where the configuration does not.

    Returns:
        "single_label_classification", for every head whose logits are those of a softmax, such as
        a language model's; "multi_label_classification"; or "regression".
    """
    config, head = getattr(model, "config", None), library_class(model)
    by_labels = "Classification" in head and not head.endswith(_SOFTMAX_PER_POSITION)
    if lm_head(base_of(model)) is not None or (head and not by_labels):
        return "single_label_classification"
    if declared := getattr(config, "problem_type", None):
        return str(declared)
    if getattr(config, "num_labels", None) == 1:
        return "regression"
    if labels is not None and labels.is_floating_point():
        return "multi_label_classification" if labels.dim() > 1 else "regression"
    return "single_label_classification"


def forward_names(model: Any) -> tuple[frozenset[str], bool]:
    """The inputs that a model's forward names, and whether it takes others by keyword."""
    model = base_of(model)
    if model not in _names:
        parameters = signature(model.forward).parameters.values()
        kinds = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
        named = frozenset(p.name for p in parameters if p.kind not in kinds)
        _names[model] = named, any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    return _names[model]


def readable(inputs: Mapping[str, Any], model: Any, others: frozenset[str]) -> dict[str, Any]:
    """The inputs that a teacher reads: all that its forward names, but labels.

    A forward with `**kwargs` also gets the inputs that no forward names.

    Args:
        inputs: of a batch.
        model: the teacher.
        others: names that only the student's forward has, or labels.
    """
    named, takes_others = forward_names(model)
    others = others if named else frozenset()  # of a wrapper: it passes on all that it is given
    answers = {"labels", "row", "return_loss", "shift_labels", *find_labels(type(base_of(model)))}  # type: ignore[no-untyped-call]
    reads = {
        name: x
        for name, x in inputs.items()
        if name not in answers and (name in named or (takes_others and name not in others))
    }
    if is_encoder_decoder(model) and "labels" in inputs and "decoder_input_ids" not in reads:
        reads["labels"] = inputs["labels"]  # which it shifts to the decoder's inputs
    return reads


def has_token_labels(inputs: Mapping[str, Any], model: Any = None) -> bool:
    """Whether each token has a label, as in language modelling, rather than each example."""
    labels = inputs.get("labels")
    if not isinstance(labels, Tensor) or labels.dim() != 2 or labels.is_floating_point():
        return False
    if is_encoder_decoder(model):
        return True
    tokens = text_shape(inputs)
    return tokens is not None and labels.shape == tokens


def text_shape(inputs: Mapping[str, Any]) -> torch.Size | None:
    """(b, t) of a batch of texts; None for images, speech and the like."""
    for name in ("input_ids", "inputs_embeds"):
        if isinstance(x := inputs.get(name), Tensor) and x.dim() > 1:
            return x.shape[:2]
    return None

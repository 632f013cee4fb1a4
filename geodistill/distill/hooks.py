"""Forward hooks that leave no trace: features of any module, the head on some positions only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from geodistill.distill.feature_term import Layer, loss_mask, resolve_layer
from geodistill.distill.models.features import (
    feature_rows,
    find_logits,
    find_module,
    last_layer,
    logits_of,
    tensor_of,
)
from geodistill.distill.models.heads import (
    base_of,
    is_encoder_decoder,
    lm_head,
    readable,
    text_shape,
)
from geodistill.distill.teacher_outputs import TeacherOutputs
from geodistill.errors import InputError


@contextmanager
def lm_head_on_positions(model: Any, mask: Tensor) -> Iterator[None]:
    """While open, a language model gives logits (n, vocabulary) at the n positions of `mask`.

    The head of a small model costs more than all its blocks, and few tokens are scored.
    """

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        fits = inputs and inputs[0].shape[:2] == mask.shape
        return (inputs[0][mask], *inputs[1:]) if fits else None

    hook = lm_head(model).register_forward_pre_hook(keep)
    try:
        yield
    finally:
        hook.remove()


@dataclass
class Recording:
    """What the calls of a model gave.

    Attributes:
        model: that was called.
        role: "teacher" or "student".
        outputs: with hidden states, in their order.
        by_path: output of the last call of each module asked for.
    """

    model: Any
    role: str
    outputs: list[Any] = field(default_factory=list)
    by_path: dict[str, Any] = field(default_factory=dict)

    def features(self, layer: Layer) -> Tensor:
        """Features of a layer.

        Those by number come from the student's first call (the body's, before any other) and the
        teacher's last (which follows those that generate).

        Raises:
            InputError: the model gave none, or has no such layer.
        """
        if isinstance(layer, str):
            if layer not in self.by_path:
                checkpointed = ", or only inside reentrant gradient checkpointing"
                hint = checkpointed if self.role == "student" else ""
                raise InputError(
                    f"{self.role}_layer is {layer!r}, a module that the {self.role}'s forward does "
                    f"not call{hint}: expected one that it calls"
                )
            return tensor_of(self.by_path[layer], layer, self.role)
        name = type(base_of(self.model)).__name__
        if not self.outputs:
            raise InputError(
                f"{self.role}_layer is {layer}, and the {self.role} {name} gives no hidden_states: "
                "expected the path of a module, such as 'encoder.layer.5'"
            )
        hidden = _hidden_states(self.outputs[-1 if self.role == "teacher" else 0])
        if (last := last_layer(self.model)) is not None and len(hidden) != last + 1:
            raise InputError(
                f"{self.role}_layer is {layer}, and the {self.role} {name} of {last} blocks gives "
                f"{len(hidden)} hidden_states, not one more, so that numbers may mislead: expected "
                "the path of a module, such as 'encoder.layer.5'"
            )
        features: Tensor = hidden[resolve_layer(layer, len(hidden) - 1, self.role)]
        return features


def _hidden_states(output: Any) -> Any:
    states = getattr(output, "hidden_states", None)
    return states or getattr(output, "decoder_hidden_states", None)


def depends_on_weights(features: Tensor, model: nn.Module) -> bool:
    """Whether a model's features depend on a weight that is trained.

    They may have a gradient without: gradient checkpointing needs one at the embeddings.

    Args:
        features: computed with gradient.
        model: that gave them.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3).requires_grad_(False), nn.Linear(3, 2))
        >>> hidden = model[0](torch.ones(1, 2).requires_grad_())
        >>> hidden.requires_grad, depends_on_weights(hidden, model)
        (True, False)
        >>> depends_on_weights(model[1](hidden), model)
        True
    """
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    nodes, seen = [features.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        hidden = "Checkpoint" in node.name()  # reentrant: what is inside is not in the graph
        if hidden or id(getattr(node, "variable", None)) in trained:
            return True
        nodes += [inner for inner, _ in node.next_functions]
    return False


@contextmanager
def record_outputs(
    model: Any, layers: Iterable[Layer] = (-1,), *, grad: bool, role: str = "student"
) -> Iterator[Recording]:
    """While open, features of these layers are recorded at every call of `model`.

    A trainer that calls the model itself then needs no second forward pass for the features. Hooks
    for numbered layers are on the model and on the one below its head, whose output comes first:
    TRL's fused head calls only the latter, OPT's own forward bypasses it.

    Args:
        model: any module, possibly inside PEFT's; None records nothing.
        layers: numbers in `hidden_states`, and paths of modules.
        grad: record only calls made with gradient (True) or without (False).
        role: "teacher" or "student".
    """
    recording = Recording(model, role)
    layers = set(layers) if model is not None else set()
    tuples = getattr(getattr(model, "config", None), "return_dict", True) is False
    numbered = any(isinstance(layer, int) for layer in layers)
    options = {"return_dict": True} if tuples else {}
    options |= {"output_hidden_states": True} if numbered else {}

    def request(
        module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]] | None:
        # TRL may call a loss of its own in place of the forward; the body is then called by it.
        redirected = "_ForwardRedirection" in getattr(module.forward, "__qualname__", "")
        return None if redirected else (args, {**kwargs, **options})

    def keep_states(_: nn.Module, __: Any, output: Any) -> None:
        if torch.is_grad_enabled() == grad and _hidden_states(output):
            recording.outputs.append(output)

    def keep_output(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            if torch.is_grad_enabled() == grad:
                recording.by_path[path] = output

        return keep

    base = base_of(model)
    bodies = dict.fromkeys([base, getattr(base, "base_model", base)]) if options else ()
    hooks = [m.register_forward_pre_hook(request, with_kwargs=True) for m in bodies]
    hooks += [m.register_forward_hook(keep_states) for m in bodies]
    for path in (layer for layer in layers if isinstance(layer, str)):
        module = find_module(model, path, role)[1]
        hooks.append(module.register_forward_hook(keep_output(path)))
    try:
        yield recording
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def run_teacher(
    teacher: Any,
    inputs: Mapping[str, Any],
    layers: Iterable[Layer],
    *,
    logits: bool | None,
    others: frozenset[str] = frozenset(),
) -> TeacherOutputs:
    """Outputs of a teacher for a batch, at the positions that count.

    Args:
        teacher: any module, in eval mode.
        inputs: of the batch; labels only say which positions count.
        layers: whose features are returned.
        logits: whether logits are returned; None returns them if there are any.
        others: inputs that are the student's alone.

    Raises:
        InputError: the teacher has no such layer, or no logits.
    """
    layers = list(layers)
    reads = readable(inputs, teacher, others)
    head: Any = nullcontext()
    if lm_head(teacher) is not None and text_shape(reads) and not is_encoder_decoder(teacher):
        head = lm_head_on_positions(teacher, loss_mask(inputs, teacher))
    record = record_outputs(teacher, layers, grad=False, role="teacher")
    with head, _without_cache(teacher), record as recording:
        output = teacher(**reads)
    return teacher_outputs(output, recording, inputs, layers, logits=logits)


@contextmanager
def _without_cache(model: nn.Module) -> Iterator[None]:
    """While open, a decoder keeps no keys and values.

    With them, `transformers` takes packed texts, which `position_ids` tell apart, for one text.
    """
    configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    caching = {id(c): c for c in configs if getattr(c, "use_cache", False)}.values()
    for config in caching:
        config.use_cache = False
    try:
        yield
    finally:
        for config in caching:
            config.use_cache = True


def teacher_outputs(
    output: Any,
    recording: Recording,
    inputs: Mapping[str, Any],
    layers: Iterable[Layer],
    *,
    logits: bool | None,
) -> TeacherOutputs:
    """What `run_teacher` returns, of a call that another trainer made."""
    teacher = recording.model
    rows = {
        layer: feature_rows(recording.features(layer), inputs, teacher, layer, "teacher")
        for layer in layers
    }
    if logits is None:
        logits = find_logits(output) is not None
    values, logits_mask = logits_of(output, teacher, inputs, "teacher") if logits else (None, None)
    return TeacherOutputs(
        values,
        {layer: features for layer, (features, _) in rows.items()},
        masks={layer: mask for layer, (_, mask) in rows.items()},
        logits_mask=logits_mask,
    )

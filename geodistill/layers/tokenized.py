"""A model with its token ids of some texts: checked, truncated to what it takes, run in batches."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from geodistill.errors import InputError
from geodistill.positions import max_tokens, num_embeddings

_REFUSED_UNKNOWN, _REPORTED_UNKNOWN = 0.5, 0.1


@dataclass(frozen=True)
class TokenizedModel:
    """A model and the texts as its tokenizer reads them.

    Attributes:
        name: "model_a" or "model_b", for messages.
        model: encoder or decoder of `transformers`.
        ids: token ids of each text.
        pad_id: token for padding.
        layers: indices in `hidden_states` that are read.
        inliers: for each text, booleans (t,) of the tokens that are compared; None for all.

    Example:
        >>> TokenizedModel("model_a", None, [[5, 6], [7]], pad_id=0, layers=[0, 1]).ids[1]
        [7]
    """

    name: str
    model: Any
    ids: list[list[int]]
    pad_id: int
    layers: list[int]
    inliers: list[Tensor] | None = None

    def has_inliers(self, text: int) -> bool:
        """Whether a token of this text is compared."""
        return self.inliers is None or bool(self.inliers[text].any())

    def features(self, texts: list[int]) -> tuple[list[Tensor], Tensor]:
        """Features (b, t, d) of each layer, in at least float32, and which to compare (b, t).

        Raises:
            InputError: no hidden states, or some that are not finite.
        """
        device = next(self.model.parameters()).device
        ids = [torch.tensor(self.ids[i], device=device) for i in texts]
        padded = pad_sequence(ids, batch_first=True, padding_value=self.pad_id)
        mask = pad_sequence([torch.ones_like(i) for i in ids], batch_first=True).bool()
        body = self.model.base_model  # a language model's head costs more than many blocks
        out = body(input_ids=padded, attention_mask=mask.long(), output_hidden_states=True)
        hidden = getattr(out, "hidden_states", None)
        if hidden is None:
            raise InputError(
                f"{self.name} is a {type(self.model).__name__}, which returned no hidden_states: "
                "expected an encoder or a decoder of transformers"
            )
        states = []
        for layer in self.layers:
            state = hidden[layer].to(torch.promote_types(hidden[layer].dtype, torch.float32))
            if bad := int((~torch.isfinite(state[mask])).sum()):
                raise InputError(
                    f"{self.name}, layer {layer}: {bad} NaN or infinite hidden states of "
                    f"{state[mask].numel()}; expected a model with finite weights"
                )
            states.append(state)
        if self.inliers is not None:
            mask = pad_sequence([self.inliers[i] for i in texts], batch_first=True).to(device)
        return states, mask


def tokenize(
    texts: Sequence[str],
    models: tuple[Any, Any],
    tokenizers: tuple[Any, Any],
    layers: tuple[Sequence[int] | None, Sequence[int] | None],
) -> tuple[tuple[TokenizedModel, TokenizedModel], int]:
    """Both models with the tokenized texts, and how many texts were truncated.

    Args:
        texts: none empty.
        models: a and b.
        tokenizers: of both.
        layers: of both, as in `hidden_states`; None for all.

    Raises:
        InputError: not a model of one stack of layers; a layer that it lacks; a tokenizer that is
            missing, of another model, or knows too few of the tokens.
    """
    for model, side in zip(models, "ab", strict=True):
        _check_model(model, f"model_{side}")
    for tokenizer, side in zip(tokenizers, "ab", strict=True):
        if not callable(tokenizer):
            raise InputError(
                f"tokenizer_{side} is {tokenizer!r}: expected the tokenizer of model_{side} "
                "itself, as AutoTokenizer.from_pretrained gives it"
            )
    limit = min(*map(max_tokens, models), *(int(t.model_max_length) for t in tokenizers))
    full = [t(list(texts), verbose=False)["input_ids"] for t in tokenizers]
    cut = [t(list(texts), truncation=True, max_length=limit)["input_ids"] for t in tokenizers]
    tokenized = []
    for side, model, tokenizer, ids, selected in zip(
        "ab", models, tokenizers, cut, layers, strict=True
    ):
        _check_tokens(side, model, tokenizer, ids)
        indices = _layer_indices(selected, int(model.config.num_hidden_layers), side)
        pad_id = tokenizer.pad_token_id or 0
        tokenized.append(TokenizedModel(f"model_{side}", model, ids, pad_id, indices))
    lengths = [[len(ids) for ids in side] for side in (*full, *cut)]
    truncated = sum(a > c or b > d for a, b, c, d in zip(*lengths, strict=True))
    return (tokenized[0], tokenized[1]), truncated


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """Eval mode; each module's own mode is restored."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check_model(model: Any, name: str) -> None:
    kind = type(model).__name__
    if not (hasattr(model, "config") and hasattr(model, "base_model")):
        raise InputError(f"{name} is a {kind}: expected an encoder or decoder of transformers")
    if num_embeddings(model) is None:
        raise InputError(
            f"{name} is a {kind}, which reads no tokens: expected a model of texts (for images "
            "there are image_features and compare_features)"
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise InputError(f"{name} is a {kind}: expected its encoder or its decoder alone")


def _check_tokens(side: str, model: Any, tokenizer: Any, ids: list[list[int]]) -> None:
    """Raise InputError where the tokenizer is not the model's, or has no vocabulary to speak of."""
    n_tokens = model.get_input_embeddings().num_embeddings
    largest = max((max(text) for text in ids if text), default=0)
    if largest >= n_tokens:
        raise InputError(
            f"model_{side} embeds {n_tokens} tokens, its tokenizer gives id {largest}: "
            f"expected the model's own tokenizer as tokenizer_{side}"
        )
    special = set(tokenizer.all_special_ids)
    words = [i for text in ids for i in text if i == tokenizer.unk_token_id or i not in special]
    n_unknown = words.count(tokenizer.unk_token_id)
    summary = f"{n_unknown} of the {len(words)} tokens of the texts are unknown to tokenizer_{side}"
    if not words or n_unknown >= _REFUSED_UNKNOWN * len(words):
        raise InputError(
            f"{summary}: expected the tokenizer of model_{side} (are its files in the folder?)"
        )
    if n_unknown > _REPORTED_UNKNOWN * len(words):
        warnings.warn(f"{summary}; it may belong to another model or language", stacklevel=4)
    for i, text in enumerate(ids):
        if not text:
            raise InputError(f"texts: number {i} has no token for tokenizer_{side}; leave it out")


def _layer_indices(layers: Sequence[int] | None, last: int, side: str) -> list[int]:
    """Indices in `hidden_states`, each once, in order of depth; None is all."""
    if layers is None:
        return list(range(last + 1))
    try:
        selected = [operator.index(layer) for layer in layers]
    except TypeError:  # a number alone, or decimals
        selected = []
    if not selected or any(not -last - 1 <= layer <= last for layer in selected):
        raise InputError(
            f"layers_{side} is {layers!r}, model_{side} has layers 0 (embeddings) to {last}: "
            "expected a list of some of them, -1 for the last"
        )
    return sorted({layer % (last + 1) for layer in selected})

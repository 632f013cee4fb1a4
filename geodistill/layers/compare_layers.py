"""Which layers of two models have the same geometry: a layer × layer map in one pass."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.geometry.outliers import squared_distance_outliers
from geodistill.geometry.pooling import pool_tokens
from geodistill.layers.layer_map import MIN_ROWS, LayerMap, empty_moments, finish_map, widths_of
from geodistill.layers.moments import Layer, LayerMoments
from geodistill.layers.outliers import TokenDistances, describe_dominance
from geodistill.layers.progress import progress_bar
from geodistill.layers.tokenized import TokenizedModel, in_eval, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TextPooling = Literal["token", "text"]
Models = tuple[TokenizedModel, TokenizedModel]


def compare_layers(
    model_a: nn.Module,
    model_b: nn.Module,
    texts: Sequence[str],
    *,
    tokenizer_a: PreTrainedTokenizerBase,
    tokenizer_b: PreTrainedTokenizerBase | None = None,
    pooling: TextPooling | None = None,
    layers_a: Sequence[int] | None = None,
    layers_b: Sequence[int] | None = None,
    batch_size: int = 16,
    permutations: int = 199,
    max_permuted_texts: int = 64,
    seed: int = 0,
    drop_outliers: bool = False,
    progress: bool = True,
) -> LayerMap:
    """Compare every layer of one model with every layer of another, of any depth and width.

    All measures are of centred features with unit norm: `procrustes` and `gram` distances, `cka`
    and `cka_debiased`, `projection_to_a` (residual norm of a's features fitted by b's) with its
    `r2_to_a`, and both in the other direction. Memory grows by four bytes per token and layer. The
    permutation tests use at most `max_permuted_texts` texts and one row of each, since neighbouring
    tokens are not independent. Models that read the same texts share their words: a small p says
    that matching rows are more similar than others, not that either model was trained.

    Args:
        model_a: encoder or decoder of `transformers`; the teacher if roles matter.
        model_b: the other model; may be the same.
        texts: at least four, none empty; truncated to what both models take.
        tokenizer_a: of model_a.
        tokenizer_b: of model_b; None for the first.
        pooling: "token" compares one row per token, which needs equal token ids; "text" the mean
            over each text's tokens. None compares tokens if the ids are equal.
        layers_a: layers of model_a, as in `hidden_states` (-1 the last), in any order; None for
            all.
        layers_b: layers of model_b.
        batch_size: texts per forward pass; the result does not depend on it.
        permutations: of rows; the smallest p is 1/(permutations + 1).
        max_permuted_texts: at least 4.
        seed: of the permutations and of the rows that are permuted.
        drop_outliers: leave out tokens that are outliers in any layer, by the rule of
            `geometry.diagnose`; of both models when tokens are compared, else each model's own.
            Decoders have such tokens, and a map with them shows little else. It takes a second
            pass. Without it, a warning names the layers that a few tokens or one direction
            dominate.
        progress: show progress bars on a terminal.

    Raises:
        InputError: texts, tokens, models or layers that cannot be compared, or too little memory.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
        >>> letters = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "d": 3}))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters)
        >>> bert = BertModel(BertConfig(hidden_size=48, num_hidden_layers=2))
        >>> layer_map = compare_layers(bert, bert, ["a", "b", "c", "d"], tokenizer_a=tokenizer)
        >>> layer_map.table.shape  # 8 measures of 3 × 3 pairs
        (72, 12)
    """
    _check_arguments(texts, batch_size, permutations, max_permuted_texts)
    tokenizers = (tokenizer_a, tokenizer_b or tokenizer_a)
    models, truncated = tokenize(texts, (model_a, model_b), tokenizers, (layers_a, layers_b))
    pooling = _resolve_pooling(pooling, models)
    dropped = (0, 0)
    if drop_outliers:
        models, dropped = _without_outliers(models, pooling, batch_size, progress)
    moments, distances, rows = _one_pass(
        models, pooling, batch_size, max_permuted_texts, seed, progress
    )
    layers = moments.layers()
    squares = [None if drop_outliers else side.squares() for side in distances]
    _warn_if_dominated(models, layers, moments.n, squares)
    indices = (models[0].layers, models[1].layers)
    result = finish_map(moments, layers, rows, indices, permutations, seed, progress, pooling)
    return replace(result, truncated=truncated, dropped=dropped)


def _warn_if_dominated(
    models: Models,
    layers: tuple[Sequence[Layer], Sequence[Layer]],
    n: int,
    squares: Sequence[Tensor | None],
) -> None:
    names_by_text: dict[str, list[str]] = {}
    for model, side, tokens in zip(models, layers, squares, strict=True):
        if text := describe_dominance(model.layers, side, n, tokens):
            names_by_text.setdefault(text, []).append(model.name)
    if names_by_text:
        words = "; ".join(f"{' and '.join(n)}: {text}" for text, n in names_by_text.items())
        warnings.warn(
            f"{words}. Little else is compared; drop_outliers=True (--drop-outliers) leaves "
            "outlier tokens out",
            stacklevel=3,
        )


def _check_arguments(
    texts: Sequence[str], batch_size: int, permutations: int, max_permuted_texts: int
) -> None:
    if min(batch_size, permutations) < 1 or max_permuted_texts < MIN_ROWS:
        raise InputError(
            f"batch_size is {batch_size}, permutations {permutations}, max_permuted_texts "
            f"{max_permuted_texts}: expected at least 1, 1 and {MIN_ROWS}"
        )
    if isinstance(texts, str) or len(texts) < MIN_ROWS:
        number = "one string" if isinstance(texts, str) else f"{len(texts)}"
        raise InputError(f"texts is {number}: expected a list of at least {MIN_ROWS} texts")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"texts: number {i} is {text!r}, expected a text; leave it out")


def _resolve_pooling(pooling: TextPooling | None, models: Models) -> TextPooling:
    same_ids = models[0].ids == models[1].ids
    if pooling not in (None, *get_args(TextPooling)):
        raise InputError(f"pooling is {pooling!r}: expected token or text")
    if pooling == "token" and not same_ids:
        raise InputError(
            "pooling is 'token', but the tokenizers give different ids for the texts: expected "
            "pooling='text'"
        )
    return pooling or ("token" if same_ids else "text")


def _batches(
    models: Models, batch_size: int, progress: bool
) -> Iterator[tuple[list[int], list[tuple[list[Tensor], Tensor]]]]:
    """Texts of each batch, longest first, with the features and masks of both models.

    Texts of which either model has no token to compare are left out.
    """
    n = len(models[0].ids)
    texts = [i for i in range(n) if all(model.has_inliers(i) for model in models)]
    texts.sort(key=lambda i: -len(models[0].ids[i]))
    starts = range(0, len(texts), batch_size)
    with in_eval(models[0].model), in_eval(models[1].model):
        for start in progress_bar(starts, "batches", progress):
            batch = texts[start : start + batch_size]
            yield batch, [model.features(batch) for model in models]


@torch.no_grad()
def _without_outliers(
    models: Models, pooling: TextPooling, batch_size: int, progress: bool
) -> tuple[Models, tuple[int, int]]:
    """The models without their outlier tokens, and how many there are of each."""
    distances: list[TokenDistances] = []
    order: list[int] = []
    for texts, outputs in _batches(models, batch_size, progress):
        distances = distances or [TokenDistances(widths_of(hidden)) for hidden, _ in outputs]
        for side, (hidden, mask) in zip(distances, outputs, strict=True):
            side.update(torch.cat(hidden, -1)[mask])
        order += texts
    outliers = [squared_distance_outliers(side.squares()).any(1) for side in distances]
    if pooling == "token":
        outliers = [outliers[0] | outliers[1]] * 2
    reduced = []
    for model, tokens in zip(models, outliers, strict=True):
        parts = (~tokens).split([len(model.ids[i]) for i in order])  # type: ignore[no-untyped-call]
        by_text = dict(zip(order, parts, strict=True))
        reduced.append(replace(model, inliers=[by_text[i] for i in range(len(order))]))
    n_left = sum(all(model.has_inliers(i) for model in reduced) for i in order)
    if n_left < MIN_ROWS:
        raise InputError(
            f"drop_outliers leaves tokens of {n_left} texts: expected longer texts, or at least "
            f"{MIN_ROWS} with tokens that are no outliers"
        )
    return (reduced[0], reduced[1]), (int(outliers[0].sum()), int(outliers[1].sum()))


@torch.no_grad()
def _one_pass(
    models: Models,
    pooling: TextPooling,
    batch_size: int,
    max_permuted_texts: int,
    seed: int,
    progress: bool,
) -> tuple[LayerMoments, list[TokenDistances], tuple[Tensor, Tensor]]:
    """Moments of all rows, token distances, and one row of each text to be permuted."""
    n = len(models[0].ids)
    generator = torch.Generator().manual_seed(seed)
    sampled = set(torch.randperm(n, generator=generator)[:max_permuted_texts].tolist())
    position = torch.rand(n, generator=generator).tolist()  # of the sampled token, in its text
    moments: LayerMoments | None = None
    distances: list[TokenDistances] = []
    samples = []
    for texts, outputs in _batches(models, batch_size, progress):
        in_batch = [k for k, i in enumerate(texts) if i in sampled]
        if moments is None:
            moments = empty_moments([hidden for hidden, _ in outputs])
            distances = [TokenDistances(widths_of(hidden)) for hidden, _ in outputs]
        rows, sample = [], []
        for side, (hidden, mask) in zip(distances, outputs, strict=True):
            features = torch.cat(hidden, -1)
            side.update(features[mask])
            if pooling == "text":
                means, _ = pool_tokens(features, mask, "mean")
                rows.append(means)
                sample.append(means[in_batch])
            else:
                tokens = [_valid_token(mask[k], position[texts[k]]) for k in in_batch]
                rows.append(features[mask])
                sample.append(features[in_batch, tokens])
        moments.update(rows[0], rows[1])
        samples.append([x.double().cpu() for x in sample])
    assert moments is not None
    a, b = (torch.cat(parts) for parts in zip(*samples, strict=True))
    return moments, distances, (a, b)


def _valid_token(mask: Tensor, position: float) -> int:
    """The index in a mask (t,) of the valid token at a relative position in [0, 1)."""
    tokens = mask.nonzero()[:, 0]
    return int(tokens[int(position * len(tokens))])

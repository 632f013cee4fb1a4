"""Which layers of two models have the same geometry: a layer × layer map in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from geodistill.errors import InputError
from geodistill.geometry.pooling import pool_tokens
from geodistill.layers.moments import LayerMoments
from geodistill.layers.statistics import layer_table, pvalue_columns, value_columns

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

TextPooling = Literal["token", "text"]
_MIN_ROWS = 4  # of debiased CKA


@dataclass(frozen=True)
class LayerMap:
    """Similarity of each pair of layers of two models.

    Attributes:
        table: one row per measure and pair. `layer_a`, `layer_b`: 0 is the embedding output.
            `value`. `null`: the value for unrelated rows with these spectra and sample size.
            `beyond_chance`: 0 at the null, 1 for equal features; it ranks the layers, since by
            `value` a layer with many directions is close to every other. `geometry_kept`: of b as
            the student of a (procrustes, gram, cka). `z`: against permuted rows, at most
            permutations/√(1 + permutations). `p`: of this pair alone. `p_search`: of its z as the
            largest of all pairs. `n`: number of rows. `pooling`: "token" or "text". NaN where a
            number is undefined, as for a least-squares fit with no more rows than dimensions.
        truncated: number of texts longer than the models' positions, which were truncated.

    Example:
        >>> import pandas as pd
        >>> LayerMap(pd.DataFrame({"layer_a": [0], "layer_b": [1]}), truncated=0).table.shape
        (1, 2)
    """

    table: pd.DataFrame
    truncated: int


@dataclass(frozen=True)
class _TokenizedModel:
    """A model, the token ids of all texts, the padding id, and the layers to read."""

    model: Any
    ids: list[list[int]]
    pad_id: int
    layers: list[int]

    def features(self, texts: list[int]) -> tuple[list[Tensor], Tensor]:
        """Features (b, t, d) of each layer, in at least float32, and their mask (b, t)."""
        device = next(self.model.parameters()).device
        ids = [torch.tensor(self.ids[i], device=device) for i in texts]
        padded = pad_sequence(ids, batch_first=True, padding_value=self.pad_id)
        mask = pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)
        body = self.model.base_model  # a language model's head costs more than many blocks
        out = body(input_ids=padded, attention_mask=mask, output_hidden_states=True)
        hidden = getattr(out, "hidden_states", None)
        if hidden is None:
            raise InputError(
                f"a {type(self.model).__name__} returned no hidden_states: expected an encoder or "
                "a decoder of transformers"
            )
        states = [hidden[layer] for layer in self.layers]
        return [h.to(torch.promote_types(h.dtype, torch.float32)) for h in states], mask.bool()


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
    progress: bool = True,
) -> LayerMap:
    """Compare every layer of one model with every layer of another, of any depth and width.

    All measures are of centred features with unit norm: `procrustes` and `gram` distances, `cka`
    and `cka_debiased`, `projection_to_a` (residual norm of a's features fitted by b's) with its
    `r2_to_a`, and both in the other direction. Memory does not grow with the number of texts. The
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
        layers_a: layers of model_a, as in `hidden_states` (-1 the last); None for all.
        layers_b: layers of model_b.
        batch_size: texts per forward pass; the result does not depend on it.
        permutations: of rows; the smallest p is 1/(permutations + 1).
        max_permuted_texts: at least 4.
        seed: of the permutations and of the rows that are permuted.
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
    models, truncated = _tokenize(texts, (model_a, model_b), tokenizers, (layers_a, layers_b))
    pooling = _resolve_pooling(pooling, models)
    moments, rows = _one_pass(models, pooling, batch_size, max_permuted_texts, seed, progress)
    columns = value_columns(moments, seed, progress)
    columns |= pvalue_columns(*rows, moments.widths, permutations, seed, progress)
    table = layer_table(models[0].layers, models[1].layers, columns)
    return LayerMap(table.assign(n=moments.n, pooling=pooling), truncated)


def _check_arguments(
    texts: Sequence[str], batch_size: int, permutations: int, max_permuted_texts: int
) -> None:
    if min(batch_size, permutations) < 1 or max_permuted_texts < _MIN_ROWS:
        raise InputError(
            f"batch_size is {batch_size}, permutations {permutations}, max_permuted_texts "
            f"{max_permuted_texts}: expected at least 1, 1 and {_MIN_ROWS}"
        )
    if isinstance(texts, str) or len(texts) < _MIN_ROWS:
        number = "one string" if isinstance(texts, str) else f"{len(texts)}"
        raise InputError(f"texts is {number}: expected a list of at least {_MIN_ROWS} texts")
    for i, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"texts: number {i} is empty; leave it out")


def _tokenize(
    texts: Sequence[str],
    models: tuple[Any, Any],
    tokenizers: tuple[Any, Any],
    layers: tuple[Sequence[int] | None, Sequence[int] | None],
) -> tuple[tuple[_TokenizedModel, _TokenizedModel], int]:
    """Both models with the tokenized texts, and how many texts were truncated."""
    for model, side in zip(models, "ab", strict=True):
        _check_model(model, f"model_{side}")
    if tokenizers[0] is None:
        raise InputError("tokenizer_a is None: expected the tokenizer of model_a")
    limit = min(_max_length(*pair) for pair in zip(models, tokenizers, strict=True))
    full = [t(list(texts), verbose=False)["input_ids"] for t in tokenizers]
    cut = [t(list(texts), truncation=True, max_length=limit)["input_ids"] for t in tokenizers]
    tokenized = []
    for side, model, tokenizer, ids, selected in zip(
        "ab", models, tokenizers, cut, layers, strict=True
    ):
        n_tokens, largest = model.get_input_embeddings().num_embeddings, max(map(max, ids))
        if largest >= n_tokens:
            raise InputError(
                f"model_{side} embeds {n_tokens} tokens, its tokenizer gives id {largest}: "
                f"expected the model's own tokenizer as tokenizer_{side}"
            )
        indices = _layer_indices(selected, int(model.config.num_hidden_layers), side)
        tokenized.append(_TokenizedModel(model, ids, tokenizer.pad_token_id or 0, indices))
    lengths = [[len(ids) for ids in side] for side in (*full, *cut)]
    truncated = sum(a > c or b > d for a, b, c, d in zip(*lengths, strict=True))
    return (tokenized[0], tokenized[1]), truncated


def _layer_indices(layers: Sequence[int] | None, last: int, side: str) -> list[int]:
    """Indices in `hidden_states`; None is all."""
    selected = range(last + 1) if layers is None else layers
    if not selected or any(not -last - 1 <= layer <= last for layer in selected):
        raise InputError(
            f"layers_{side} is {list(selected)}, model_{side} has layers 0 (embeddings) to {last}: "
            "expected some of them, -1 for the last"
        )
    return [layer % (last + 1) for layer in selected]


def _check_model(model: Any, name: str) -> None:
    kind = type(model).__name__
    if not (hasattr(model, "config") and hasattr(model, "base_model")):
        raise InputError(f"{name} is a {kind}: expected an encoder or decoder of transformers")
    if getattr(model.config, "is_encoder_decoder", False):
        raise InputError(f"{name} is a {kind}: expected its encoder or its decoder alone")


def _max_length(model: Any, tokenizer: Any) -> int:
    positions = getattr(model.config, "max_position_embeddings", None) or 2**20
    return int(min(tokenizer.model_max_length, positions, 2**20))


def _resolve_pooling(
    pooling: TextPooling | None, models: tuple[_TokenizedModel, _TokenizedModel]
) -> TextPooling:
    same_ids = models[0].ids == models[1].ids
    if pooling not in (None, *get_args(TextPooling)):
        raise InputError(f"pooling is {pooling!r}: expected token or text")
    if pooling == "token" and not same_ids:
        raise InputError(
            "pooling is 'token', but the tokenizers give different ids for the texts: expected "
            "pooling='text'"
        )
    return pooling or ("token" if same_ids else "text")


def _one_pass(
    models: tuple[_TokenizedModel, _TokenizedModel],
    pooling: TextPooling,
    batch_size: int,
    max_permuted_texts: int,
    seed: int,
    progress: bool,
) -> tuple[LayerMoments, tuple[Tensor, Tensor]]:
    """Moments of all rows, longest texts first, and one row of each text to be permuted."""
    n = len(models[0].ids)
    order = sorted(range(n), key=lambda i: -len(models[0].ids[i]))
    generator = torch.Generator().manual_seed(seed)
    sampled = set(torch.randperm(n, generator=generator)[:max_permuted_texts].tolist())
    position = torch.rand(n, generator=generator).tolist()  # of the sampled token, in its text
    moments, samples = None, []
    with _in_eval(models[0].model), _in_eval(models[1].model), torch.no_grad():
        starts = range(0, n, batch_size)
        for start in tqdm(starts, "batches", leave=False, disable=None if progress else True):
            texts = order[start : start + batch_size]
            in_batch = [k for k, i in enumerate(texts) if i in sampled]
            outputs = [model.features(texts) for model in models]
            if moments is None:
                moments = _empty_moments([hidden for hidden, _ in outputs])
            rows, sample = [], []
            for model, (hidden, mask) in zip(models, outputs, strict=True):
                features = torch.cat(hidden, -1)
                if pooling == "text":
                    means, _ = pool_tokens(features, mask, "mean")
                    rows.append(means)
                    sample.append(means[in_batch])
                else:
                    tokens = [int(position[texts[k]] * len(model.ids[texts[k]])) for k in in_batch]
                    rows.append(features[mask])
                    sample.append(features[in_batch, tokens])
            moments.update(rows[0], rows[1])
            samples.append([x.double().cpu() for x in sample])
    assert moments is not None
    moments.flush()
    a, b = (torch.cat(parts) for parts in zip(*samples, strict=True))
    return moments, (a, b)


def _empty_moments(hidden: list[list[Tensor]]) -> LayerMoments:
    """Moments of these layers, on their device; InputError if memory is too small."""
    a, b = ([h.shape[-1] for h in layers] for layers in hidden)
    device = hidden[0][0].device
    if device.type == "mps":  # has no float64
        device = torch.device("cpu")
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    needed = LayerMoments.bytes((a, b))
    if needed > free:
        raise InputError(
            f"the sums of {len(a)} × {len(b)} layers need {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free: expected fewer layers in layers_a or layers_b"
        )
    return LayerMoments((a, b), device)


@contextmanager
def _in_eval(model: nn.Module) -> Iterator[None]:
    """Eval mode; each module's own mode is restored."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True

"""Which layers of two models hold the same geometry: a layer × layer map in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from geodistill.distill.feature_term import select_rows
from geodistill.errors import InputError
from geodistill.layers.moments import LayerSums
from geodistill.layers.statistics import chance, read_out, tidy

if TYPE_CHECKING:
    import pandas as pd

Rows = Literal["token", "text"]
_LEAST = 4  # rows that debiased CKA needs


@dataclass(frozen=True)
class LayerMap:
    """How alike each pair of layers is, by every measure.

    Attributes:
        rows: one line a measure and pair. `layer_a, layer_b`: 0 is the embeddings' output.
            `value`; `null`, the same for unrelated rows of these spectra and number;
            `beyond_chance`, 0 there and 1 for equal features, which ranks layers: by `value` alone
            one of many directions is near every other. `geometry_kept` of b as the student of a
            (procrustes, gram, cka). `z` against permuted rows, at most permutations/√(1 +
            permutations); `p` of this pair alone; `p_search` of its z as the largest of all that
            were looked at. `n` rows, each a token or a text as `rows` says. NaN where a number has
            no meaning, as a least-squares fit of no more rows than dimensions.
        truncated: texts longer than the models take, cut there.
    """

    rows: pd.DataFrame
    truncated: int


@dataclass(frozen=True)
class _Side:
    """One model with all texts in its own tokens."""

    model: Any
    ids: list[list[int]]
    pad: int
    layers: list[int]

    def read(self, texts: list[int]) -> tuple[list[Tensor], Tensor]:
        """Features (b, t, d) of each layer, in at least float32, and the mask (b, t)."""
        device = next(self.model.parameters()).device
        ids = [self.ids[i] for i in texts]
        length = max(map(len, ids))
        padded = torch.tensor([i + [self.pad] * (length - len(i)) for i in ids], device=device)
        mask = torch.tensor([[1] * len(i) + [0] * (length - len(i)) for i in ids], device=device)
        # The body alone: a language model's head costs more than many of its blocks.
        out = self.model.base_model(
            input_ids=padded, attention_mask=mask, output_hidden_states=True
        )
        hidden = getattr(out, "hidden_states", None)
        if hidden is None:
            raise InputError(
                f"a {type(self.model).__name__} returned no hidden_states: expected an encoder or "
                "a decoder of transformers"
            )
        chosen = [hidden[layer] for layer in self.layers]
        return [h.to(torch.promote_types(h.dtype, torch.float32)) for h in chosen], mask.bool()


def compare_layers(
    model_a: nn.Module,
    model_b: nn.Module,
    texts: Sequence[str],
    *,
    tokenizer_a: Any,
    tokenizer_b: Any = None,
    rows: Rows | None = None,
    layers_a: Sequence[int] | None = None,
    layers_b: Sequence[int] | None = None,
    batch_size: int = 16,
    permutations: int = 199,
    reservoir: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> LayerMap:
    """Compare every layer of one model with every layer of another, of any depth and width.

    All measures are of centred features of unit norm: `procrustes` and `gram` distances, `cka` and
    `cka_debiased`, `projection_to_a` (the residual norm of a's features fitted by b's) with its
    `r2_to_a`, and the same the other way. One pass; memory is flat in the number of texts; the
    models are left as they were. The tests permute the rows of at most `reservoir` texts, one row
    a text, so that neighbours in a text don't count as independent.

    Models that read the same texts share the words: a small p says that rows which belong together
    are more alike than others, not that either model was trained.

    Args:
        model_a: encoder or decoder of `transformers`; the teacher where the roles matter.
        model_b: the other one; may be the same.
        texts: at least four, none empty; longer ones are cut at what both models take.
        tokenizer_a: of model_a.
        tokenizer_b: of model_b; without it, both use the first.
        rows: "token" gives one row a token, which needs equal token ids; "text" one row a text, the
            mean over its tokens. None takes tokens where the ids are equal.
        layers_a: some layers of model_a, as in `hidden_states` (-1 the last); None for all.
        layers_b: the same of model_b.
        batch_size: texts to a forward pass; the result does not depend on it.
        permutations: of rows; the smallest p is 1/(permutations + 1).
        reservoir: texts whose rows are kept for the permutations.
        seed: of the choice of those rows and of the permutations.
        progress: show bars on a terminal.

    Raises:
        InputError: texts, tokens, models or layers that can't be compared, or sums too large for
            the memory.
    """
    _check(texts, batch_size, permutations, reservoir)
    tokenizers = (tokenizer_a, tokenizer_b or tokenizer_a)
    sides, truncated = _sides(texts, (model_a, model_b), tokenizers, (layers_a, layers_b))
    kind = _row_kind(rows, sides)
    sums, kept = _collect(sides, kind, batch_size, reservoir, seed, progress)
    columns = read_out(sums, seed, progress) | chance(
        *kept, sums.widths, permutations, seed, progress
    )
    table = tidy(sides[0].layers, sides[1].layers, columns)
    return LayerMap(table.assign(n=sums.n, rows=kind), truncated)


def _check(texts: Sequence[str], batch_size: int, permutations: int, reservoir: int) -> None:
    if min(batch_size, permutations) < 1 or reservoir < _LEAST:
        raise InputError(
            f"batch_size is {batch_size}, permutations {permutations}, reservoir {reservoir}: "
            f"expected at least 1, 1 and {_LEAST}"
        )
    if isinstance(texts, str) or len(texts) < _LEAST:
        given = "one string" if isinstance(texts, str) else f"{len(texts)}"
        raise InputError(f"texts is {given}: expected a list of at least {_LEAST} texts")
    for i, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"texts: number {i} is empty; leave it out")


def _sides(
    texts: Sequence[str],
    models: tuple[Any, Any],
    tokenizers: tuple[Any, Any],
    layers: tuple[Sequence[int] | None, Sequence[int] | None],
) -> tuple[tuple[_Side, _Side], int]:
    """Both models with the tokenised texts, and how many texts were cut."""
    names = ("model_a", "model_b")
    for model, name in zip(models, names, strict=True):
        _check_model(model, name)
    if tokenizers[0] is None:
        raise InputError("tokenizer_a is None: expected the tokenizer of model_a")
    limit = min(_limit(*pair) for pair in zip(models, tokenizers, strict=True))
    whole = [t(list(texts), verbose=False)["input_ids"] for t in tokenizers]
    cut = [t(list(texts), truncation=True, max_length=limit)["input_ids"] for t in tokenizers]
    sides = []
    for name, model, tokenizer, ids, chosen in zip(
        names, models, tokenizers, cut, layers, strict=True
    ):
        known, largest = model.get_input_embeddings().num_embeddings, max(map(max, ids))
        if largest >= known:
            raise InputError(
                f"{name} embeds {known} tokens, its tokenizer gives id {largest}: expected the "
                f"model's own tokenizer as tokenizer_{name[-1]}"
            )
        indices = _indices(chosen, int(model.config.num_hidden_layers), name[-1])
        sides.append(_Side(model, ids, tokenizer.pad_token_id or 0, indices))
    truncated = sum(
        any(len(w[i]) > len(c[i]) for w, c in zip(whole, cut, strict=True))
        for i in range(len(texts))
    )
    return (sides[0], sides[1]), truncated


def _indices(chosen: Sequence[int] | None, last: int, side: str) -> list[int]:
    """Places in `hidden_states`; None is all."""
    wanted = range(last + 1) if chosen is None else chosen
    if not wanted or any(not -last - 1 <= layer <= last for layer in wanted):
        raise InputError(
            f"layers_{side} is {list(wanted)}, model_{side} has layers 0 (embeddings) to {last}: "
            "expected some of them, -1 for the last"
        )
    return [layer % (last + 1) for layer in wanted]


def _check_model(model: Any, name: str) -> None:
    config = getattr(model, "config", None)
    kind = type(model).__name__
    if config is None or not hasattr(model, "base_model"):
        raise InputError(f"{name} is a {kind}: expected an encoder or decoder of transformers")
    if getattr(config, "is_encoder_decoder", False):
        raise InputError(f"{name} is a {kind}: expected its encoder or its decoder alone")


def _limit(model: Any, tokenizer: Any) -> int:
    return int(
        min(
            tokenizer.model_max_length,
            getattr(model.config, "max_position_embeddings", None) or 2**20,
            2**20,
        )
    )


def _row_kind(rows: Rows | None, sides: tuple[_Side, _Side]) -> Rows:
    same = sides[0].ids == sides[1].ids
    if rows not in (None, *get_args(Rows)):
        raise InputError(f"rows is {rows!r}: expected one of {', '.join(get_args(Rows))}")
    if rows == "token" and not same:
        raise InputError(
            "rows is 'token', the tokenizers give other ids for the texts: expected rows='text'"
        )
    return rows or ("token" if same else "text")


def _collect(
    sides: tuple[_Side, _Side],
    kind: Rows,
    batch_size: int,
    reservoir: int,
    seed: int,
    progress: bool,
) -> tuple[LayerSums, tuple[Tensor, Tensor]]:
    """One pass, longest texts first: the sums of all rows, and one row each of some texts."""
    count = len(sides[0].ids)
    order = sorted(range(count), key=lambda i: -len(sides[0].ids[i]))
    generator = torch.Generator().manual_seed(seed)
    chosen = set(torch.randperm(count, generator=generator)[:reservoir].tolist())
    share = torch.rand(count, generator=generator).tolist()
    sums, kept = None, []
    with _in_eval(sides[0].model), _in_eval(sides[1].model), torch.no_grad():
        for start in tqdm(
            range(0, count, batch_size), "batches", leave=False, disable=None if progress else True
        ):
            texts = order[start : start + batch_size]
            some = [k for k, i in enumerate(texts) if i in chosen]
            read = [side.read(texts) for side in sides]
            if sums is None:
                sums = _sums([hidden for hidden, _ in read])
            rows, picked = [], []
            for side, (hidden, mask) in zip(sides, read, strict=True):
                features = torch.cat(hidden, -1)
                if kind == "text":
                    means, _ = select_rows(features, mask, "mean")
                    rows.append(means)
                    picked.append(means[some])
                else:
                    places = [int(share[texts[k]] * len(side.ids[texts[k]])) for k in some]
                    rows.append(features[mask])
                    picked.append(features[some, places])
            sums.update(rows[0], rows[1])
            kept.append([p.double().cpu() for p in picked])
    assert sums is not None
    sums.flush()
    first, second = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return sums, (first, second)


def _sums(hidden: list[list[Tensor]]) -> LayerSums:
    """Empty sums for these layers, on their device; raises InputError where they don't fit."""
    widths = tuple([h.shape[-1] for h in side] for side in hidden)
    device = hidden[0][0].device
    if device.type == "mps":  # has no float64
        device = torch.device("cpu")
    free = (
        torch.cuda.mem_get_info(device)[0]
        if device.type == "cuda"
        else psutil.virtual_memory().available
    )
    needed = LayerSums.bytes((widths[0], widths[1]))
    if needed > free:
        raise InputError(
            f"the sums of {len(widths[0])} × {len(widths[1])} layers need {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free: expected fewer layers in layers_a or layers_b"
        )
    return LayerSums((widths[0], widths[1]), device)


@contextmanager
def _in_eval(model: nn.Module) -> Iterator[None]:
    """Each module's own training state is restored."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True

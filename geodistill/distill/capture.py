"""Compute less of a language model: the head on the rows that count, not on every token."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


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

"""The head of a language model on some rows alone: the same logits, and no trace."""

import pytest
import torch
from tiny_models import tiny_opt

from geodistill.distill.capture import head_on_rows

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
MASK = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]]).bool()


def test_logits_are_those_of_the_kept_rows_with_their_gradient():
    model = tiny_opt(1)
    whole = model(IDS, output_hidden_states=True)
    with head_on_rows(model, MASK):
        rows = model(IDS, output_hidden_states=True)
    assert rows.logits.shape == (3, 100)
    assert torch.allclose(rows.logits, whole.logits[MASK], atol=1e-6)
    for one, other in zip(rows.hidden_states, whole.hidden_states, strict=True):
        assert torch.equal(one, other)
    weight = model.get_input_embeddings().weight
    gradients = [
        torch.autograd.grad(logits.square().sum(), weight)[0]
        for logits in (rows.logits, whole.logits[MASK])
    ]
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-4)
    assert gradients[0].abs().max() > 1


def test_nothing_is_left_even_after_an_error():
    model = tiny_opt(1)
    with pytest.raises(RuntimeError, match="stopped"), head_on_rows(model, MASK):
        raise RuntimeError("stopped")
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert model(IDS).logits.shape == (2, 4, 100)

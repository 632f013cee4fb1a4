"""The head on some rows alone, outputs of a forward pass that others made: and no trace."""

import pytest
import torch
from support.tiny_models import tiny_bert, tiny_opt

from geodistill.distill.hooks import lm_head_on_positions, record_outputs

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
MASK = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]]).bool()


def test_logits_are_those_of_the_kept_rows_with_their_gradient():
    model = tiny_opt(1)
    whole = model(IDS, output_hidden_states=True)
    with lm_head_on_positions(model, MASK):
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
    with pytest.raises(RuntimeError, match="stopped"), lm_head_on_positions(model, MASK):
        raise RuntimeError("stopped")
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert model(IDS).logits.shape == (2, 4, 100)


@pytest.mark.parametrize("model", [tiny_opt(1), tiny_bert(1)], ids=["opt", "bert"])
def test_recorded_features_are_those_of_the_call_itself(model):
    expected = model(IDS, output_hidden_states=True).hidden_states
    with record_outputs(model, grad=True) as seen:
        logits = model(IDS).logits
        with torch.no_grad():
            model(IDS)
    assert len(seen.outputs) >= 1
    for output in seen.outputs:
        for one, other in zip(output.hidden_states, expected, strict=True):
            assert torch.equal(one, other)
    (found,) = torch.autograd.grad(logits.sum(), seen.outputs[0].hidden_states[-1])
    assert found.abs().max() > 0  # the features are on the way to these logits


def test_recorded_hears_a_call_below_the_head_and_the_kind_asked_for():
    model = tiny_opt(1)
    with record_outputs(model, grad=False) as seen:
        model(IDS)
        assert not seen.outputs
        with torch.no_grad():
            model.base_model(IDS)
    assert len(seen.outputs) == 1
    assert len(seen.outputs[0].hidden_states) == 3
    assert model(IDS).hidden_states is None
    for module in (model, model.base_model):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_recording_nothing():
    with record_outputs(None, grad=True) as seen:
        pass
    assert seen.outputs == []

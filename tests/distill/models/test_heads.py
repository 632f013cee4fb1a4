"""What is asked of a model: positions of labels, inputs, limits, kinds of head."""

import inspect
from collections import Counter

import pytest
import torch
import transformers as hf
from support.model_matrix import _SPEECH, STILL, TEXT, bert, made, own
from support.tiny_models import distiller, tiny_bert, tiny_opt
from torch import nn
from transformers.models.auto import modeling_auto

from geodistill.distill import FeatureDistillationTrainer
from geodistill.distill.feature_term import loss_mask
from geodistill.distill.models.heads import LabelRule, label_rule, problem_type, readable
from geodistill.positions import max_positions

IDS = torch.randint(3, 60, (2, 8), generator=torch.Generator().manual_seed(0))
LABELS = IDS.masked_fill(torch.arange(8).eq(2) | torch.arange(8).eq(3), -100)
_WIDTHS = "hidden_size d_model n_embd dim emb_dim embed_dim"
_INNER = "intermediate_size d_ff ffn_dim encoder_ffn_dim decoder_ffn_dim hidden_dim"
_TWO = """num_hidden_layers num_layers n_layer n_layers encoder_layers decoder_layers
num_attention_heads num_heads n_head n_heads encoder_attention_heads decoder_attention_heads
num_key_value_heads num_experts_per_tok"""
SIZES = {
    **dict.fromkeys(_WIDTHS.split(), 32),
    **dict.fromkeys(_TWO.split(), 2),
    **dict.fromkeys(_INNER.split(), 48),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("head_dim", "d_kv", "moe_intermediate_size"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **{"vocab_size": 60, "embedding_size": 32, "pad_token_id": 0},
    **{"bos_token_id": 1, "eos_token_id": 2},
}
FEW = (
    "BartForCausalLM", "BertForMaskedLM", "BertLMHeadModel", "BloomForCausalLM",
    "DistilBertForMaskedLM", "ElectraForMaskedLM", "GPT2LMHeadModel", "GemmaForCausalLM",
    "LlamaForCausalLM", "MambaForCausalLM", "MixtralForCausalLM", "OPTForCausalLM",
    "RobertaForMaskedLM", "XGLMForCausalLM", "XLMWithLMHeadModel",
)  # fmt: skip


def small(name):
    """A model of fewer than three million weights, without dropout; None if it cannot be made."""
    kind = getattr(hf, name)
    config = kind.config_class
    known = {*inspect.signature(config.__init__).parameters}
    known |= {*getattr(config, "__dataclass_fields__", {})}
    settings = {name: value for name, value in SIZES.items() if name in known}
    if "is_decoder" in known and "Masked" not in name:
        settings["is_decoder"] = True
    try:
        with torch.device("meta"):
            size = sum(p.numel() for p in kind(config(**settings)).parameters())
        torch.manual_seed(1)
        model = kind(config(**settings)) if size < 3e6 else None
    except Exception:  # a family whose configuration needs more than sizes
        return None
    for module in () if model is None else model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def gradient_positions(model):
    """Positions whose logits the model's own loss depends on; None if it has none of these."""
    try:
        out = model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS), labels=LABELS)
        (gradient,) = torch.autograd.grad(out.loss, out.logits)
        return gradient.abs().sum(-1) > 0
    except Exception:
        return None


def is_the_plain_trainers(name, folder):
    """Whether a step without teacher is `Trainer`'s own."""
    rows = [
        {"input_ids": i.tolist(), "labels": j.tolist()} for i, j in zip(IDS, LABELS, strict=True)
    ]
    ended = []
    for kind in (FeatureDistillationTrainer, hf.Trainer):
        trainer = distiller(
            folder, small(name), rows, kind=kind, max_steps=1, per_device_train_batch_size=2
        )
        trainer.train()
        after = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
        ended.append((trainer.state.log_history[0]["loss"], after))
    (mine, after), (theirs, other) = ended
    return mine == pytest.approx(theirs, rel=1e-4) and torch.allclose(after, other, atol=1e-4)


@pytest.mark.parametrize("name", FEW)
def test_the_positions_that_count_are_those_of_the_models_own_loss(name, tmp_path):
    model = small(name)
    assert torch.equal(
        loss_mask({"input_ids": IDS, "labels": LABELS}, model), gradient_positions(model)
    )
    assert is_the_plain_trainers(name, tmp_path)


@pytest.mark.slow
def test_they_are_in_every_family_that_can_be_built_small(tmp_path):
    known = Counter()
    for table in ("CAUSAL_LM", "MASKED_LM"):
        for name in getattr(modeling_auto, f"MODEL_FOR_{table}_MAPPING_NAMES").values():
            model = small(name) if hasattr(hf, name) and "BigBird" not in name else None
            found = None if model is None else gradient_positions(model)
            if found is not None:
                mask = loss_mask({"input_ids": IDS, "labels": LABELS}, model)
                assert torch.equal(mask, found), name
                assert is_the_plain_trainers(name, tmp_path), name
                known[table] += 1
    assert known["CAUSAL_LM"] > 100
    assert known["MASKED_LM"] > 30


def test_asking_leaves_no_trace():
    model, seen = tiny_opt(1).train(), []
    model.register_forward_hook(lambda *_: seen.append(1))
    model.model.decoder.layers[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = torch.random.get_rng_state()
    assert label_rule(model) == LabelRule(shifted=True, takes_kept=True)
    assert seen == []
    assert torch.equal(state, torch.random.get_rng_state())
    assert modes == {name: module.training for name, module in model.named_modules()}
    model(IDS)
    assert seen == [1]
    router = hf.MixtralForCausalLM(hf.MixtralConfig(**{
        **{k: v for k, v in TEXT.items() if k != "pad_token_id"}, "num_local_experts": 4,
        "num_key_value_heads": 2, "output_router_logits": True}))  # fmt: skip
    assert label_rule(router).shifted
    assert len(router(IDS).router_logits) == 2  # captured by hooks of the model's own


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_tokens_of_equal_logits_or_a_head_of_zeros_do_not_mislead(dtype):
    twins, zeros = tiny_opt(1).to(dtype), tiny_opt(2).to(dtype)
    with torch.no_grad():
        twins.lm_head.weight[1] = twins.lm_head.weight[0]
        zeros.lm_head.weight.zero_()
    assert label_rule(twins).shifted
    assert label_rule(zeros).shifted
    masked = hf.BertForMaskedLM(hf.BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16)).to(dtype)  # fmt: skip
    with torch.no_grad():
        masked.cls.predictions.decoder.weight[1] = masked.cls.predictions.decoder.weight[0]
    assert not label_rule(masked).shifted


def test_a_loss_of_ones_own_gets_all_logits():
    model = tiny_opt(1)
    model.loss_function = lambda logits, labels, vocab_size, **_: logits.square().mean()
    assert not label_rule(model).takes_kept


@pytest.mark.parametrize(
    ("kind", "config", "settings", "limit"),
    [
        ("BertModel", "BertConfig", {}, 32),
        ("RobertaModel", "RobertaConfig", {"pad_token_id": 1}, 30),
        ("DebertaV2Model", "DebertaV2Config",
         {"relative_attention": True, "position_biased_input": False}, None),
        ("DebertaV2Model", "DebertaV2Config", {"relative_attention": True}, 32),
        ("LlamaModel", "LlamaConfig", {}, None),
    ],
)  # fmt: skip
def test_the_limit_of_a_text_is_the_table_of_positions(kind, config, settings, limit):
    model = getattr(hf, kind)(getattr(hf, config)(**{**TEXT, **settings}))
    assert max_positions(model) == limit or (limit is None and max_positions(model) > 1e9)
    if limit is not None:
        model(torch.full((1, limit), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, limit + 1), 5))
    else:
        model(torch.full((1, 40), 5))


def test_the_tables_of_images_are_no_limit_of_texts():
    from support.model_matrix import _CLIPS

    assert max_positions(_CLIPS(1)) == 16
    assert max_positions(tiny_opt(1)) == 32
    assert max_positions(own(1)) > 1e9


def test_kinds_of_head():
    one, many = torch.tensor([1, 0]), torch.tensor([[0.0, 1.0]])
    assert problem_type(tiny_opt(1)) == "single_label_classification"
    assert problem_type(tiny_bert(1)) == "single_label_classification"
    assert problem_type(tiny_bert(1), one) == "single_label_classification"
    assert problem_type(tiny_bert(1), many) == "multi_label_classification"
    assert problem_type(tiny_bert(1, labels=1)) == "regression"
    assert problem_type(tiny_bert(1, problem_type="regression")) == "regression"
    assert problem_type(bert(hf.BertForTokenClassification, 1), many) == (
        "single_label_classification"
    )


def test_heads_whose_loss_is_a_softmax_whatever_their_labels_are():
    """One-hot frames are decimals in two dimensions, as several labels are."""

    class Mine(hf.BertForTokenClassification):
        pass

    speech = made(hf.Wav2Vec2ForAudioFrameClassification, hf.Wav2Vec2Config, 0, **_SPEECH)
    for model in (speech, bert(Mine, 1), bert(hf.BertForMultipleChoice, 1, num_labels=1)):
        assert problem_type(model, torch.eye(3)) == "single_label_classification"
    assert problem_type(own(1), torch.eye(3)) == "multi_label_classification"


def test_a_teacher_reads_what_its_forward_names_and_no_labels():
    batch = dict.fromkeys(("input_ids", "token_type_ids", "labels", "row", "extra"), 0)
    distil = hf.DistilBertModel(hf.DistilBertConfig(dim=12, n_layers=1, hidden_dim=12))
    assert readable(batch, tiny_bert(1), frozenset()).keys() == {
        "input_ids", "token_type_ids", "extra"
    }  # fmt: skip
    assert readable(batch, distil, frozenset({"token_type_ids"})).keys() == {"input_ids", "extra"}
    assert readable(batch, own(1), frozenset()).keys() == {"input_ids"}
    assert STILL["hidden_dropout_prob"] == 0

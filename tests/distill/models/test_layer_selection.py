"""A model of some blocks is the model that is saved, or it is refused."""

import pytest
import torch
import transformers as hf
from support.model_matrix import _RESNET, ENDS, TEXT, made

from geodistill.distill import take_layers
from geodistill.errors import InputError

DEEP = {**TEXT, "num_hidden_layers": 8, "num_attention_heads": 2}
CAUSAL = {**DEEP, **ENDS, "num_key_value_heads": 2}
EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
BLOCKS = [2, 3, 6, 8]
IDS = torch.randint(3, 100, (2, 16), generator=torch.Generator().manual_seed(0))


def teacher(name, **settings):
    config = getattr(hf, name).config_class
    return made(getattr(hf, name), config, 0, **settings).eval()


FAMILIES = {
    "SmolLM3": lambda: teacher("SmolLM3ForCausalLM", **CAUSAL),
    "DeepSeek-V3": lambda: teacher(
        "DeepseekV3ForCausalLM", **CAUSAL, **EXPERTS, first_k_dense_replace=3, n_routed_experts=4,
        n_group=1, topk_group=1, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=8, v_head_dim=8,
        qk_nope_head_dim=8, n_shared_experts=1,
    ),
    "Qwen2-MoE": lambda: teacher(
        "Qwen2MoeForCausalLM", **CAUSAL, **EXPERTS, num_experts=4, mlp_only_layers=[0, 5],
        shared_expert_intermediate_size=16,
    ),
    "Gemma 2": lambda: teacher("Gemma2ForCausalLM", **CAUSAL, head_dim=16),
    "Mamba": lambda: teacher(
        "MambaForCausalLM", vocab_size=100, hidden_size=32, num_hidden_layers=8, pad_token_id=0,
        **ENDS,
    ),
    "GPT-Neo": lambda: teacher(
        "GPTNeoForCausalLM", vocab_size=100, hidden_size=32, num_layers=8, num_heads=2,
        attention_types=[[["global", "local"], 4]], max_position_embeddings=64, window_size=4,
        **ENDS,
    ),
    "Longformer": lambda: teacher(
        "LongformerForMaskedLM",
        **{**DEEP, "max_position_embeddings": 80, "attention_window": [4, 8] * 4}, **ENDS,
    ),
    "DistilBERT": lambda: teacher(
        "DistilBertForMaskedLM", vocab_size=100, dim=32, n_layers=8, n_heads=2, hidden_dim=64,
    ),
}  # fmt: skip


def reloaded(model, folder):
    """The model as it is saved and loaded, in eval mode."""
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder)


def blocks_of(model):
    (blocks,) = (
        m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 8
    )
    return blocks


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_of_some_blocks_is_the_one_that_is_saved(family, tmp_path):
    whole = FAMILIES[family]()
    student = take_layers(whole, BLOCKS).eval()
    loaded = reloaded(student, tmp_path)
    with torch.no_grad():
        one, other, all_blocks = (m(input_ids=IDS).logits for m in (student, loaded, whole))
    assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(one, all_blocks, atol=1e-3)
    assert loaded.config.num_hidden_layers == 4


@pytest.mark.parametrize("family", ["SmolLM3", "Qwen2-MoE", "GPT-Neo"])
def test_the_blocks_compute_what_they_did_in_the_teacher(family):
    """A teacher whose other blocks are replaced by doing nothing gives the same outputs."""
    whole = FAMILIES[family]()
    student = take_layers(whole, BLOCKS).eval()
    for number, block in enumerate(blocks_of(whole), start=1):
        if number not in BLOCKS:
            block.register_forward_hook(
                lambda _, args, kwargs, out: (
                    (args[0] if args else kwargs["hidden_states"], *out[1:])
                    if isinstance(out, tuple)
                    else args[0]
                ),
                with_kwargs=True,
            )
    with torch.no_grad():
        one = student(input_ids=IDS, use_cache=False).logits
        other = whole(input_ids=IDS, use_cache=False).logits
    assert torch.allclose(one, other, atol=1e-5)


def test_blocks_that_no_configuration_describes_are_refused():
    """The first block of ModernBERT has no norm, and its attention is global in every third."""
    whole = teacher("ModernBertForMaskedLM", **DEEP, **ENDS, cls_token_id=1, sep_token_id=2)
    told = (
        r"blocks \[2, 3, 6, 8\] of ModernBertForMaskedLM are not the model that .*no place for mo"
    )
    with pytest.raises(InputError, match=told):
        take_layers(whole, BLOCKS)
    kept = take_layers(whole, [1, 4, 5])
    assert kept.config.layer_types == [whole.config.layer_types[i] for i in (0, 3, 4)]


def test_a_model_without_one_stack_of_blocks_is_refused():
    with pytest.raises(InputError, match="ResNetForImageClassification has 0 lists of None blocks"):
        take_layers(_RESNET(1), 2)


def test_an_image_model_is_checked_too():
    whole = teacher("ViTModel", hidden_size=32, num_hidden_layers=8, num_attention_heads=2,
                    intermediate_size=64, image_size=16, patch_size=4)  # fmt: skip
    assert len(take_layers(whole, 2).layers if hasattr(whole, "layers") else
               take_layers(whole, 2).encoder.layer) == 2  # fmt: skip


def test_blocks_of_one_kind_and_stages_of_a_backbone_follow(tmp_path):
    """Global attention is gone from the first; the second names its stages by number."""
    gemma = teacher("Gemma2ForCausalLM", **CAUSAL, head_dim=16)
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    dino = teacher(
        "Dinov2ForImageClassification", hidden_size=32, num_hidden_layers=8, patch_size=4,
        num_attention_heads=2, image_size=16, initializer_range=0.2,
    )  # fmt: skip
    for model, inputs in ((gemma, {"input_ids": IDS}), (dino, {"pixel_values": pixels})):
        student = take_layers(model, [1, 3, 5])
        loaded = reloaded(student, tmp_path / student.config.model_type)
        with torch.no_grad():
            assert torch.allclose(student.eval()(**inputs)[0], loaded(**inputs)[0], atol=1e-5)
            # Blocks without effect are blocks left out.
            blocks = blocks_of(model)
            for k in {*range(8)} - {0, 2, 4}:
                blocks[k].forward = lambda hidden, *args, **kwargs: hidden
            assert torch.allclose(model(**inputs)[0], loaded(**inputs)[0], atol=1e-4)


def test_stochastic_depth_follows_the_place_and_a_relative_bias_the_block(tmp_path):
    """BEiT drops blocks with a probability that grows with depth, from 0 to the configured rate."""
    whole = teacher(
        "BeitForImageClassification", hidden_size=32, num_hidden_layers=8, num_attention_heads=2,
        intermediate_size=64, image_size=16, patch_size=4, initializer_range=0.2,
        drop_path_rate=0.3, use_relative_position_bias=True, use_shared_relative_position_bias=True,
    )  # fmt: skip
    student = take_layers(whole, BLOCKS).eval()
    loaded = reloaded(student, tmp_path)
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(student(pixels).logits, loaded(pixels).logits, atol=1e-5)
        assert not torch.allclose(student(pixels).logits, whole(pixels).logits, atol=1e-3)
    for model in (student, loaded):
        rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in model.beit.layers]
        assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    "name", ["BartForConditionalGeneration", "T5Model", "WhisperForConditionalGeneration"]
)
@pytest.mark.parametrize("decoder_layers", [8, 3])
def test_a_model_of_two_stacks_is_refused(name, decoder_layers):
    """Not cut in the encoder alone where the stacks differ in depth."""
    sizes = {"d_model": 32, "pad_token_id": 0, "decoder_start_token_id": 1, **ENDS}
    t5 = {"num_layers": 8, "num_decoder_layers": decoder_layers, "num_heads": 2, "d_kv": 16}
    others = {"encoder_layers": 8, "decoder_layers": decoder_layers,
              "encoder_attention_heads": 2, "decoder_attention_heads": 2}  # fmt: skip
    if name.startswith("Whisper"):
        others |= {"suppress_tokens": None, "begin_suppress_tokens": None}
    whole = teacher(name, vocab_size=100, **sizes, **(t5 if name == "T5Model" else others))
    with pytest.raises(InputError, match=f"{name} has blocks in an encoder and in a decoder: exp"):
        take_layers(whole, 2)


def test_a_model_of_sounds_is_compared_and_one_of_unknown_inputs_refused():
    sizes = {**DEEP, "conv_dim": (8,), "conv_stride": (4,), "conv_kernel": (8,),
             "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}  # fmt: skip
    whole = teacher("Wav2Vec2Model", **{k: x for k, x in sizes.items() if k != "vocab_size"})
    assert len(take_layers(whole, 2).encoder.layers) == 2
    whole.main_input_name = "features"
    with pytest.raises(InputError, match="its features are of no known shape, so outputs are not"):
        take_layers(whole, 2)

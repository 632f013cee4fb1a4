"""Small models of many families and heads, and the losses of their first step, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import cross_entropy

from support.tiny_models import answers, collate, procrustes, sentences, tiny_bert, tiny_opt

TEXT = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2}
ENDS = {"bos_token_id": 1, "eos_token_id": 2}
LENGTHS = [8, 7, 8, 6]


def made(model: Any, config: Any, seed: int, **settings: Any) -> Any:
    torch.manual_seed(seed)
    return model(config(**settings))


def bert(model: Any, seed: int, **settings: Any) -> Any:
    return made(model, hf.BertConfig, seed, **{**TEXT, **STILL, **settings})


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stacked(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.stack([torch.as_tensor(r[name]) for r in rows]) for name in rows[0]}


# ---- examples ----

CLASSES = sentences(LENGTHS, seed=1)
PAIRS = [{**r, "token_type_ids": [0] * 3 + [1] * (len(r["input_ids"]) - 3)} for r in CLASSES]
SCORES = [{**r, "labels": 0.5 * r["labels"]} for r in CLASSES]
KINDS = [{**r, "labels": [float(k == r["labels"]) for k in range(4)]} for r in CLASSES]
TAGS = [{**r, "labels": [i % 5 for i in r["input_ids"]]} for r in CLASSES]
ANSWERS = answers(LENGTHS, kept=[3, 1, 5, 2], seed=1)
MASKED = [
    {**r, "labels": [t if i in (1, 3) else -100 for i, t in enumerate(r["input_ids"])]}
    for r in CLASSES
]
TRANSLATED = [{**r, "labels": r["input_ids"][: 3 + i]} for i, r in enumerate(CLASSES)]
IMAGES = [{"pixel_values": noise(i, 3, 16, 16), "labels": i % 3, "row": i} for i in range(4)]
SPEECH = [
    {"input_values": noise(i, 400), "labels": i % 3, "row": i,
     "attention_mask": (torch.arange(400) < 400 - 90 * i).long()} for i in range(4)
]  # fmt: skip
SOUNDS = [
    {"input_features": noise(i, 8, 40), "labels": torch.arange(5) + 3 * i + 2, "row": i}
    for i in range(4)
]
CAPTIONED = [
    {"pixel_values": noise(i, 3, 16, 16), "input_ids": [5, 6, 7 + i, 2], "row": i,
     "attention_mask": [1, 1, 1, 1]} for i in range(4)
]  # fmt: skip


def captions(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {**stacked(rows), "return_loss": True}


class OwnModule(nn.Module):
    """A model of nobody's library, whose features have a path and no number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, width)
        self.body = nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Any = None) -> Any:
        hidden = self.body(self.embed(input_ids)).tanh() * attention_mask.unsqueeze(-1)
        logits = self.head(hidden.mean(1))
        loss = None if labels is None else cross_entropy(logits, labels)
        return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}


def own(seed: int, width: int = 16) -> OwnModule:
    torch.manual_seed(seed)
    return OwnModule(width)


def of(model: str, config: str, **settings: Any) -> Callable[[int], Any]:
    return lambda seed: made(getattr(hf, model), getattr(hf, config), seed, **settings)


def of_bert(model: str, **settings: Any) -> Callable[[int], Any]:
    return lambda seed: bert(getattr(hf, model), seed, **settings)


_VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
           "intermediate_size": 64, "image_size": 16, "patch_size": 4}  # fmt: skip
_MOE = {**{k: v for k, v in TEXT.items() if k != "pad_token_id"}, "num_local_experts": 4,
        "num_key_value_heads": 2, "output_router_logits": True,
        "router_aux_loss_coef": 0.5}  # fmt: skip
_T5 = {"vocab_size": 100, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2,
       "dropout_rate": 0.0, "decoder_start_token_id": 0, "pad_token_id": 0}  # fmt: skip
_BOTH = {"vocab_size": 100, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
         "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64,
         "decoder_ffn_dim": 64, "dropout": 0.0, "pad_token_id": 0, "decoder_start_token_id": 1,
         "init_std": 0.2, **ENDS}  # fmt: skip
_SPEECH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 3,
           "intermediate_size": 64, "conv_dim": (8, 8), "conv_stride": (4, 4), "layerdrop": 0.0,
           "conv_kernel": (8, 8), "num_conv_pos_embeddings": 4, "mask_time_prob": 0.0,
           "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8, "hidden_dropout": 0.0,
           "attention_dropout": 0.0, "feat_proj_dropout": 0.0,
           "activation_dropout": 0.0}  # fmt: skip
_SHALLOW = {"vocab_size": 100, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64,
            "max_position_embeddings": 32, "dropout": 0.0, "attention_dropout": 0.0,
            "seq_classif_dropout": 0.0, "num_labels": 3}  # fmt: skip
_CLIP = {
    "text_config": {**TEXT, **ENDS, "max_position_embeddings": 16},
    "vision_config": _VISION, "projection_dim": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One row of the matrix.

    Attributes:
        family: of the models, as the handbook names it.
        head: what they predict.
        teacher: by seed.
        student: by seed.
        rows: examples.
        positions: whose features count: "next" (before a label), "own" (labelled), "tokens"
            (without padding), "all", or "frames" of speech.
        logits: "softmax", "bernoulli", "squared" or none.
        layer: of both models; a path is of both.
        collator: of the examples.
    """

    family: str
    head: str
    teacher: Callable[[int], Any]
    student: Callable[[int], Any]
    rows: list[dict[str, Any]]
    positions: str
    logits: str = "softmax"
    layer: int | str = -1
    collator: Callable[[Any], Any] = collate

    @property
    def name(self) -> str:
        return f"{self.family}, {self.head}"

    def batch(self) -> dict[str, Any]:
        return {k: v for k, v in self.collator(self.rows).items() if k != "row"}

    def by_hand(self) -> dict[str, float]:
        """Task, logit and Procrustes loss of the first step."""
        batch, student = self.batch(), self.student(1)
        blind = {k: v for k, v in batch.items() if k != "labels" or self.family in DECODE}
        seen, own_features = observed(student, _named(student, batch), self.layer)
        with torch.no_grad():
            said, features = observed(self.teacher(2).eval(), blind, self.layer)
        mask = self._mask(batch, student, own_features)
        rows = own_features[mask].double(), features[mask].double()
        losses = {"loss/ProcrustesLoss": float(procrustes(*rows))}
        losses["loss/task"] = float(seen["loss"]) if "loss" in seen else 0.0
        if self.logits:
            pair = [x["logits"] for x in (seen, said)]
            if pair[0].dim() == 3:
                pair = [x[mask] for x in pair]
            losses["loss/logit"] = float(DIVERGENCES[self.logits](*pair))
        return losses

    def _mask(self, batch: dict[str, Any], student: Any, features: Tensor) -> Tensor:
        labels = batch.get("labels")
        if self.positions == "own":
            return labels != -100
        if self.positions == "next":
            return torch.nn.functional.pad(labels[:, 1:] != -100, (0, 1))
        if self.positions == "tokens":
            return batch["attention_mask"].bool()
        mask = torch.ones(features.shape[:2], dtype=torch.bool)
        if self.positions == "frames":  # convolutions without padding: 8 wide, 4 apart, twice
            samples = batch["attention_mask"].sum(1)
            frames = ((samples - 8) // 4 + 1 - 8) // 4 + 1
            mask = torch.arange(features.shape[1]) < frames[:, None]
        return mask


def _named(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    import inspect

    known = inspect.signature(model.forward).parameters
    return {k: v for k, v in batch.items() if k in known}


def observed(model: Any, batch: dict[str, Any], layer: int | str) -> tuple[Any, Tensor]:
    """Output of a model, and the features of a layer as (b, positions, width)."""
    kept: list[Any] = []
    if isinstance(layer, str):
        (module,) = (m for n, m in model.named_modules() if f".{n}".endswith(f".{layer}"))
        hook = module.register_forward_hook(lambda _, __, output: kept.append(output))
        output = model(**_named(model, batch))
        hook.remove()
        features = kept[-1] if isinstance(kept[-1], Tensor) else kept[-1][0]
    else:
        output = model(**_named(model, batch), output_hidden_states=True)
        states = output.get("hidden_states") or output.get("decoder_hidden_states")
        features = states[layer]
    return output, features.flatten(2).transpose(1, 2) if features.dim() == 4 else features


def softmax_kl(student: Tensor, teacher: Tensor) -> Tensor:
    p, q = teacher.softmax(-1), student.softmax(-1)
    return (p * (p / q).log()).sum(-1).mean()


def bernoulli_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy less entropy, from torch's own."""
    p = teacher.sigmoid()
    rows = bce(student, p, reduction="none") - bce(teacher, p, reduction="none")
    return rows.sum(-1).mean()


DIVERGENCES = {
    "softmax": softmax_kl,
    "bernoulli": bernoulli_kl,
    "squared": lambda y, x: (y - x).square().mean(),
}
DECODE = ("T5", "BART", "Whisper")

_LABELS = {"num_labels": 3}
_LLAMA = of("LlamaForCausalLM", "LlamaConfig", **TEXT)
_GPT2 = of("GPT2LMHeadModel", "GPT2Config", vocab_size=100, n_embd=32, n_layer=2, n_head=2,
           n_positions=32, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ENDS)  # fmt: skip
_MIXTRAL = of("MixtralForCausalLM", "MixtralConfig", **_MOE)
_VIT = of("ViTForImageClassification", "ViTConfig", **_VISION, **STILL, **_LABELS)
_RESNET = of("ResNetForImageClassification", "ResNetConfig", embedding_size=8,
             hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **_LABELS)  # fmt: skip
_WHISPER = of("WhisperForConditionalGeneration", "WhisperConfig", num_mel_bins=8,
              max_source_positions=20, max_target_positions=16, suppress_tokens=None,
              begin_suppress_tokens=None, **_BOTH)  # fmt: skip
_WAV = of("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", **_SPEECH)
_T5S = of("T5ForConditionalGeneration", "T5Config", **_T5)
_BART = of("BartForConditionalGeneration", "BartConfig", **_BOTH, max_position_embeddings=32)
_CLIPS = of("CLIPModel", "CLIPConfig", **_CLIP)
_KINDS = of_bert(
    "BertForSequenceClassification", num_labels=4, problem_type="multi_label_classification"
)
_TAGS = of_bert("BertForTokenClassification", num_labels=5)
_MASKED = of_bert("BertForMaskedLM")

CASES = [
    Case("BERT", "one label", tiny_bert, tiny_bert, CLASSES, "tokens"),
    Case("BERT to DistilBERT", "one label of a pair of texts",
         of_bert("BertForSequenceClassification", num_labels=3),
         of("DistilBertForSequenceClassification", "DistilBertConfig", **_SHALLOW),
         PAIRS, "tokens"),
    Case("BERT", "several labels", _KINDS, _KINDS, KINDS, "tokens", "bernoulli"),
    Case("BERT", "a number", lambda i: tiny_bert(i, labels=1), lambda i: tiny_bert(i, labels=1),
         SCORES, "tokens", "squared"),
    Case("BERT", "a label per token", _TAGS, _TAGS, TAGS, "own"),
    Case("BERT", "masked tokens", _MASKED, _MASKED, MASKED, "own"),
    Case("OPT", "the next token", tiny_opt, tiny_opt, ANSWERS, "next"),
    Case("GPT-2", "the next token", _GPT2, _GPT2, ANSWERS, "next"),
    Case("Llama", "the next token", _LLAMA, _LLAMA, ANSWERS, "next", layer="layers.1"),
    Case("Mixtral", "the next token and a router", _MIXTRAL, _MIXTRAL, ANSWERS, "next"),
    Case("T5", "a text, by the decoder", _T5S, _T5S, TRANSLATED, "own"),
    Case("T5", "a text, by the encoder", _T5S, _T5S, TRANSLATED, "tokens", "", "encoder"),
    Case("BART", "a text, by the decoder", _BART, _BART, TRANSLATED, "own"),
    Case("ViT", "one label of an image", _VIT, _VIT, IMAGES, "all", collator=stacked),
    Case("ResNet", "one label of an image", _RESNET, _RESNET, IMAGES, "all", collator=stacked),
    Case("ResNet", "one label, by path", _RESNET, _RESNET, IMAGES, "all",
         layer="encoder.stages.0", collator=stacked),
    Case("Wav2Vec2", "one label of speech", _WAV, _WAV, SPEECH, "frames", collator=stacked),
    Case("Whisper", "a text of speech", _WHISPER, _WHISPER, SOUNDS, "own", collator=stacked),
    Case("CLIP", "pairs of image and text", _CLIPS, _CLIPS, CAPTIONED, "all", "",
         "vision_model.encoder.layers.1", captions),
    Case("a plain module", "one label", lambda i: own(i, 24), own, CLASSES, "tokens",
         layer="body"),
]  # fmt: skip


def table() -> str:
    """The matrix as the handbook prints it."""
    losses = {"softmax": "`KLDivergenceLoss`", "bernoulli": "`BernoulliKLLoss`",
              "squared": "`SquaredErrorLoss`", "": "none"}  # fmt: skip
    rows = [f"| {c.family} | {c.head} | `{c.layer}` | {losses[c.logits]} |" for c in CASES]
    return "\n".join(["| models | head | layer | `logit_loss` |", "|---|---|---|---|", *rows])

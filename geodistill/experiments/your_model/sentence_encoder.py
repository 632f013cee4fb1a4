"""A sentence encoder: a transformer, pooled over its tokens, with embeddings of length one."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from geodistill.errors import InputError

POOLINGS = ("mean", "cls")
TRANSFORMER = "sentence_bert_config.json"
"""Where sentence-transformers keeps the length of texts."""
_MODULES, _POOLING = "modules.json", "1_Pooling/config.json"
_FOLDERS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
"""By module, as sentence-transformers reads them."""


class SentenceEncoder(nn.Module):
    """An encoder whose logits are its sentence embeddings, so that a logit loss compares these.

    Args:
        encoder: a model of `transformers` without a head.
        pooling: "mean" over the tokens of a text, or "cls", its first token.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
        >>> encoder = SentenceEncoder(BertModel(config), "mean")
        >>> ids = torch.ones(3, 5, dtype=torch.long)
        >>> embeddings = encoder(ids, torch.ones_like(ids)).logits
        >>> embeddings.shape, embeddings.norm(dim=1).round().tolist()
        (torch.Size([3, 8]), [1.0, 1.0, 1.0])
    """

    def __init__(self, encoder: Any, pooling: str) -> None:
        super().__init__()
        self.encoder, self.pooling = encoder, pooling
        self.config = deepcopy(encoder.config)  # the encoder's own is saved
        self.config.problem_type = "regression"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.encoder.device
        return device

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Any:
        """The encoder's outputs, and the embeddings (b, d) as `logits`."""
        outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **options)
        hidden, mask = outputs.last_hidden_state, attention_mask.unsqueeze(-1)
        pooled = hidden[:, 0]
        if self.pooling == "mean":
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        outputs["logits"] = normalize(pooled, dim=-1)
        return outputs

    def save_pretrained(self, folder: Path) -> None:
        """Write a folder that `AutoModel` and `SentenceTransformer` load."""
        self.encoder.save_pretrained(folder)
        pooling = {
            "word_embedding_dimension": self.config.hidden_size,
            "pooling_mode_mean_tokens": self.pooling == "mean",
            "pooling_mode_cls_token": self.pooling == "cls",
        }
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (name, path) in enumerate(_FOLDERS.items())
        ]
        for name, content in ((_POOLING, pooling), (_MODULES, modules)):
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def pooling_of(name: str) -> str:
    """The pooling of a sentence encoder: what its folder says, else the mean over tokens.

    Args:
        name: a folder or a name of the hub.

    Raises:
        InputError: a pooling that is none of `POOLINGS`, layers after it, or texts in lower case.
    """
    modules = _read_json(name, _MODULES) or []
    others = [kind for m in modules if (kind := m["type"].rpartition(".")[2]) not in _FOLDERS]
    settings = _read_json(name, _POOLING) or {"pooling_mode": "mean"}
    poolings = [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in settings.items()
        if key.startswith("pooling_mode_") and value is True
    ] or [str(settings.get("pooling_mode"))]
    if (_read_json(name, TRANSFORMER) or {}).get("do_lower_case"):
        raise InputError(
            f"teacher {name!r} puts texts in lower case before its tokenizer ({TRANSFORMER}); "
            "expected a tokenizer that does so itself"
        )
    if others or len(poolings) != 1 or poolings[0] not in POOLINGS:
        raise InputError(
            f"teacher {name!r} makes its embeddings by {' and '.join([*poolings, *others])}; "
            f"expected {' or '.join(POOLINGS)} over the tokens alone (FeatureDistillationTrainer "
            "takes any module)"
        )
    return str(poolings[0])


def _read_json(name: str, file: str) -> Any:
    """A file of a folder or of the hub; None if there is none."""
    from transformers.utils.hub import cached_file

    path = cached_file(
        name,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))

"""A feature loss on sentence embeddings, as `SentenceTransformerTrainer` takes it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from geodistill.distill.feature_term import check_feature_loss
from geodistill.errors import InputError
from geodistill.losses.base import check_module


class SentenceEmbeddingLoss(nn.Module):
    """A feature loss between a student's sentence embeddings and a teacher's, given as labels.

    For `loss=` of `sentence_transformers.SentenceTransformerTrainer`, with a dataset whose column
    `label` holds the teacher's embedding of each example (`teacher.encode(texts)`), as for its
    `MSELoss`. Embeddings may differ in width. Of several columns of texts, such as translations,
    each is compared with the labels; the loss is the mean over columns.

    Args:
        model: the student, called as `model(features)["sentence_embedding"]`.
        loss: a feature loss; its parameters are trained with the model's.

    Raises:
        InputError: no modules, or labels that are no embeddings (b, d).

    Example:
        >>> from geodistill.losses import ProcrustesLoss
        >>> class Student(nn.Module):
        ...     def forward(self, features):
        ...         return {"sentence_embedding": features["input_ids"].float()}
        >>> loss = SentenceEmbeddingLoss(Student(), ProcrustesLoss())
        >>> rows = torch.tensor([[1, 2], [3, 5], [4, 4]])
        >>> round(abs(float(loss([{"input_ids": rows}], 2.0 * rows))), 6)
        0.0
    """

    def __init__(self, model: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        check_module(model, "model", "SentenceTransformer(name)")
        check_feature_loss(loss)
        self.model, self.loss = model, loss

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """The loss of a batch: inputs of each column of texts, teacher embeddings (b, d)."""
        if not isinstance(labels, Tensor) or labels.dim() != 2 or not labels.is_floating_point():
            shown = f"of shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else labels
            raise InputError(
                f"labels are {shown}: expected the teacher's embedding of each example, (b, d), "
                "in a column `label` (teacher.encode(texts))"
            )
        students = [self.model(features)["sentence_embedding"] for features in sentence_features]
        return torch.stack([self.loss(student, labels, None) for student in students]).mean()

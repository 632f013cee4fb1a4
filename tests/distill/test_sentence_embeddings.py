"""The loss that Sentence Transformers' trainer takes, called as that trainer calls it."""

import pytest
import torch
from support.model_matrix import noise
from support.tiny_models import procrustes
from torch import nn

from geodistill.distill import SentenceEmbeddingLoss
from geodistill.errors import InputError
from geodistill.losses import KLDivergenceLoss, ProcrustesLoss, ProjectionLoss


class Student(nn.Module):
    """Mean of token embeddings, as a `SentenceTransformer` with mean pooling gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)

    def forward(self, features):
        mask = features["attention_mask"].unsqueeze(-1)
        tokens = self.embed(features["input_ids"]) * mask
        return {"token_embeddings": tokens, "sentence_embedding": tokens.sum(1) / mask.sum(1)}


def column(seed):
    ids = torch.randint(50, (6, 5), generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(5) < torch.tensor([5, 3, 4, 2, 5, 1])[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


def test_a_step_is_that_of_the_mean_over_columns_done_by_hand():
    torch.manual_seed(0)
    student, labels, columns = Student(), noise(3, 6, 12), [column(1), column(2)]
    start = student.embed.weight.detach().clone()
    loss = SentenceEmbeddingLoss(student, ProcrustesLoss())
    value = loss(columns, labels)
    value.backward()
    weight = start.double().requires_grad_()
    parts = []
    for features in columns:
        rows = [
            weight[ids[: int(m.sum())]].mean(0)
            for ids, m in zip(features["input_ids"], features["attention_mask"], strict=True)
        ]
        parts.append(procrustes(torch.stack(rows), labels.double()))
    expected = sum(parts) / 2
    expected.backward()
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert torch.allclose(student.embed.weight.grad.double(), weight.grad, rtol=1e-4, atol=1e-6)
    assert float(weight.grad.norm()) > 1e-3


def test_a_projection_is_a_parameter_of_the_loss_and_learns():
    """Sentence Transformers' optimiser takes the parameters of the loss."""
    torch.manual_seed(0)
    loss = SentenceEmbeddingLoss(Student(), ProjectionLoss(8, 12))
    names = {name for name, _ in loss.named_parameters()}
    assert names == {"model.embed.weight", "loss.weight"}
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    values = []
    for _ in range(5):
        values.append(loss([column(1)], noise(3, 6, 12)))
        optimizer.zero_grad()
        values[-1].backward()
        optimizer.step()
    assert float(values[-1]) < float(values[0]) - 1e-3


def test_labels_that_are_no_embeddings_and_losses_of_logits_are_refused():
    loss = SentenceEmbeddingLoss(Student(), ProcrustesLoss())
    for labels in (torch.tensor([1, 0, 1, 1, 0, 0]), torch.ones(6), None):
        with pytest.raises(InputError, match=r"labels are .*: expected the teacher's embedding"):
            loss([column(1)], labels)
    for other in (KLDivergenceLoss(), nn.MSELoss(), "procrustes"):
        with pytest.raises(InputError, match="loss is "):
            SentenceEmbeddingLoss(Student(), other)

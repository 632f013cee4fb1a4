"""A plain PyTorch loop whose geometry term is as strong as the task, by the ratio of gradients."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from geodistill import ProcrustesLoss

WARM_UP = 16  # batches in which the term is off, and both gradients are measured


def norm(loss: torch.Tensor, features: torch.Tensor) -> float:
    """Norm of the gradient of a loss at the student's features."""
    return float(torch.autograd.grad(loss, features, retain_graph=True)[0].norm())


def main(multiplier: float = 1.0) -> list[float]:
    """Train a student of width 16 to a teacher of width 64; return its geometry losses."""
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(32, 64), nn.Tanh()).requires_grad_(False)
    body, head = nn.Sequential(nn.Linear(32, 16), nn.Tanh()), nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=0.01)
    geometry, norms, losses = ProcrustesLoss(), torch.zeros(2), []
    for step in range(120):
        inputs = torch.randn(128, 32)
        features = body(inputs)
        task = cross_entropy(head(features), (inputs[:, 0] > 0).long())
        term = geometry(features, teacher(inputs))
        loss = task
        if step < WARM_UP:
            norms += torch.tensor([norm(task, features), norm(term, features)])
        else:
            loss = task + multiplier * float(norms[0] / norms[1]) * term
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(term.item())
    return losses


if __name__ == "__main__":
    print(main()[::WARM_UP])

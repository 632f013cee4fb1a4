"""Two processes (DDP) whose geometry loss is that of their joined batch: `group`."""

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from geodistill import ProcrustesLoss

STEPS, BATCH = 60, 64


def train(rank: int, world: int, folder: str) -> None:
    """One process: it sees its share of each batch."""
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world)
    torch.manual_seed(0)  # the same data and the same start in each process
    teacher = nn.Linear(32, 24).requires_grad_(False)
    student = DistributedDataParallel(nn.Linear(32, 8))
    geometry = ProcrustesLoss(group=dist.group.WORLD)
    optimizer, losses = torch.optim.SGD(student.parameters(), lr=0.5), []
    for _ in range(STEPS):
        inputs = torch.randn(BATCH, 32).chunk(world)[rank]
        loss = geometry(student(inputs), teacher(inputs))
        optimizer.zero_grad()
        loss.backward()  # DDP takes the mean over processes, as the loss expects
        optimizer.step()
        losses.append(loss.item())
    if rank == 0:
        torch.save(losses, f"{folder}/losses.pt")
    dist.destroy_process_group()


def main(world: int = 2) -> list[float]:
    """The losses, the same for any number of processes."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, (world, folder), nprocs=world)
        losses: list[float] = torch.load(Path(folder, "losses.pt"), weights_only=True)
    return losses


if __name__ == "__main__":
    print(main()[::10])

"""Timing of alternatives run in turn, by minimum processor time, and their peak memory."""

from __future__ import annotations

import statistics
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Row = dict[str, Any]
Runs = Mapping[str, Callable[[], Any]]


class Seconds(dict[str, float]):
    """Minimum seconds of each alternative.

    Attributes:
        median: median seconds of each alternative.
    """

    median: dict[str, float]


def timed(runs: Runs, repeats: int, device: str = "cpu") -> Seconds:
    """Minimum seconds of each: processor time on a CPU, which depends less on a busy machine."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):  # in turn, so that disturbances affect all
        for name, run in runs.items():
            start = clock()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            measured[name].append(clock() - start)
    least = Seconds({name: min(times) for name, times in measured.items()})
    least.median = {name: statistics.median(times) for name, times in measured.items()}
    return least


def row(what: str, size: str, ratio: float, target: str | None = None, **details: Any) -> Row:
    """One row of the results: a ratio, the target that it should meet, and what it is made of."""
    return {"what": what, "size": size, "ratio": ratio, "target": target, **details}


def ratio(what: str, size: str, seconds: Seconds, over: str, under: str, target: str | None) -> Row:
    """The row of a comparison: minimum times of `over` divided by those of `under`, and medians."""
    return row(
        what, size, seconds[over] / seconds[under], target,
        seconds=seconds, median_seconds=seconds.median,
        median_ratio=seconds.median[over] / seconds.median[under],
    )  # fmt: skip


def on(device: str) -> str:
    """The device as a part of a row's name; empty for the CPU."""
    return "" if device == "cpu" else f" ({device})"


def with_gradient(value: Callable[[Tensor], Tensor], point: Tensor) -> Callable[[], Tensor]:
    """A function that computes a value at a copy of `point`, and returns its gradient there."""

    def run() -> Tensor:
        leaf = point.detach().clone().requires_grad_()
        torch.autograd.backward(value(leaf))
        assert leaf.grad is not None
        return leaf.grad

    return run


def peak_memory(run: Callable[[], Any], *inputs: Tensor) -> int:
    """Peak bytes of tensors beyond the inputs (the workspace of LAPACK is not counted)."""
    watch = Watch(*inputs)
    with torch.no_grad(), watch:
        run()
    return watch.most


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storage of new tensors, not of views of `inputs`, until the last view is freed."""

    def __init__(self, *inputs: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        self.live: Counter[int] = Counter()
        self.held = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._hold(tensor)
        return result

    def _hold(self, tensor: Tensor) -> None:
        address, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        if address in self.known:
            return
        if not self.live[address]:
            self.held += size
            self.most = max(self.most, self.held)
        self.live[address] += 1
        weakref.finalize(tensor, self._release, address, size)

    def _release(self, address: int, size: int) -> None:
        self.live[address] -= 1
        if not self.live[address]:
            self.held -= size

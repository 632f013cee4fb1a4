"""How rivals are compared: run in turn, by their least processor times, by the bytes they hold."""

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
Rivals = Mapping[str, Callable[[], Any]]


class Seconds(dict[str, float]):
    """Least seconds of each rival, the medians beside them."""

    median: dict[str, float]


def timed(rivals: Rivals, repeats: int, device: str = "cpu") -> Seconds:
    """Least time in seconds of each: processor time on a CPU, so that a busy machine tells less."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(repeats + 1):  # in turn, so that what disturbs one disturbs all
        for name, run in rivals.items():
            start = clock()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            taken[name].append(clock() - start)
    least = Seconds({name: min(each) for name, each in taken.items()})
    least.median = {name: statistics.median(each) for name, each in taken.items()}
    return least


def ratio(what: str, size: str, seconds: Seconds, over: str, under: str, target: str | None) -> Row:
    """The row of one comparison: least times of `over` over those of `under`, medians beside."""
    found = {
        "what": what,
        "size": size,
        "ratio": seconds[over] / seconds[under],
        "target": target,
        "seconds": seconds,
    }
    median = seconds.median[over] / seconds.median[under]
    return found | {"median_seconds": seconds.median, "median_ratio": median}


def peak_memory(run: Callable[[], Any], *inputs: Tensor) -> int:
    """Most bytes that tensors held beyond the inputs (LAPACK's own workspace is not seen)."""
    watch = Watch(*inputs)
    with torch.no_grad(), watch:
        run()
    return watch.most


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storage of each new tensor until its last view has gone; of `inputs`, no view."""

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
        place, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        if place in self.known:
            return
        if not self.live[place]:
            self.held += size
            self.most = max(self.most, self.held)
        self.live[place] += 1
        weakref.finalize(tensor, self._release, place, size)

    def _release(self, place: int, size: int) -> None:
        self.live[place] -= 1
        if not self.live[place]:
            self.held -= size

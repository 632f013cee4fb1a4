"""Where a run comes from: commit, package versions and device, as stored with every row."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from geodistill.paths import SOURCE_ROOT

VERSIONED = ("geodistill", "torch", "transformers", "tokenizers", "datasets", "numpy", "peft")


@functools.cache
def provenance() -> dict[str, Any]:
    """The commit, whether the checkout was changed since, the versions and the device."""
    versions = {name: importlib.metadata.version(name) for name in VERSIONED}
    versions["python"] = platform.python_version()
    return {
        "versions": json.dumps(versions),
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": is_changed(),
        "device": device_name(),
    }


def is_changed() -> bool:
    """Whether the checkout differs from its commit, and True without git; imports no torch."""
    # Results appear while experiments run; they do not change the code that makes them.
    return _git("status", "--porcelain", "--", ".", ":!data/results") != ""


def _git(*arguments: str) -> str | None:
    """What git prints in the checkout of this package, or None where it fails or is absent."""
    try:
        process = subprocess.run(
            ["git", *arguments], cwd=SOURCE_ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return process.stdout.strip() if process.returncode == 0 else None


def device_name() -> str:
    """The first GPU, such as "cuda: NVIDIA H100", or else "cpu: <model of the processor>"."""
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"cpu: {names[0] if names else platform.machine()}"

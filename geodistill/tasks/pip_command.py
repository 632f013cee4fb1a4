"""The pip that downloads assets, also in environments made without one."""

from __future__ import annotations

import importlib.util
import sys
from importlib import resources
from pathlib import Path

from geodistill.errors import AssetError


def pip_command() -> list[str]:
    """The command that runs pip: the environment's, or else the wheel that Python comes with.

    Environments made by uv, for example, have no pip of their own.

    Raises:
        AssetError: Python has no wheel of pip either.

    Example:
        >>> pip_command()[0] == sys.executable
        True
    """
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("ensurepip"):
        bundled = Path(str(resources.files("ensurepip"))) / "_bundled"
        for wheel in bundled.glob("pip-*.whl"):
            return [sys.executable, str(wheel / "pip")]
    raise AssetError(
        f"there is no pip for {sys.executable}, which downloads models and texts; install it, as "
        "by `uv pip install pip` or `python -m ensurepip`"
    )

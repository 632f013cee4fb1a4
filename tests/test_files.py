"""Files are written completely or not at all, and a changed one is refused by its checksum."""

import errno
import hashlib
import os
import shutil
import subprocess

import pandas as pd
import pytest

from geodistill import files
from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.files import (
    CHECKSUMS,
    atomic_file,
    atomic_folder,
    disk_full,
    first_line,
    remove_interrupted,
    sha256,
    sha256_once,
    verify_checksum,
    write_checksums,
)


def test_a_file_is_replaced_only_by_a_complete_one(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with atomic_file(path) as partial:
        partial.write_text("one")
        assert not path.exists()
        assert partial.suffix == ".csv"

    def write_half() -> None:
        with atomic_file(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "one"
    assert os.listdir(path.parent) == ["table.csv"]


def test_a_folder_is_replaced_only_by_a_complete_one(tmp_path):
    folder = tmp_path / "model"
    for content in ("one", "two"):
        with atomic_folder(folder) as partial:
            (partial / content).write_text(content)

    def write_half() -> None:
        with atomic_folder(folder) as partial:
            (partial / "three").write_text("half")
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_half()
    assert os.listdir(folder) == ["two"]
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_killed_process_left_is_not_mixed_in(tmp_path):
    (tmp_path / f".model.{os.getpid()}.partial").mkdir()
    (tmp_path / f".model.{os.getpid()}.partial" / "old").write_text("")
    with atomic_folder(tmp_path / "model") as partial:
        assert os.listdir(partial) == []


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    for name in (".a[1].7.partial", ".a[1].8.partial", ".a1.7.partial", "a[1]"):
        (tmp_path / name).mkdir()
    remove_interrupted(tmp_path / "a[1]")
    assert sorted(os.listdir(tmp_path)) == [".a1.7.partial", "a[1]"]


def test_hash_and_messages(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 10**6)
    assert sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 10**6).hexdigest()
    assert first_line(ValueError("first\nsecond")) == "first"
    assert first_line(KeyError()) == "KeyError"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file")
    assert disk_full(RuntimeError(f"safetensors: {full}")) == "No space left on device"
    assert disk_full(OSError(errno.EACCES, "Permission denied")) == ""


@pytest.fixture
def results(tmp_path):
    """A folder with two tables and their checksums."""
    for name in ("rows", "items"):
        pd.DataFrame({"value": range(100), "name": name}).to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "notes.txt").write_text("no table")
    (tmp_path / ".rows.1.partial.parquet").write_text("of a killed process")
    write_checksums(tmp_path)
    return tmp_path


def flip_bit(path, position):
    """Change one bit, keeping size and modification time."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_checksums_are_in_the_format_of_sha256sum(results):
    lines = (results / CHECKSUMS).read_text().splitlines()
    assert lines == [f"{sha256(results / n)}  {n}" for n in ("items.parquet", "rows.parquet")]
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", CHECKSUMS], cwd=results, check=True)


def test_one_flipped_bit_anywhere_is_refused(results):
    path = results / "rows.parquet"
    read_stored(path)
    size = path.stat().st_size
    for position in (4, size // 4, size // 2, size - 5):
        other = results / str(position)
        shutil.copytree(results, other, ignore=shutil.ignore_patterns("[0-9]*"))
        flip_bit(other / "rows.parquet", position)
        with pytest.raises(
            InputError, match=r"rows\.parquet is damaged or was changed: .* SHA-256"
        ):
            read_stored(other / "rows.parquet")
        assert len(read_stored(other / "items.parquet")) == 100


def test_the_way_out_of_a_damaged_table(results):
    path = results / "rows.parquet"
    pd.DataFrame({"value": [1]}).to_parquet(path)
    with pytest.raises(InputError, match=r"restore it by `git checkout`, or delete it and SHA256S"):
        verify_checksum(path)
    write_checksums(results)
    assert len(read_stored(path)) == 1
    path.unlink()
    with pytest.raises(InputError, match=r"can't be read \(FileNotFoundError"):
        read_stored(path)


def test_files_without_a_checksum_are_read(results):
    verify_checksum(results / "notes.txt")
    (results / CHECKSUMS).unlink()
    pd.DataFrame({"value": [1]}).to_parquet(results / "rows.parquet")
    assert len(read_stored(results / "rows.parquet")) == 1


@pytest.mark.parametrize("content", [b"no-name\n", b"\xff\xfe  rows.parquet\n"])
def test_a_damaged_list_of_checksums_is_refused(results, content):
    (results / CHECKSUMS).write_bytes(content)
    with pytest.raises(
        InputError, match=r"SHA256SUMS is damaged \(.*restore it, by `git checkout`"
    ):
        read_stored(results / "rows.parquet")


def test_an_unchanged_file_is_hashed_once(results, monkeypatch):
    hashed = []
    monkeypatch.setattr(files, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    path = results / "rows.parquet"
    assert sha256_once(path) == sha256_once(path) == sha256(path)
    for _ in range(3):
        read_stored(path)
    assert hashed == ["rows.parquet"]
    pd.DataFrame({"value": [1]}).to_parquet(path)
    assert sha256_once(path) == sha256(path)
    assert hashed == ["rows.parquet"] * 2

"""Files are written whole or not at all."""

import errno
import hashlib
import os

import pytest

from geodistill.files import atomic_file, atomic_folder, disk_full, first_line, sha256


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with atomic_file(path) as partial:
        partial.write_text("one")
        assert not path.exists()
        assert partial.suffix == ".csv"
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "one"
    assert os.listdir(path.parent) == ["table.csv"]


def test_a_folder_is_replaced_only_by_a_whole_one(tmp_path):
    folder = tmp_path / "model"
    for content in ("one", "two"):
        with atomic_folder(folder) as partial:
            (partial / content).write_text(content)
    with pytest.raises(OSError, match="gone"), atomic_folder(folder) as partial:
        (partial / "three").write_text("half")
        raise OSError("gone")
    assert os.listdir(folder) == ["two"]
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_killed_process_left_is_not_mixed_in(tmp_path):
    (tmp_path / f".model.{os.getpid()}.partial").mkdir()
    (tmp_path / f".model.{os.getpid()}.partial" / "old").write_text("")
    with atomic_folder(tmp_path / "model") as partial:
        assert os.listdir(partial) == []


def test_hash_and_messages(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 10**6)
    assert sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 10**6).hexdigest()
    assert first_line(ValueError("first\nsecond")) == "first"
    assert first_line(KeyError()) == "KeyError"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file")
    assert disk_full(RuntimeError(f"safetensors: {full}")) == "No space left on device"
    assert disk_full(OSError(errno.EACCES, "Permission denied")) == ""

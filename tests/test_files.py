"""Files appear whole or not at all."""

import errno
import hashlib
import json
import math
import os
import stat
from pathlib import Path

import pytest

from pathoml.errors import OutputError
from pathoml.files import atomic_path, file_digest, write_bytes, write_json, write_text


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_missing_folders_are_made_and_the_content_stands(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "c.bin", b"\x00\xff")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"\x00\xff"
    assert list((tmp_path / "a" / "b").iterdir()) == [tmp_path / "a" / "b" / "c.bin"]


def test_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    write_text(tmp_path / "t.txt", "µm ½")
    assert (tmp_path / "t.txt").read_bytes() == b"\xc2\xb5m \xc2\xbd"


def fail_half_way(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("new", encoding="ascii")
        assert path.read_text(encoding="ascii") == "old"
        raise error


@pytest.mark.parametrize("error", [ValueError("half way"), KeyboardInterrupt("half way"), SystemExit("half way")])
def test_a_failure_half_way_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "f.txt"
    write_text(path, "old")
    with pytest.raises(type(error), match="half way"):
        fail_half_way(path, error)
    assert path.read_text(encoding="ascii") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_is_an_output_error_and_leaves_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(where, full_disk)
    with pytest.raises(
        OutputError, match=r"f\.txt: cannot be written \(No space left on device\); free space or choose"
    ):
        write_text(tmp_path / "f.txt", "new")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "file" / "f.txt", "new")


def test_content_reaches_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    sync, replace = os.fsync, Path.replace

    def note_sync(handle: int) -> None:
        steps.append(("sync", os.fstat(handle).st_size))
        sync(handle)

    def note_replace(self: Path, target: Path) -> Path:
        steps.append(("replace", self.stat().st_size))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_bytes(tmp_path / "f.bin", bytes(5000))
    assert steps[:2] == [("sync", 5000), ("replace", 5000)]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "f.txt", "x")
        assert os.umask(umask) == umask, "reading the umask must not change it"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f.txt").stat().st_mode) == 0o666 & ~umask


def test_json_keeps_the_order_of_keys_and_ends_with_a_newline(tmp_path: Path) -> None:
    content = {"b": [1, 0.1], "a": {"µ": None}}
    write_json(tmp_path / "f.json", content)
    text = (tmp_path / "f.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert text.index('"b"') < text.index('"a"')
    assert "µ" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_refuses_what_is_no_json_and_writes_nothing(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "f.json", {"a": value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_the_digest_is_the_sha256(tmp_path: Path, size: int) -> None:
    content = bytes(index % 251 for index in range(size))
    (tmp_path / "f").write_bytes(content)
    assert file_digest(tmp_path / "f") == hashlib.sha256(content).hexdigest()

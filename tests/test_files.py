"""A file is written whole or not at all."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from ramlib._files import as_path, write_atomically


def test_a_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half of the n")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


class TestDiskFull:
    """`write` fails as it does there; what it says is checked, and what it leaves."""

    def refused(self, path, error):
        def fail(temporary):
            temporary.write_bytes(bytes(2_000_000))
            raise error

        with pytest.raises(OSError, match=f"no space left in {path.parent}: kept needs") as e:
            write_atomically(path, fail)
        assert list(path.parent.iterdir()) == [path]
        return str(e.value)

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            RuntimeError(
                "I/O error: No space left on device (os error 28)"
            ),  # as safetensors has it
        ],
        ids=type,
    )
    def test_names_the_folder_and_the_space_and_leaves_the_old_file(self, error, tmp_path):
        path = tmp_path / "kept"
        path.write_bytes(b"old")
        message = self.refused(path, error)
        free = shutil.disk_usage(tmp_path).free / 1e6
        needed, there = map(float, re.findall(r"([\d.]+) MB", message))
        assert needed >= there == pytest.approx(free, rel=0.2)
        assert path.read_bytes() == b"old"

    def test_is_seen_where_the_writer_does_not_say_it(self, tmp_path, monkeypatch):
        """As torch does: a RuntimeError of its zip writer."""
        path = tmp_path / "kept"
        path.write_bytes(bytes(3_000_000))
        usage = shutil.disk_usage(tmp_path)._replace(free=500_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        message = self.refused(path, RuntimeError("PytorchStreamWriter failed writing file"))
        assert "needs at least 3.0 MB, and 2.5 MB are free" in message


def test_a_drive_without_rights_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    write_atomically(tmp_path / "new", lambda temporary: temporary.write_text("new"))
    assert (tmp_path / "new").read_text() == "new"


def test_home_is_expanded_and_a_home_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert as_path("~/x") == Path("/somewhere/x")
    assert as_path("./~/x") == Path(".") / "~" / "x"
    with pytest.raises(FileNotFoundError, match="~nobody-here/x: there is no such home folder"):
        as_path("~nobody-here/x")


def test_makes_the_folder_and_gives_the_usual_rights(tmp_path):
    path, plain = tmp_path / "a" / "b" / "new", tmp_path / "plain"
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    plain.touch()
    assert path.read_text() == "new"
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_atomically(tmp_path / "file" / "w", lambda temporary: temporary.touch())

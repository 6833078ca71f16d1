"""A file is written whole or not at all."""

import pytest

from ramlib._files import write_atomically


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

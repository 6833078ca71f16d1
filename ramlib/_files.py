"""Files that are there whole or not at all, and folders as people name them."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SPARE = 1 << 20  # bytes: not every writer says why it failed, but a full disk has less


def as_path(named: Path | str) -> Path:
    """A path that a user gave, with `~` for the home folder.

    Raises:
        FileNotFoundError: if `~` is of nobody, or of somebody without a home folder.
    """
    path = os.path.expanduser(named)
    if path.startswith("~"):
        raise FileNotFoundError(f"{named}: there is no such home folder; write the path without ~")
    return Path(path)


class _DiskFull(OSError):
    pass


@contextmanager
def room(part: Path | None, path: Path) -> Iterator[None]:
    """While `path` is written, or a `part` that shall become it: if its disk is full, say so.

    Raises:
        OSError: if the disk is full.
    """
    try:
        yield
    except _DiskFull:
        raise
    except Exception as error:
        free = shutil.disk_usage(path.parent).free
        said = getattr(error, "errno", None) in _FULL or os.strerror(errno.ENOSPC) in str(error)
        if not said and free >= _SPARE:
            raise
        reached, taken = _size(part) if part is not None else (0, 0)
        free += taken  # as it will be when the part is gone
        needed = max(reached, _size(path)[0], free)
        raise _DiskFull(
            f"no space left in {path.parent}: {path.name} needs at least {needed / 1e6:.1f} MB, "
            f"and {free / 1e6:.1f} MB are free; make room there, or choose another folder"
        ) from error


def _size(path: Path) -> tuple[int, int]:
    """Bytes of a file or a folder, and how many of them the disk holds already."""
    stats = [p.stat() for p in (path, *path.rglob("*")) if p.is_file()]
    return sum(s.st_size for s in stats), sum(getattr(s, "st_blocks", 0) * 512 for s in stats)


def usual_rights(path: Path, mode: int) -> None:
    """Give a temporary file or folder, made for its owner alone, the rights that others have."""
    umask = os.umask(0)
    os.umask(umask)
    with suppress(OSError):  # a drive without rights, such as exFAT
        os.chmod(path, mode & ~umask)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)` and put the result at `path` in one move.

    Raises:
        OSError: if the folder cannot be written, or its disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        with room(Path(temporary), path):
            write(Path(temporary))
        usual_rights(Path(temporary), 0o666)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)

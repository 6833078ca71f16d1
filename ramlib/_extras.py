"""What a plain installation lacks, named by the extra that brings it; and progress bars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

Item = TypeVar("Item")
_quiet = False


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import here what `pip install 'ramlib[extra]'` brings.

    Raises:
        ImportError: if it is missing; the message says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{error.name} is not installed; install it with: pip install 'ramlib[{extra}]'",
            name=error.name,
        ) from error


class later(ModuleType):
    """A module that is imported when it is first used, for what few readers need.

    Args:
        name: of the module.
        extra: that brings it; see `needs`.
    """

    def __init__(self, name: str, extra: str) -> None:
        super().__init__(name)
        self._extra = extra

    def __getattr__(self, name: str) -> Any:
        with needs(self._extra):
            value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)  # found at once from now on
        return value


tqdm = later("tqdm", "train")


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Without progress bars, if `quiet`, wherever in the package they come from."""
    global _quiet
    before, _quiet = _quiet, quiet or _quiet
    try:
        yield
    finally:
        _quiet = before


def bar(items: Iterable[Item], title: str, total: int) -> Iterable[Item]:
    """The items, counted on a progress bar."""
    return tqdm.tqdm(items, title, total, disable=_quiet)

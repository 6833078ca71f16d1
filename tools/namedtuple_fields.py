"""A Sphinx extension: leave "Alias for field number 0" out of the API pages.

A named tuple's own docstring says what its fields are.
"""

from typing import Any


def skip(app: Any, what: str, name: str, member: object, skipped: bool, options: Any) -> bool:
    """Skip what collections made for a field; leave all else as it was decided."""
    return skipped or type(member).__name__ == "_tuplegetter"


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}

"""Write the small Sphinx inventories that let the book link to other projects without the network.

Run it after adding a name below: python tools/make_inventories.py
"""

import zlib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "book" / "_inv"

# name, role, page. "$" in a page stands for the name, as in Sphinx's own inventories.
PYTHON = [
    *(
        (name, "py:class", "library/stdtypes.html#$")
        for name in ("dict", "list", "str", "tuple", "type")
    ),
    *(
        (name, "py:class", "library/functions.html#$")
        for name in ("bool", "float", "int", "object")
    ),
    ("None", "py:data", "library/constants.html#$"),
    ("pathlib.Path", "py:class", "library/pathlib.html#$"),
    ("collections.abc.Callable", "py:class", "library/collections.abc.html#$"),
    ("collections.abc.Iterable", "py:class", "library/collections.abc.html#$"),
    ("collections.abc.Iterator", "py:class", "library/collections.abc.html#$"),
    ("collections.abc.Mapping", "py:class", "library/collections.abc.html#$"),
    ("collections.abc.Sequence", "py:class", "library/collections.abc.html#$"),
    *(
        (name, "py:exception", "library/exceptions.html#$")
        for name in (
            "FileNotFoundError",
            "IndexError",
            "KeyError",
            "OSError",
            "RuntimeError",
            "TypeError",
            "ValueError",
        )
    ),
]
TORCH = [
    *(
        (name, "py:class", "tensors.html#torch.Tensor")
        for name in ("torch.Tensor", "Tensor")  # jaxtyping prints the short name
    ),
    ("torch.Size", "py:class", "size.html#$"),
    ("torch.device", "py:class", "tensor_attributes.html#$"),
    ("torch.dtype", "py:class", "tensor_attributes.html#$"),
    *(
        (name, "py:class", "generated/torch.Generator.html#torch.Generator")
        for name in ("torch.Generator", "torch._C.Generator")  # the name, and where it is defined
    ),
    *(
        (f"{place}.{name}", "py:class", f"generated/torch.nn.{name}.html#torch.nn.{name}")
        for name, module in {"Module": "module", "GRUCell": "rnn", "Linear": "linear"}.items()
        for place in ("torch.nn", f"torch.nn.modules.{module}")
    ),
    ("torch.nn.functional.grid_sample", "py:function", "generated/$.html#$"),
    ("torch.autograd.gradcheck", "py:function", "generated/$.html#$"),
]
JAXTYPING = [
    (f"jaxtyping.{name}", "py:class", "api/array/#dtype")
    for name in (
        *("Shaped", "Bool", "Num", "Inexact", "Float", "Float32", "Float64"),
        *("Integer", "Int", "Int32", "Int64", "UInt8"),
    )
]
INVENTORIES = {"python": PYTHON, "torch": TORCH, "jaxtyping": JAXTYPING}


def inventory(project: str, entries: list[tuple[str, str, str]]) -> bytes:
    """Version 2 of the format: four plain lines, then one compressed line per name."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    body = "".join(f"{name} {role} 1 {page} -\n" for name, role, page in entries)
    return head.encode() + zlib.compress(body.encode(), 9)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for project, entries in INVENTORIES.items():
        (FOLDER / f"{project}.inv").write_bytes(inventory(project, entries))


if __name__ == "__main__":
    main()

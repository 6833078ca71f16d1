"""Write the small Sphinx inventories that let the book link to other projects without the network.

Run it after adding a name below: python tools/make_inventories.py
"""

import zlib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "book" / "_inv"

# name, role, page. "$" in a page stands for the name, as in Sphinx's own inventories. Sphinx asks
# for a class by the name in the signature or by the module that defines it, so some have two.
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
    ("datetime.timedelta", "py:class", "library/datetime.html#$"),
    *(
        (name, "py:class", "library/pathlib.html#pathlib.Path")
        for name in ("pathlib.Path", "pathlib._local.Path")  # where Python 3.13 defines it
    ),
    ("os.PathLike", "py:class", "library/os.html#$"),
    ("collections.abc.Callable", "py:class", "library/collections.abc.html#$"),
    ("collections.abc.Iterable", "py:class", "library/collections.abc.html#$"),
    ("collections.abc.Iterator", "py:class", "library/collections.abc.html#$"),
    ("collections.abc.Mapping", "py:class", "library/collections.abc.html#$"),
    ("collections.abc.Sequence", "py:class", "library/collections.abc.html#$"),
    *(
        (name, "py:exception", "library/exceptions.html#$")
        for name in (
            "FileExistsError",
            "FileNotFoundError",
            "ImportError",
            "IndexError",
            "KeyError",
            "KeyboardInterrupt",
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
        for name, module in {
            "GRUCell": "rnn",
            "Linear": "linear",
            "Module": "module",
            "Sequential": "container",
        }.items()
        for place in ("torch.nn", f"torch.nn.modules.{module}")
    ),
    *(
        (name, "py:class", "generated/torch.nn.parameter.Parameter.html#$")
        for name in ("torch.nn.Parameter", "torch.nn.parameter.Parameter")
    ),
    *(
        (name, "py:class", "data.html#torch.utils.data.DataLoader")
        for name in ("torch.utils.data.DataLoader", "torch.utils.data.dataloader.DataLoader")
    ),
    (
        "torch.nn.functional.grid_sample",
        "py:function",
        "generated/torch.nn.functional.grid_sample.html#$",
    ),
    ("torch.autograd.gradcheck", "py:function", "generated/torch.autograd.gradcheck.html#$"),
]
JAXTYPING = [
    (prefix + name, "py:class", "api/array/#dtype")
    for name in (
        *("Shaped", "Bool", "Num", "Real", "Inexact", "Float", "Float32", "Float64"),
        *("Integer", "Int", "Int32", "Int64", "UInt8"),
    )
    for prefix in ("jaxtyping.", "")
]
LIGHTNING = [
    (name, "py:class", page)
    for name, page in {
        "lightning.pytorch.core.module.LightningModule": "common/lightning_module.html",
        "lightning.pytorch.callbacks.callback.Callback": "extensions/callbacks.html",
        "lightning.pytorch.callbacks.timer.Timer": "extensions/callbacks.html",
        "lightning.pytorch.callbacks.progress.tqdm_progress.TQDMProgressBar": (
            "common/progress_bar.html"
        ),
        "lightning.fabric.plugins.io.torch_io.TorchCheckpointIO": (
            "common/checkpointing_expert.html"
        ),
    }.items()
]
MATPLOTLIB = [
    *(
        (name, "py:class", "api/_as_gen/matplotlib.axes.Axes.html")
        for name in ("matplotlib.axes.Axes", "matplotlib.axes._axes.Axes")
    ),
    ("matplotlib.figure.Figure", "py:class", "api/figure_api.html#$"),
    ("matplotlib.animation.FuncAnimation", "py:class", "api/_as_gen/$.html"),
]
NUMPY = [
    *(
        (name, "py:class", "reference/generated/numpy.ndarray.html")
        for name in ("numpy.ndarray", "np.ndarray", "ndarray")  # jaxtyping prints the short one
    ),
    *(
        (name, "py:class", "reference/random/generator.html#numpy.random.Generator")
        for name in ("numpy.random.Generator", "numpy.random._generator.Generator")
    ),
]
PILLOW = [
    (prefix + name, "py:class", f"reference/{name.split('.')[0]}.html#PIL.{name}")
    for name in ("Image.Image", "ImageFont.FreeTypeFont")
    for prefix in ("PIL.", "")  # a tuple's fields have the name in the source
]
PANDAS = [
    (name, "py:class", "reference/api/pandas.DataFrame.html")
    for name in ("pandas.DataFrame", "pandas.core.frame.DataFrame")
]
IPYTHON = [
    (name, "py:class", "api/generated/IPython.display.html#IPython.display.Markdown")
    for name in ("IPython.display.Markdown", "IPython.core.display.Markdown", "Markdown")
]
INVENTORIES = {
    "ipython": IPYTHON,
    "jaxtyping": JAXTYPING,
    "lightning": LIGHTNING,
    "matplotlib": MATPLOTLIB,
    "numpy": NUMPY,
    "pandas": PANDAS,
    "pillow": PILLOW,
    "python": PYTHON,
    "torch": TORCH,
}


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

"""Weights that ship: `load` by recipe name, and how they are written and read without pickle.

What ships is stored in eight bits: a large matrix as whole numbers from -127 to 127, and a scale
for each of its rows, that is, for each output; or, where that is too coarse, for each block of 64
numbers in a row. Loaded, a weight is within half a scale of what was trained.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ramlib import experiments
from ramlib._checks import require
from ramlib._files import as_path, write_atomically
from ramlib.interface import Classifier
from ramlib.models.reader import JoinedReader

FOLDER = Path(__file__).parent.parent / "weights"
PRECISIONS = ("int8", "int8-blocks", "float16")  # from coarse to fine
_BLOCK = 64
# Smaller tensors stay in float16. They take little room, and among them are the rows that say where
# to look, and the kernels of most convolutions. In eight bits, those changed as many answers as all
# other weights together.
_SMALL = 20_000
_SCALE = "/scale"  # the name of a tensor's scales ends so


def _digest(state: dict[str, Tensor]) -> str:
    """SHA-256 over the names and the bytes of all tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _stored(name: str, value: Tensor, precision: str | None) -> dict[str, Tensor]:
    """A tensor as it is stored, with its scales where it has them."""
    if precision is None or not value.is_floating_point():
        return {name: value}
    stored = {name: value.half()}
    if precision != "float16" and value.ndim >= 2 and value.numel() >= _SMALL:
        rows = value.flatten(1).float()
        width = _BLOCK if precision == "int8-blocks" else rows.shape[1]
        blocks = F.pad(rows, (0, -rows.shape[1] % width)).unflatten(1, (-1, width))
        # The least scale is the smallest that float16 holds in full; so a row of zeros has one too.
        least = torch.finfo(torch.float16).tiny
        scale = (blocks.abs().amax(2) / 127).clamp(min=least).half()
        whole = (blocks / scale.float()[..., None]).round().nan_to_num().to(torch.int8)
        whole = whole.flatten(1)[:, : rows.shape[1]].reshape(value.shape)
        stored = {name: whole, name + _SCALE: scale}
    require(
        all(part.isfinite().all() for part in stored.values()),
        f"save_weights: {name} cannot be stored in {precision}: it holds what is not finite, or "
        f"too large; its largest value is {value.abs().max().item():g}",
    )
    return stored


def save_weights(
    model: torch.nn.Module,
    path: Path | str,
    *,
    precision: Literal["int8", "int8-blocks", "float16"] | None = None,
    notes: dict[str, str] | None = None,
) -> None:
    """Write a model's weights as safetensors, in its own precision or in a smaller one.

    Args:
        model: any module.
        path: the file; written in one move, so an interrupted call leaves the old one.
        precision: `float16`; or `int8`, in which a large tensor of two or more dimensions has a
            scale for each of its rows (`int8-blocks`: for every 64 numbers of a row), and all else
            is float16. Whole numbers stay as they are.
        notes: strings kept in the file's header, beside the precision and a digest of all that is
            stored.

    Raises:
        ValueError: if `precision` is unknown, or a weight is not finite in it.
        OSError: if `path` cannot be written.
    """
    require(
        precision is None or precision in PRECISIONS,
        f"save_weights: precision must be one of {', '.join(PRECISIONS)} or None, "
        f"got {precision!r}",
    )
    state = {
        part: tensor.contiguous()
        for name, value in model.state_dict().items()
        for part, tensor in _stored(name, value.cpu(), precision).items()
    }
    header = {**(notes or {}), "precision": precision or "full", "sha256": _digest(state)}
    write_atomically(as_path(path), lambda temporary: save_file(state, temporary, header))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a file stores, and its notes, after checking that it is whole."""
    cure = "reinstall ramlib, or train the recipe again with `ramlib train`"
    if not path.is_file():
        raise FileNotFoundError(f"load_weights: no file {path}; {cure}")
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            state: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"load_weights: {path} is damaged ({error}); {cure}") from error
    require(
        notes.get("sha256", digest := _digest(state)) == digest,
        f"load_weights: {path} is damaged (its weights are not those that were written); {cure}",
    )
    return state, notes


def load_weights(model: torch.nn.Module, path: Path | str) -> None:
    """Read weights into `model`, in the model's own precision.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or holds another model's weights.
    """
    path = as_path(path)
    stored, _ = _read(path)
    state = {name: value for name, value in stored.items() if not name.endswith(_SCALE)}
    for name in state.keys() & {name.removesuffix(_SCALE) for name in stored.keys() - state.keys()}:
        rows, scale = state[name].flatten(1).float(), stored[name + _SCALE].float()
        width = _BLOCK if scale.shape[1] > 1 else rows.shape[1]
        scales = scale.repeat_interleave(width, 1)[:, : rows.shape[1]]
        state[name] = (rows * scales).view(state[name].shape)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"load_weights: {path} holds another model's weights: {error}") from error


def shipped_precision(name: str) -> str:
    """In what a recipe's weights ship: of one that joins two, in what theirs do.

    Raises:
        FileNotFoundError: if none ship.
        ValueError: if they are damaged.
    """
    parts = experiments.get(name).joins or (name,)
    notes = [_read(FOLDER / f"{part}.safetensors")[1] for part in parts]
    # Files from before int8 do not say what they are.
    return " and ".join(sorted({note.get("precision", "float16") for note in notes}))


def start_from(model: torch.nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Copy what fits by name and shape from `state`; return the names that kept fresh weights.

    A model that is built around a `reader` takes the weights of a bare reader there.
    """
    if hasattr(model, "reader") and not any(name.startswith("reader.") for name in state):
        model = model.reader
    own = model.state_dict()
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(fits, strict=False)
    return sorted(set(own) - set(fits))


def shipped() -> list[str]:
    """Names of the recipes whose weights ship, or the weights of both that they join."""
    return [name for name in experiments.RECIPES if exist(name)]


def _path(name: str, runs: Path | None) -> Path:
    # Who trains a chain of recipes starts from the one before, not from an older one that ships.
    if runs is not None and (own := runs / name / "weights.safetensors").is_file():
        return own
    return FOLDER / f"{name}.safetensors"


def exist(name: str, runs: Path | None = None) -> bool:
    """Whether `load` finds a recipe's weights, or those of both that it joins."""
    return all(_path(part, runs).is_file() for part in experiments.get(name).joins or (name,))


def load(name: str, device: torch.device | str = "cpu", *, runs: Path | None = None) -> Classifier:
    """A trained model by its recipe's name, in evaluation mode; a joined one from its two parts.

    Args:
        name: of the recipe.
        device: where the model goes.
        runs: a folder of training runs, whose weights go before those that ship.

    Raises:
        KeyError: if no recipe has this name; the message suggests the nearest.
        FileNotFoundError: if its weights are not in `runs`, and do not ship.
        ValueError: if they are damaged.
    """
    recipe = experiments.get(name)
    if recipe.joins is not None:
        return JoinedReader.of(*(load(part, device, runs=runs) for part in recipe.joins))
    path = _path(name, runs)
    if not path.is_file():
        raise FileNotFoundError(
            f"load: no weights ship for {name!r}; train it with `ramlib train {name}`, or choose "
            "one that `ramlib list` shows with an error"
        )
    model = recipe.build()
    load_weights(model, path)
    return model.eval().to(device)

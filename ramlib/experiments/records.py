"""The ledger: what was measured, by which recipe, on what data and machine.

One JSON file per trained recipe, one CSV file with its learning curve. Nobody types their numbers:
`ramlib evaluate` writes them, tables and prose read them, and a test measures them again.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch

from ramlib import experiments
from ramlib._checks import require
from ramlib._extras import later
from ramlib._files import as_path, write_atomically

pd = later("pandas", "train")

FOLDER = Path(__file__).parent.parent / "records"

FIELDS = {
    "recipe", "row", "task", "model", "data", "seed", "updates", "batch", "images_seen",
    "wall_s", "precision", "stored", "machine", "version", "torch", "date", "parameters",
    "multiply_adds", "metrics",
}  # fmt: skip


def machine() -> str:
    """The machine in words: processor, cores used, accelerator."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [li for li in cpuinfo.read_text().splitlines() if li.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, no GPU"


def write(record: dict[str, Any], folder: Path | None = None) -> Path:
    """Write `record` to `folder/<recipe>.json`, in one move.

    Raises:
        ValueError: if a field is missing or unknown.
        OSError: if `folder` cannot be written.
    """
    require(
        set(record) == FIELDS,
        f"write: a record must have the fields {sorted(FIELDS)}, got {sorted(record)}",
    )
    path = (folder or FOLDER) / f"{record['recipe']}.json"
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def read(name: str, folder: Path | None = None) -> dict[str, Any]:
    """The record of a recipe.

    Raises:
        FileNotFoundError: if nothing was recorded for it.
        ValueError: if the file is damaged.
    """
    path = (folder or FOLDER) / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"read: nothing was recorded for {name!r} in {path.parent}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"read: {path} is damaged ({error})") from error


def read_all(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """What was recorded of each recipe, in the order of the recipes."""
    where = folder or FOLDER
    return {
        name: read(name, where)
        for name in experiments.RECIPES
        if (where / f"{name}.json").is_file()
    }


def curve(run: Path | str) -> pd.DataFrame:
    """The learning curve of a training folder: one row per logged step, resumptions joined.

    A resumed training logs into a file of its own and may repeat steps; the later file counts.

    Returns:
        Columns `step`, `loss`, `validation error, %`, `gradient norm` and `images/s`.

    Raises:
        FileNotFoundError: if the folder holds no curve.
    """
    parts = sorted(as_path(run).glob("curve/*/metrics.csv"))
    if not parts:
        raise FileNotFoundError(f"curve: no learning curve in {run}")
    frames = []
    for part in parts:
        frame = pd.read_csv(part)
        first = int(part.parent.name.removeprefix("from-"))
        frames = [earlier[earlier.step < first] for earlier in frames] + [frame]
    joined = pd.concat(frames).drop(columns="epoch", errors="ignore")
    # `last` takes the last value that is there, so a step's loss and validation meet in one row.
    return joined.groupby("step", as_index=False).last()


def today() -> str:
    """The date of a record."""
    return date.today().isoformat()

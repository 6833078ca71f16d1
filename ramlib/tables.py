"""The paper's tables, filled from the records. Rows of other work carry their citation.

Every table is one value in `TABLES`; to add one is to add a value there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from ramlib import recipes, records

Record = dict[str, Any]


class Published(NamedTuple):
    """A row that the paper prints: its name, its number in percent, and a key of the bibliography.

    The key is of the work that the number belongs to.
    """

    row: str
    value: float
    source: str


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Args:
        title: what it says, and of what.
        published: the rows of other work, as the paper prints them.
        recipes: our rows.
        metric: of the record, what the table is about.
        columns: what else our rows show: a column's head, and its text from a record.
        note: what a reader must know to read the columns.
    """

    title: str
    published: tuple[Published, ...]
    recipes: tuple[str, ...]
    metric: str = "error"
    columns: Mapping[str, Callable[[Record], str]] = field(default_factory=dict)
    note: str = ""

    def row(self, model: str, value: str, interval: str, source: str, **more: str) -> dict:
        """A row of the table; a column that nothing is said of stays empty."""
        extra = {head: more.get(head, "") for head in self.columns}
        head = f"{self.metric}, %"
        return {"model": model, head: value, "95 % interval": interval, **extra, "source": source}

    def measured(self, record: Record) -> dict:
        """The row of a record."""
        found = record["metrics"][self.metric]
        return self.row(
            record["row"],
            f"{found['value']:.2f}",
            f"{found['low']:.2f} to {found['high']:.2f}",
            f"recipe {record['recipe']}",
            **{head: text(record) for head, text in self.columns.items()},
        )

    def frame(self) -> pd.DataFrame:
        """What was published, then what was measured here, or that it was not."""
        ledger = records.read_all()
        published = [
            self.row(row, f"{value:.2f}", "", "published") for row, value, _ in self.published
        ]
        ours = [
            self.measured(ledger[name])
            if name in ledger
            else self.row(recipes.get(name).row, "not measured", "", f"recipe {name}")
            for name in self.recipes
        ]
        return pd.DataFrame(published + ours)


def percent(metric: str) -> Callable[[Record], str]:
    """A column of a metric; empty for a model that the metric does not apply to."""

    def text(record: Record) -> str:
        found = record["metrics"].get(metric)
        return "" if found is None else f"{found['value']:.2f}"

    return text


def millions(key: str) -> Callable[[Record], str]:
    """A column of a count, in millions."""
    return lambda record: f"{record[key] / 1e6:.2f}"


def glimpses(record: Record) -> str:
    """How often a model looks. One that reads again looks twice as often as its reader."""
    model = record["model"]
    if "reader" in model:
        return f"2 x {model['reader']['glimpses']}"
    return str(model.get("glimpses", "none"))


COSTS = {
    "glimpses": glimpses,
    "parameters, M": millions("parameters"),
    "multiply-adds, M": millions("multiply_adds"),
}

TABLES: dict[str, Table] = {
    "I": Table(
        "Single digit recognition, 100x100 canvas, test error in percent",
        (
            Published("Mnih et al., 4 glimpses", 9.41, "mnih2014recurrent"),
            Published("Mnih et al., 8 glimpses", 8.11, "mnih2014recurrent"),
            Published("Gregor et al., 4 glimpses", 4.18, "gregor2015draw"),
            Published("Gregor et al., 8 glimpses", 3.36, "gregor2015draw"),
            Published("Semeniuta & Barth, without context", 3.29, "semeniuta2016image"),
            Published("Semeniuta & Barth, with context", 1.80, "semeniuta2016image"),
        ),
        ("digit-every-look", "digit", "digit-context", "digit-context-conv"),
    ),
    "II": Table(
        "Pair recognition and digit summation, 100x100 canvas, test error in percent",
        (
            Published("Ba et al., pairs", 5.0, "ba2014multiple"),
            Published("Semeniuta & Barth, pairs", 4.3, "semeniuta2016image"),
            Published("Ba et al., sum", 2.5, "ba2014multiple"),
            Published("Semeniuta & Barth, sum", 2.55, "semeniuta2016image"),
        ),
        ("pairs", "pairs-ior", "cnn-pairs", "sum", "sum-ior", "cnn-sum"),
        columns={
            "apart, %": percent("error_apart"),
            "visited both, %": percent("visited_both"),
            **COSTS,
        },
        note="Apart: the error where the boxes of the two digits do not overlap. "
        "Visited both: the share of those canvases on which the windows were on both digits. "
        "Multiply-adds are those of one canvas.",
    ),
}


def get(number: str) -> Table:
    """Table `number` of the paper.

    Raises:
        KeyError: if there is no such table here.
    """
    if number not in TABLES:
        raise KeyError(f"tables.get: number must be one of {', '.join(TABLES)}, got {number!r}")
    return TABLES[number]


def table(number: str) -> pd.DataFrame:
    """Table `number` of the paper: what was published, then what was measured here.

    Raises:
        KeyError: if there is no such table here.
    """
    return get(number).frame()


def markdown(number: str) -> str:
    """Table `number` as Markdown, with its title and its note.

    Raises:
        KeyError: if there is no such table here.
    """
    this = get(number)
    parts = [f"**Table {number}.** {this.title}", this.frame().to_markdown(index=False), this.note]
    return "\n\n".join(filter(None, parts))

"""The paper's tables, filled from the records. Rows of other work carry their citation.

Every table is one value in `TABLES`; to add one is to add a value there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from ramlib import evaluation, recipes, records

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
        averages: of these, those that have a row for the mean of noisy passes too.
        metric: of the record, what the table is about.
        columns: what else our rows show: a column's head, and its text from a record.
        note: what a reader must know to read the columns.
    """

    title: str
    published: tuple[Published, ...]
    recipes: tuple[str, ...]
    averages: tuple[str, ...] = ()
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

    def _ours(self, name: str, record: Record | None) -> list[dict]:
        """The row of a recipe, and the one of its average if there shall be one."""
        row, several = recipes.get(name).row, name in self.averages
        if record is None:
            rows = [f"{row}, single pass", f"{row}, average"] if several else [row]
            return [self.row(row, "not measured", "", f"recipe {name}") for row in rows]
        if not several:
            return [self.measured(record)]
        single = {**record, "row": f"{row}, single pass"}
        return [self.measured(single), self.measured(averaged(record))]

    def frame(self) -> pd.DataFrame:
        """What was published, then what was measured here, or that it was not."""
        published = [
            self.row(row, f"{value:.2f}", "", "published") for row, value, _ in self.published
        ]
        ledger = records.read_all()
        ours = [row for name in self.recipes for row in self._ours(name, ledger.get(name))]
        return pd.DataFrame(published + ours)


def averaged(record: Record) -> Record:
    """The record of the mean of noisy passes, whose metrics `record` holds beside its own."""
    metrics = {
        name.removeprefix("average_"): metric
        for name, metric in record["metrics"].items()
        if name.startswith("average_")
    }
    return {
        **record,
        "row": f"{record['row']}, average",
        "multiply_adds": evaluation.PASSES * record["multiply_adds"],
        "metrics": metrics,
    }


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
    """How often a model looks. One that reads again looks twice as often as its reader.

    Where each read ends with a closer look, that is the one added.
    """
    model = record["model"]
    if "reader" in model:
        looks = model["reader"]["glimpses"]
        return f"2 x ({looks} + 1)" if model.get("closer") else f"2 x {looks}"
    return str(model.get("glimpses", "none"))


COSTS = {
    "glimpses": glimpses,
    "parameters, M": millions("parameters"),
    "multiply-adds, M": millions("multiply_adds"),
}

PAPER = "semeniuta2016image"
# The twin's rows, then those of the subset of SVHN.
NUMBERS = (
    "house-numbers-twin-forward",
    "house-numbers-twin-both",
    "house-numbers-twin-five-both",
    "house-numbers-twin-loose-forward",
    "house-numbers-twin-loose-five-both",
    "goodfellow-house-numbers-twin",
    "cnn-house-numbers-twin",
    "house-numbers-subset-untuned",
    "house-numbers-subset-forward",
    "house-numbers-subset-both",
    "house-numbers-svhn",
    "house-numbers-subset-loose-forward",
    "house-numbers-subset-loose-five-both",
    "goodfellow-house-numbers-subset",
    "cnn-house-numbers-subset",
)

TABLES: dict[str, Table] = {
    "I": Table(
        "Single digit recognition, 100x100 canvas, test error in percent",
        (
            Published("Mnih et al., 4 glimpses", 9.41, "mnih2014recurrent"),
            Published("Mnih et al., 8 glimpses", 8.11, "mnih2014recurrent"),
            Published("Gregor et al., 4 glimpses", 4.18, "gregor2015draw"),
            Published("Gregor et al., 8 glimpses", 3.36, "gregor2015draw"),
            Published("Semeniuta & Barth, without context", 3.29, PAPER),
            Published("Semeniuta & Barth, with context", 1.80, PAPER),
        ),
        ("digit-every-look", "digit", "digit-context", "digit-context-conv"),
    ),
    "II": Table(
        "Pair recognition and digit summation, 100x100 canvas, test error in percent",
        (
            Published("Ba et al., pairs", 5.0, "ba2014multiple"),
            Published("Semeniuta & Barth, pairs", 4.3, PAPER),
            Published("Ba et al., sum", 2.5, "ba2014multiple"),
            Published("Semeniuta & Barth, sum", 2.55, PAPER),
        ),
        (
            "pairs",
            "pairs-conv",
            "pairs-ior",
            "pairs-ior-conv",
            "pairs-ior-closer",
            "cnn-pairs",
            "sum",
            "sum-conv",
            "sum-ior",
            "sum-ior-conv",
            "sum-ior-closer",
            "cnn-sum",
        ),
        columns={
            "apart, %": percent("error_apart"),
            "heaped, %": percent("error_heaped"),
            "visited both, %": percent("visited_both"),
            **COSTS,
        },
        note="Apart: the error where the boxes of the two digits do not overlap. "
        "Heaped: where at least half of one box lies under the other. "
        "Visited both: the share of canvases with digits apart on which the windows were on both. "
        "Glimpses: the `+ 1` is a closer look at the end of a read. Multiply-adds are those of one "
        "canvas.",
    ),
    "III": Table(
        "House numbers, error on whole numbers in percent",
        (
            Published("Goodfellow et al., 64x64", 3.96, "goodfellow2013multidigit"),
            Published("Ba et al., 64x64", 3.9, "ba2014multiple"),
            Published("Ba et al., 128x128", 4.46, "ba2014multiple"),
            Published("Jaderberg et al., 64x64", 3.6, "jaderberg2015spatial"),
            Published("Jaderberg et al., 128x128", 3.9, "jaderberg2015spatial"),
            Published("Semeniuta & Barth, forward, single pass, 64x64", 4.5, PAPER),
            Published("Semeniuta & Barth, forward, average, 64x64", 4.3, PAPER),
            Published("Semeniuta & Barth, both, single pass, 64x64", 3.9, PAPER),
            Published("Semeniuta & Barth, both, average, 64x64", 3.65, PAPER),
            Published("Semeniuta & Barth, 5 layers, both, average, 64x64", 3.4, PAPER),
            Published("Semeniuta & Barth, forward, single pass, 128x128", 5.5, PAPER),
            Published("Semeniuta & Barth, forward, average, 128x128", 5.2, PAPER),
            Published("Semeniuta & Barth, both, single pass, 128x128", 4.45, PAPER),
            Published("Semeniuta & Barth, both, average, 128x128", 4.35, PAPER),
            Published("Semeniuta & Barth, 5 layers, both, average, 128x128", 4.34, PAPER),
        ),
        NUMBERS,
        averages=tuple(name for name in NUMBERS if name.startswith("house-numbers")),
        columns={
            "digits, %": percent("digit_error"),
            "too long, %": percent("too_long"),
            "too short, %": percent("too_short"),
            **COSTS,
        },
        note="Published rows: the whole of SVHN. Ours: a synthetic twin of it, and a subset of "
        "2,000 of its training images and 500 of its test images. Digits: the share of digits "
        "read wrongly. Too long and too short: the share of numbers in which too many or too few "
        "digits were read. Average: the mean of ten passes with noise on the grid. Glimpses are "
        "those of one object; multiply-adds are those of one number.",
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
    rows = this.frame().to_markdown(index=False, disable_numparse=True)  # 3.40 stays 3.40
    parts = [f"**Table {number}.** {this.title}", rows, this.note]
    return "\n\n".join(filter(None, parts))

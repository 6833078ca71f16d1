"""The paper's tables, filled from the records. Rows of other work carry their citation."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ramlib import recipes, records

# What the paper prints. (row, error in percent, citation key)
PUBLISHED: dict[str, list[tuple[str, float, str]]] = {
    "I": [
        ("Mnih et al., 4 glimpses", 9.41, "mnih2014recurrent"),
        ("Mnih et al., 8 glimpses", 8.11, "mnih2014recurrent"),
        ("Gregor et al., 4 glimpses", 4.18, "gregor2015draw"),
        ("Gregor et al., 8 glimpses", 3.36, "gregor2015draw"),
        ("Semeniuta & Barth, without context", 3.29, "semeniuta2016image"),
        ("Semeniuta & Barth, with context", 1.80, "semeniuta2016image"),
    ],
}
TITLES = {"I": "Single digit recognition, 100x100 canvas, test error in percent"}
ROWS: dict[str, tuple[str, ...]] = {
    "I": (
        "digit-every-look",
        "digit",
        "digit-context",
        "digit-context-conv",
    )
}


def measured_row(record: dict[str, Any]) -> dict[str, Any]:
    """One row of a table from one record."""
    error = record["metrics"]["error"]
    return {
        "model": record["row"],
        "error, %": f"{error['value']:.2f}",
        "95 % interval": f"{error['low']:.2f} to {error['high']:.2f}",
        "source": f"recipe {record['recipe']}",
    }


def table(number: str) -> pd.DataFrame:
    """Table `number` of the paper: what was published, then what was measured here.

    Raises:
        KeyError: if there is no such table.
    """
    if number not in ROWS:
        raise KeyError(f"table: number must be one of {', '.join(ROWS)}, got {number!r}")
    published = [
        {"model": row, "error, %": f"{error:.2f}", "95 % interval": "", "source": "published"}
        for row, error, _ in PUBLISHED[number]
    ]
    ledger = records.read_all()
    ours = [
        measured_row(ledger[name])
        if name in ledger
        else {
            "model": recipes.get(name).row,
            "error, %": "not measured",
            "95 % interval": "",
            "source": f"recipe {name}",
        }
        for name in ROWS[number]
    ]
    return pd.DataFrame(published + ours)


def markdown(number: str) -> str:
    """Table `number` as Markdown, with its title."""
    return f"**Table {number}.** {TITLES[number]}\n\n{table(number).to_markdown(index=False)}"

"""The paper's tables, filled from the records. Rows of other work carry their citation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ramlib import experiments
from ramlib._extras import later
from ramlib.experiments import records
from ramlib.experiments.measure import PASSES
from ramlib.experiments.recipe import Record, Table

pd = later("pandas", "train")


def row(this: Table, model: str, value: str, interval: str, source: str, **more: str) -> dict:
    """A row of a table; a column that nothing is said of stays empty."""
    extra = {head: more.get(head, "") for head in this.columns}
    head = f"{this.metric}, %"
    return {"model": model, head: value, "95 % interval": interval, **extra, "source": source}


def measured(this: Table, record: Record) -> dict:
    """The row of a record."""
    found = record["metrics"][this.metric]
    return row(
        this,
        record["row"],
        f"{found['value']:.2f}",
        f"{found['low']:.2f} to {found['high']:.2f}",
        f"recipe {record['recipe']}",
        **{head: text(record) for head, text in this.columns.items()},
    )


def _ours(this: Table, name: str, record: Record | None) -> list[dict]:
    """The row of a recipe, and the one of its average if there shall be one."""
    words, several = experiments.get(name).row, name in this.averages
    if record is None:
        rows = [f"{words}, single pass", f"{words}, average"] if several else [words]
        return [row(this, words, "not measured", "", f"recipe {name}") for words in rows]
    if not several:
        return [measured(this, record)]
    single = {**record, "row": f"{words}, single pass"}
    return [measured(this, single), measured(this, averaged(record))]


def frame(this: Table, more: Iterable[Record] = ()) -> pd.DataFrame:
    """What was published, then what was measured here, or that it was not, and `more` of it."""
    published = [
        row(this, words, f"{value:.2f}", "", "published") for words, value, _ in this.published
    ]
    ledger = records.read_all()
    ours = [one for name in this.recipes for one in _ours(this, name, ledger.get(name))]
    return pd.DataFrame(published + ours + [measured(this, record) for record in more])


def of_runs(number: str, runs: Path) -> list[Record]:
    """The records of trainings in `runs` that are of the tasks of a table; see `shipping.keep`.

    Raises:
        KeyError: if there is no such table here.
    """
    tasks = [experiments.get(name).settings()["task"] for name in get(number).recipes]
    found = (records.read(path.stem, path.parent) for path in sorted(runs.glob("*/*.json")))
    return [record for record in found if record["task"] in tasks]


def headlines() -> pd.DataFrame:
    """The results that stand for the tables, each beside the paper's number."""
    ledger = records.read_all()
    rows = []
    for number, this in experiments.TABLES.items():
        paper = {published.row: published.value for published in this.published}
        for name, beside in this.headlines.items():
            found = ledger[name]["metrics"][this.metric] if name in ledger else None
            ours = "not measured" if found is None else "{value:.2f} ({low:.2f} to {high:.2f})"
            rows.append(
                {
                    "table": number,
                    "model": experiments.get(name).row,
                    f"ours, {this.metric} in %": ours.format(**found or {}),
                    "paper": f"{paper[beside]:.2f}",
                }
            )
    return pd.DataFrame(rows)


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
        "multiply_adds": PASSES * record["multiply_adds"],
        "metrics": metrics,
    }


def get(number: str) -> Table:
    """Table `number` of the paper.

    Raises:
        KeyError: if there is no such table here.
    """
    known = experiments.TABLES
    if number not in known:
        raise KeyError(f"tables.get: number must be one of {', '.join(known)}, got {number!r}")
    return known[number]


def table(number: str, more: Iterable[Record] = ()) -> pd.DataFrame:
    """Table `number` of the paper: what was published, then what was measured here.

    Args:
        number: of the table.
        more: records of one's own, which become rows at its end.

    Raises:
        KeyError: if there is no such table here.
    """
    return frame(get(number), more)


def markdown(number: str, more: Iterable[Record] = ()) -> str:
    """Table `number` as Markdown, with its title and its note; `more` as in `table`.

    Raises:
        KeyError: if there is no such table here.
    """
    this = get(number)
    rows = frame(this, more).to_markdown(index=False, disable_numparse=True)  # 3.40 stays 3.40
    parts = [f"**Table {number}.** {this.title}", rows, this.note]
    return "\n\n".join(filter(None, parts))

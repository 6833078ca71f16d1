"""Tables hold the published rows, then ours, with what was measured and nothing else."""

import re

import pytest

from ramlib import recipes, records, tables

RECORD = {
    "recipe": "digit",
    "row": "Ours, without context",
    "metrics": {"error": {"value": 3.125, "low": 2.894, "high": 3.376, "n": 20_000}},
}


@pytest.fixture
def ledger(monkeypatch):
    """A ledger in which one recipe was measured."""
    monkeypatch.setattr(records, "read_all", lambda: {"digit": RECORD})


@pytest.mark.parametrize("number", tables.ROWS)
def test_table_has_the_published_rows_then_ours(number, ledger):
    models = tables.table(number).model.tolist()
    published = [row for row, *_ in tables.PUBLISHED[number]]
    assert models == published + [recipes.get(name).row for name in tables.ROWS[number]]


@pytest.mark.usefixtures("ledger")
def test_a_measured_row_shows_error_and_interval_with_two_decimals():
    row = tables.table("I").set_index("source").loc["recipe digit"]
    assert row["error, %"] == "3.12"  # the nearest even, as printf rounds
    assert row["95 % interval"] == "2.89 to 3.38"


@pytest.mark.usefixtures("ledger")
def test_a_row_without_a_record_says_so():
    row = tables.table("I").set_index("source").loc["recipe digit-context"]
    assert (row["error, %"], row["95 % interval"]) == ("not measured", "")


def test_table_one_is_the_papers():
    published = {row: error for row, error, _ in tables.PUBLISHED["I"]}
    assert sorted(published.values()) == [1.8, 3.29, 3.36, 4.18, 8.11, 9.41]
    assert published["Semeniuta & Barth, with context"] == 1.8


@pytest.mark.parametrize("number", tables.ROWS)
def test_every_published_row_cites_a_known_source(number):
    bibliography = (records.FOLDER.parent.parent / "references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{([\w-]+),", bibliography, re.M))
    assert {key for *_, key in tables.PUBLISHED[number]} <= keys


@pytest.mark.parametrize("number", tables.ROWS)
def test_markdown_is_a_titled_table(number, ledger):
    title, blank, head, rule, *rows = tables.markdown(number).splitlines()
    assert title == f"**Table {number}.** {tables.TITLES[number]}"
    assert blank == ""
    assert len({line.count("|") for line in (head, rule, *rows)}) == 1
    assert len(rows) == len(tables.table(number))


def test_an_unknown_number_names_the_known():
    with pytest.raises(KeyError, match="table: number must be one of I"):
        tables.table("V")

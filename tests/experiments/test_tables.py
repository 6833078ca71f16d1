"""Tables hold the published rows, then ours, with what was measured and nothing else."""

import re

import pytest

from ramlib import experiments
from ramlib.experiments import TABLES, records, tables


def interval(value, low, high):
    return {"value": value, "low": low, "high": high, "n": 20_000}


def record(recipe, row, model, **metrics):
    return {
        "recipe": recipe,
        "row": row,
        "model": model,
        "parameters": 1_985_296,
        "multiply_adds": 6_552_976,
        "images_seen": 7_680_000,
        "metrics": metrics,
    }


ERROR = interval(3.125, 2.894, 3.376)
RECORDS = {
    "digit": record("digit", "Ours, without context", {"glimpses": 4}, error=ERROR),
    "pairs-ior": record(
        "pairs-ior",
        "Ours, pairs by inhibition of return",
        {"reader": {"glimpses": 4}, "target": "pair"},
        error=ERROR,
        error_apart=interval(2.5, 2.25, 2.75),
        error_overlapping=interval(30.0, 28.0, 32.0),
        visited_both=interval(97.25, 97, 97.5),
    ),
    "pairs-ior-closer": record(
        "pairs-ior-closer",
        "Ours, pairs by inhibition of return, with closer looks",
        {"reader": {"glimpses": 4}, "target": "pair", "closer": 24},
        error=ERROR,
    ),
    # A model that does not look has no visits.
    "cnn-pairs": record(
        "cnn-pairs", "Plain CNN, pairs", {"widths": [16]}, error=ERROR, error_apart=ERROR
    ),
    "house-numbers-twin-both": record(
        "house-numbers-twin-both",
        "House numbers, synthetic twin: 3 layers, both",
        {"reader": {"glimpses": 3}},
        error=ERROR,
        digit_error=interval(1.0, 0.9, 1.1),
        average_error=interval(2.0, 1.9, 2.1),
        average_digit_error=interval(0.5, 0.4, 0.6),
    ),
    "pairs": record(
        "pairs",
        "Ours, pairs, guided at first",
        {"glimpses": 4},
        error=ERROR,
        error_apart=ERROR,
        visited_both=ERROR,
    ),
}

each = pytest.mark.parametrize("number", TABLES)
each_of_ours = pytest.mark.parametrize("name", TABLES["III"].recipes)


@pytest.fixture
def ledger(monkeypatch):
    """A ledger in which some recipes were measured."""
    monkeypatch.setattr(records, "read_all", lambda: RECORDS)


def row(number, recipe):
    return tables.table(number).set_index("source").loc[f"recipe {recipe}"]


@pytest.mark.usefixtures("ledger")
@each
def test_table_has_the_published_rows_then_ours(number):
    models = tables.table(number).model.tolist()
    published = [published.row for published in TABLES[number].published]
    table, ours = TABLES[number], []
    for name in table.recipes:
        row = experiments.get(name).row
        ours += [f"{row}, single pass", f"{row}, average"] if name in table.averages else [row]
    assert models == published + ours


@pytest.mark.usefixtures("ledger")
def test_a_measured_row_shows_error_and_interval_with_two_decimals():
    assert row("I", "digit")["error, %"] == "3.12"  # the nearest even, as printf rounds
    assert row("I", "digit")["95 % interval"] == "2.89 to 3.38"


@pytest.mark.usefixtures("ledger")
@each
def test_a_row_without_a_record_says_so_and_no_more(number):
    name = {"I": "digit-context", "II": "sum-ior", "III": "cnn-house-numbers-subset"}[number]
    shown = row(number, name).drop("model")
    assert shown["error, %"] == "not measured"
    assert set(shown.drop("error, %")) == {""}


@pytest.mark.usefixtures("ledger")
@each
def test_a_published_row_shows_its_number_and_no_more(number):
    shown = tables.table(number).query("source == 'published'").drop(columns="model")
    printed = [f"{published.value:.2f}" for published in TABLES[number].published]
    assert shown["error, %"].tolist() == printed
    assert set(shown.drop(columns=["error, %", "source"]).to_numpy().ravel()) == {""}


@pytest.mark.usefixtures("ledger")
class TestTwoDigits:
    def test_shows_the_error_on_digits_apart_and_overlapping_and_the_visits(self):
        shown = row("II", "pairs-ior")
        parts = ("apart, %", "overlapping, %", "visited both, %")
        assert tuple(shown[list(parts)]) == ("2.50", "30.00", "97.25")

    def test_a_model_that_does_not_look_visits_nothing(self):
        shown = row("II", "cnn-pairs")
        assert (shown["visited both, %"], shown["glimpses"]) == ("", "none")

    def test_both_reads_count(self):
        assert row("II", "pairs")["glimpses"] == "4"
        assert row("II", "pairs-ior")["glimpses"] == "2 x 4"
        assert row("II", "pairs-ior-closer")["glimpses"] == "2 x (4 + 1)"

    def test_shows_costs_in_millions(self):
        shown = row("II", "pairs")
        assert (shown["parameters, M"], shown["multiply-adds, M"]) == ("1.99", "6.55")


@pytest.mark.usefixtures("ledger")
class TestHouseNumbers:
    def rows(self, recipe):
        shown = tables.table("III").query(f"source == 'recipe {recipe}'")
        return shown.set_index("model").to_dict("index")

    def test_one_pass_and_the_average_each_have_a_row_of_their_own_numbers(self):
        single, average = self.rows("house-numbers-twin-both").items()
        assert single[0] == "House numbers, synthetic twin: 3 layers, both, single pass"
        assert (single[1]["error, %"], single[1]["digits, %"]) == ("3.12", "1.00")
        assert average[0] == "House numbers, synthetic twin: 3 layers, both, average"
        assert (average[1]["error, %"], average[1]["digits, %"]) == ("2.00", "0.50")

    def test_ten_passes_cost_ten_times_as_much(self):
        single, average = self.rows("house-numbers-twin-both").values()
        assert (single["multiply-adds, M"], average["multiply-adds, M"]) == ("6.55", "65.53")
        assert single["parameters, M"] == average["parameters, M"]

    def test_a_model_without_noise_has_one_row(self):
        assert len(self.rows("cnn-house-numbers-twin")) == 1

    @each_of_ours
    def test_every_row_says_twin_or_subset(self, name):
        assert ("synthetic twin" in (row := experiments.get(name).row)) != ("SVHN subset" in row)


def test_a_table_may_be_about_another_metric(monkeypatch):
    birds = experiments.Table("Birds", (), ("digit",), metric="accuracy")
    found = record("digit", "Ours", {}, accuracy=interval(79.5, 79.0, 80.0))
    monkeypatch.setattr(records, "read_all", lambda: {"digit": found})
    (shown,) = tables.frame(birds).to_dict("records")
    assert (shown["accuracy, %"], shown["95 % interval"]) == ("79.50", "79.00 to 80.00")


@each
def test_every_published_row_cites_a_known_source(number):
    bibliography = (records.FOLDER.parent.parent / "references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{([\w-]+),", bibliography, re.M))
    assert {published.source for published in TABLES[number].published} <= keys


@pytest.mark.usefixtures("ledger")
@each
def test_markdown_is_a_titled_table_and_its_note(number):
    title, table, *notes = tables.markdown(number).split("\n\n")
    assert title == f"**Table {number}.** {TABLES[number].title}"
    head, rule, *rows = table.splitlines()
    assert len({line.count("|") for line in (head, rule, *rows)}) == 1
    assert len(rows) == len(tables.table(number))
    assert notes == [TABLES[number].note] * bool(TABLES[number].note)


def test_an_unknown_number_names_the_known():
    with pytest.raises(KeyError, match="number must be one of I, II, III, got 'V'"):
        tables.table("V")

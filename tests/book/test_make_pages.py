"""Pages that nobody types: they are current, complete, and judge claims as they say they do."""

import importlib
import json
import re
import tomllib
from typing import NamedTuple

import make_pages
import namedtuple_fields
import pytest
from make_pages import BOOK, PAGES, ROOT, Value, cited, measured, quantity, read_claims, verdict
from make_pages import read_equations as read

import ramlib
from ramlib import experiments
from ramlib.experiments import localisation, records, trials

PAPERS, ROWS, MISSING = read()


class TestCurrent:
    @pytest.mark.parametrize("name", PAGES)
    def test_page_is_what_its_sources_say(self, name):
        written = (BOOK / name).read_text(encoding="utf-8")
        assert written == PAGES[name](), "run: python tools/make_pages.py"

    def test_check_finds_a_stale_page_and_writing_cures_it(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(make_pages, "ROOT", tmp_path)
        monkeypatch.setattr(make_pages, "BOOK", tmp_path)
        monkeypatch.setattr(make_pages, "PAGES", {"claims.md": lambda: "new\n"})
        (tmp_path / "claims.md").write_text("old\n")
        assert make_pages.main(["--check"]) == 1
        assert "claims.md is not current" in capsys.readouterr().out
        assert (tmp_path / "claims.md").read_text() == "old\n"
        assert make_pages.main([]) == 0
        assert (tmp_path / "claims.md").read_text() == "new\n"
        assert make_pages.main(["--check"]) == 0


@pytest.fixture
def ledger(monkeypatch):
    """Two measured recipes and one variant of the ablation."""

    def record(error):
        interval = {"value": error, "low": error - 0.25, "high": error + 0.25, "n": 20_000}
        return {"metrics": {"error": interval, "error_where_missed": None}}

    monkeypatch.setattr(
        records, "read_all", lambda: {"digit": record(3.0), "digit-context": record(1.5)}
    )
    monkeypatch.setattr(trials, "read_all", lambda: {"ablation-base": {"gradient_norm_max": 4.0}})


@pytest.mark.usefixtures("ledger")
class TestVerdict:
    @pytest.mark.parametrize(
        ("limits", "expected"),
        [
            ({"at_most": 3.29}, "reached"),
            ({"at_most": 3.0}, "reached"),
            ({"at_most": 2.99}, "not reached"),
            ({"at_least": 3.0}, "reached"),
            ({"at_least": 3.01}, "not reached"),
            ({"at_least": 1, "at_most": 4}, "reached"),
            ({"at_least": 1, "at_most": 2}, "not reached"),
        ],
    )
    def test_holds_the_measured_value_against_the_limits(self, limits, expected):
        assert verdict({"of": ["digit", "error"], **limits}) == expected

    def test_what_has_no_record_is_not_measured(self):
        for claim in (
            {},
            {"of": ["pairs", "error"], "at_most": 100},
            {"of": ["digit", "error"], "over": ["pairs", "error"], "at_most": 100},
            {"of": ["digit", "error_where_missed"], "at_most": 100},  # a model without errors
        ):
            assert verdict(claim) == "not measured"

    def test_a_comparison_is_judged_by_the_ratio(self):
        claim = {"of": ["digit-context", "error"], "over": ["digit", "error"]}
        assert quantity(claim) == Value(0.5)
        assert verdict({**claim, "at_most": 0.5}) == "reached"
        assert verdict({**claim, "at_most": 0.4}) == "not reached"

    def test_two_curves_are_compared_at_the_same_error(self, monkeypatch):
        rows = {
            "slow": {"curve": [[100, 90.0], [200, 50.0], [300, 20.0]]},
            "fast": {"curve": [[100, 20.0], [200, 10.0]]},
        }
        monkeypatch.setattr(trials, "read_all", lambda: rows)
        claim = {"of": ["slow", "curve"], "over": ["fast", "curve"]}
        assert quantity(claim) == Value(3)
        assert verdict({**claim, "at_least": 3}) == "reached"
        assert verdict({**claim, "over": ["other", "curve"], "at_least": 3}) == "not measured"

    def test_shows_the_interval_beside_the_value(self):
        assert str(measured("digit", "error")) == "3.00 % (2.75 to 3.25)"
        assert str(measured("ablation-base", "gradient_norm_max")) == "4.00"


class TestClaims:
    CLAIMS = tuple(read_claims())

    def test_each_has_a_name_of_its_own_and_says_something(self):
        names = [claim["id"] for claim in self.CLAIMS]
        assert len(set(names)) == len(names)
        assert all(claim["says"] and claim["section"] for claim in self.CLAIMS)

    def test_each_that_is_measured_names_a_recipe_and_when_it_is_reached(self):
        known = {
            *experiments.RECIPES,
            *(r.name for g in experiments.GROUPS.values() for r in g.recipes),
            *localisation.read_rows(),
        }
        for claim in self.CLAIMS:
            for key in ("of", "over"):
                if key in claim:
                    assert claim[key][0] in known, claim["id"]
            assert ("of" in claim) == bool({"at_most", "at_least"} & set(claim)), claim["id"]

    def test_a_limit_is_the_papers_number_or_explained(self):
        for claim in self.CLAIMS:
            for key in ("at_most", "at_least"):
                if key in claim and "ours" not in claim:
                    assert f"{claim[key]:g}" in re.sub(r"0\b", "", claim["paper"]), claim["id"]

    def test_published_rows_of_the_tables_are_among_them(self):
        printed = " ".join(claim.get("paper", "") for claim in self.CLAIMS)
        for table in experiments.TABLES.values():
            for row, value, _ in table.published:
                assert f"{value:.2f}" in printed or f"{value:g} %" in printed, row

    def test_all_four_tables_are_there(self):
        sections = {claim["section"].partition(":")[0] for claim in self.CLAIMS}
        assert {"Table I", "Table II", "Table III", "Table IV"} <= sections

    def test_page_lists_each_once(self):
        page = make_pages.claims_page()
        for claim in self.CLAIMS:
            assert page.count(f"| {claim['says']} ") == 1, claim["id"]

    def test_file_has_no_field_that_nobody_reads(self):
        fields = {"id", "section", "says", "paper", "of", "over", "at_most", "at_least", "ours"}
        text = tomllib.loads((BOOK / "claims.toml").read_text(encoding="utf-8"))
        assert {field for claim in text["claims"] for field in claim} <= fields


class TestEquations:
    @pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.paper} {row.numbers}")
    def test_each_has_an_object_a_chapter_and_a_test(self, row):
        assert row.objects, "name the equation in the docstring of what computes it"
        assert row.tests, "name the equation in the docstring of a test"
        chapter = (BOOK / f"{row.chapter}.md").read_text(encoding="utf-8")
        assert re.search(rf":label: {row.label}$|\({row.label}\)", chapter, re.M)

    def test_none_is_named_without_being_in_the_index(self):
        assert set() == MISSING, "add these to book/equations.toml"

    def test_the_papers_five_are_there(self):
        own = next(iter(PAPERS))
        assert sorted(n for row in ROWS if row.paper == own for n in row.numbers) == [1, 2, 3, 4, 5]

    def test_objects_exist(self):
        for row in ROWS:
            for name in row.objects:
                parts = name.split(".")
                for cut in range(len(parts), 0, -1):
                    try:
                        found = importlib.import_module(".".join(parts[:cut]))
                        break
                    except ModuleNotFoundError:
                        continue
                for part in parts[cut:]:
                    found = getattr(found, part)

    @pytest.mark.parametrize(
        ("docstring", "expected"),
        [
            ("Eq. 2, Semeniuta & Barth (2016).", {("own", 2)}),
            ("Eqs. 1 and 3, Semeniuta & Barth (2016).", {("own", 1), ("own", 3)}),
            ("Eq. 1: move `h2`.", {("own", 1)}),
            ("eqs. 1-3 of the paper", {("own", 1), ("own", 2), ("own", 3)}),
            ("Eqs. 19-20 and\n    25, Gregor et al. (2015)", {("g", 19), ("g", 20), ("g", 25)}),
            ("Eq. 2, Semeniuta & Barth (2016); eq. 27, Gregor et al. (2015).",
             {("own", 2), ("g", 27)}),
            ("Cho et al. (2014); no equation 5 here.", set()),
        ],
    )  # fmt: skip
    def test_docstrings_are_understood(self, docstring, expected):
        assert cited(docstring, {"own": "Semeniuta & Barth", "g": "Gregor et al."}) == expected


class TestApiPages:
    INDEX = (BOOK / "api.md").read_text(encoding="utf-8")

    def test_every_public_module_has_a_page_and_a_line(self):
        modules = {
            make_pages.module_name(path)
            for path in (ROOT / "ramlib").rglob("*.py")
            if not path.name.startswith("_")
        }
        assert {path.stem for path in (BOOK / "api").glob("*.md")} == modules
        assert set(re.findall(r"<api/([\w.]+)>", self.INDEX)) == modules

    def test_front_door_is_what_the_package_exports(self):
        listed = re.findall(r"~ramlib[.\w]*\.(\w+)", self.INDEX)
        assert sorted([*listed, "RECIPES"]) == sorted(ramlib.__all__)

    def test_fields_of_named_tuples_are_left_out(self):
        class Pair(NamedTuple):
            first: int

        assert namedtuple_fields.skip(None, "class", "first", Pair.first, False, None)
        assert not namedtuple_fields.skip(None, "class", "count", Pair.count, False, None)
        assert namedtuple_fields.skip(None, "class", "count", Pair.count, True, None)


class TestTimings:
    def test_page_shows_what_was_timed(self, tmp_path, monkeypatch):
        timings = tmp_path / "timings.json"
        timings.write_text(
            '{"02_glimpse": {"seconds": 12.4, "machine": "a Cray", "date": "2026-01-02"}}'
        )
        monkeypatch.setattr(make_pages, "TIMINGS", timings)
        assert "| {doc}`02_glimpse` | 12 | a Cray | 2026-01-02 |" in make_pages.timings_page()

    def test_timings_of_a_gpu_come_when_they_were_measured(self, monkeypatch, tmp_path):
        record = tmp_path / "gpu.json"
        monkeypatch.setattr(make_pages, "GPU", record)
        assert "On a GPU" not in make_pages.timings_page()
        ways = {
            "eager": {"step, ms": 12.345, "images/s": 10368.6},
            "CUDA graph": {"step, ms": None, "images/s": None},
        }
        read = {"64 x 64": {"full, ms": 0.5, "windowed, ms": 0.25}}
        about = {"machine": "a Cray", "torch": "9.9", "date": "2026-01-02"}
        record.write_text(json.dumps({**about, "ways": ways, "read": read}))
        page = make_pages.timings_page()
        assert "a Cray with torch 9.9, 2026-01-02" in page
        assert "| eager | 12.35 | 10369 |" in page or "| eager | 12.34 | 10369 |" in page
        assert "| CUDA graph | failed | failed |" in page
        assert "| 64 x 64 | 0.500 | 0.250 |" in page

"""`make bench` on something tiny: its tables are complete, and their ratios are of its times."""

import json
from dataclasses import replace
from itertools import groupby

import bench
import pytest

from ramlib import experiments
from ramlib.data.cluttered import ClutteredDigits


@pytest.fixture
def tiny(monkeypatch):
    recipe = experiments.get("digit-context")
    task = ClutteredDigits("digit", distractors=1, size=40)
    small = replace(recipe, batch=4, task=task, model=replace(recipe.model, hidden=16))
    monkeypatch.setattr(experiments, "get", lambda name: small)
    monkeypatch.setattr(bench, "SIDES", (20, 80))


@pytest.mark.usefixtures("tiny")
def test_prints_and_writes_what_it_timed(tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert bench.main(["--rounds", "1", "--json", str(file)]) == 0
    printed, found = capsys.readouterr().out, json.loads(file.read_text())
    for row in ("20 x 20", "80 x 80", "plain, float32", "ramlib, bfloat16", "context network"):
        assert row in printed
    assert found["machine"] in printed
    assert found["clock"] == "CPU time"
    for times in found["read"].values():
        ratio = times["full, ms"] / times["windowed, ms"]
        assert times["full / windowed"] == pytest.approx(ratio)
    plain, ours = (found["step"][name] for name in ("plain, float32", "ramlib, bfloat16"))
    ratio = plain["step, ms"] / ours["step, ms"]
    assert ours["against plain, float32"] == pytest.approx(ratio)
    assert ours["images/s"] == pytest.approx(1e3 * 4 / ours["step, ms"])
    shares = [row["share, %"] for row in found["share"].values()]
    assert sum(shares) == pytest.approx(100)
    assert min(shares[:-1]) > 0


def test_takes_turns():
    """A, B, A, B and not A, A, B, B, so that a machine that slows down slows both."""
    calls = []
    works = {name: (lambda name=name: calls.append(name)) for name in "AB"}
    bench.in_turns(works, rounds=3, device="cpu", threads=1)
    assert "".join(name for name, _ in groupby(calls)) == "ABABAB"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "abacus"], "invalid choice: 'abacus'"),
        (["--rounds", "0"], "must be at least 1"),
    ],
)
def test_refuses_by_name(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        bench.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("tiny")
def test_a_way_that_fails_says_why_and_the_others_are_timed(monkeypatch):
    monkeypatch.setattr(bench.torch, "compile", lambda function, **_: function)
    ways = bench.ways("cpu", 1, 1)
    assert list(ways.index) == ["eager", "compiled", "CUDA graph"]
    assert (ways.loc[["eager", "compiled"], "step, ms"] > 0).all()
    assert ways["step, ms"].isna().tolist() == [False, False, True]
    assert set(ways.attrs) == {"CUDA graph"}
    assert ways.at["eager", "images/s"] == pytest.approx(1e3 * 4 / ways.at["eager", "step, ms"])

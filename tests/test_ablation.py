"""The ablation: one change at a time, on one budget."""

from dataclasses import asdict, replace

import pytest
from tiny import TINY

from ramlib import ablation


def changed(recipe, base):
    ours, theirs = asdict(recipe.model), asdict(base.model)
    return {key for key in ours if ours[key] != theirs[key]}


@pytest.mark.parametrize("name", [n for n in ablation.VARIANTS if n != "ablation-base"])
def test_variant_changes_one_thing(name):
    variant, base = ablation.VARIANTS[name], ablation.VARIANTS["ablation-base"]
    assert len(changed(variant, base)) == 1
    assert replace(variant, name=base.name, row=base.row, model=base.model) == base


def test_rows_are_written_as_they_are_measured_and_not_measured_twice(tmp_path, monkeypatch):
    tiny = {f"ablation-{n}": replace(TINY, name=f"ablation-{n}", updates=50) for n in ("a", "b")}
    monkeypatch.setattr(ablation, "VARIANTS", tiny)
    monkeypatch.setattr(ablation, "VALIDATION_IMAGES", 20)
    monkeypatch.setattr(ablation, "FILE", tmp_path / "ablation.json")
    rows = ablation.run(tmp_path / "runs")
    assert [row["recipe"] for row in rows] == list(tiny)
    assert all(row["error"]["n"] == 20 for row in rows)
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert ablation.run(tmp_path / "runs") == rows == ablation.read()
    assert not (tmp_path / "runs").exists()

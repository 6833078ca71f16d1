"""The loader's benchmark on a handful of images: every stage is measured, and nothing stays."""

import json
import os

import loader
import pytest

from ramlib.data import house_numbers


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(loader, "BATCHES", 2)
    monkeypatch.setattr(loader, "BATCH", 4)


@pytest.mark.usefixtures("few")
def test_prints_and_writes_what_it_measured_on_images_of_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAMLIB_CACHE", "untouched")
    file = tmp_path / "loader.json"
    assert loader.main(["--images", "6", "--json", str(file)]) == 0
    printed, found = capsys.readouterr().out, json.loads(file.read_text())
    assert found["twin"].startswith("6 images written")
    stages = found["load"]
    assert [row["images"] for row in stages.values()] == [6, 6, 6, 8]
    for name, row in stages.items():
        assert name in printed
        assert row["images/s"] == pytest.approx(row["images"] / row["seconds"])
        assert row["peak grew by, MB"] >= 0
    assert os.environ["RAMLIB_CACHE"] == "untouched"
    assert not os.path.exists("untouched")


@pytest.mark.usefixtures("few")
def test_measures_a_folder_that_is_there(tmp_path):
    house_numbers.load.cache_clear()
    table = loader.measure(house_numbers.SAMPLE, tmp_path / "cache")
    assert table["images"].tolist() == [260, 260, 260, 8]
    assert len(list(tmp_path.glob("cache/*/*/*/tight.npy"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "1"], "--images must be at least 2"),
        (["--data", "nowhere"], "--data: nowhere holds no folder train"),
    ],
)
def test_refuses_by_name(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        loader.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err

"""What ships is what was measured: its weights, under today's code, give the recorded counts."""

import math

import pandas as pd
import pytest
import tiny
import torch

from ramlib import experiments
from ramlib.data.birds import Birds
from ramlib.data.house_numbers import HouseNumbers
from ramlib.experiments import records, shipping, weights
from ramlib.experiments.recipe import differences

SHIPPED = weights.shipped()
RECORDED = list(records.read_all())
LARGEST = 8_000_000  # bytes: a model with closer looks has 3.5 million weights

JOINED = {recipe.name for recipe in experiments.RECIPES.values() if recipe.joins is not None}

# On another processor a sum may round differently, and a canvas on the edge fall to the other side.
SLACK = 2  # canvases

each_shipped = pytest.mark.parametrize("name", SHIPPED)
each_recorded = pytest.mark.parametrize("name", RECORDED)
each_trained = pytest.mark.parametrize("name", [name for name in RECORDED if name not in JOINED])


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Crops of the sample, cut once for all tests of the session."""
    monkeypatch.setenv("RAMLIB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def assert_reproduces(recipe, model, record):
    """The first test canvases are named wrongly as often as the record says."""
    subset = record["metrics"]["subset"]
    wrong = shipping.count_subset(recipe, model, subset["n"])["wrong"]
    assert abs(wrong - subset["wrong"]) <= SLACK, f"{wrong} of {subset['n']} wrong, not {subset}"


# ---- what ships ----


def test_every_weight_file_has_a_record_and_every_record_its_weights():
    files = {path.stem for path in weights.FOLDER.glob("*.safetensors")}
    assert files == set(RECORDED) - JOINED
    assert set(RECORDED) <= set(SHIPPED)
    assert {path.stem for path in records.FOLDER.glob("*.json")} == set(RECORDED)


def test_shipped_files_are_small():
    files = [*weights.FOLDER.glob("*"), *records.FOLDER.glob("*")]
    assert [path.name for path in files if path.stat().st_size > LARGEST] == []


@each_shipped
def test_shipped_weights_give_the_recorded_error_again(name):
    assert_reproduces(experiments.get(name), weights.load(name), records.read(name))


@each_recorded
def test_record_is_complete_and_of_todays_recipe(name):
    record, recipe = records.read(name), experiments.get(name)
    assert set(record) == records.FIELDS
    assert (record["recipe"], record["row"]) == (recipe.name, recipe.row)
    saved = {key: record[key] for key in ("task", "model", "seed", "updates", "batch", "precision")}
    assert differences(recipe, saved) == []
    assert record["images_seen"] == recipe.updates * recipe.batch
    assert record["parameters"] == sum(p.numel() for p in recipe.build().parameters())
    assert record["wall_s"] > 0
    assert record["machine"]
    assert str(record["metrics"]["error"]["n"]) in record["data"]


@each_recorded
def test_record_was_measured_on_enough_images_with_its_interval(name):
    error = records.read(name)["metrics"]["error"]
    assert error["low"] <= error["value"] <= error["high"]
    if isinstance(experiments.get(name).task, HouseNumbers | Birds):
        assert f"{error['n']} test" in records.read(name)["data"]  # all that there are
        return
    assert error["n"] >= 20_000
    # The subset is a part of the whole, so its count must be one that the whole allows.
    subset, p = records.read(name)["metrics"]["subset"], error["value"] / 100
    spread = math.sqrt(p * (1 - p) * subset["n"])
    assert abs(subset["wrong"] - p * subset["n"]) <= 4 * spread + 1


@each_trained
def test_learning_curve_ships_to_its_end(name):
    curve = pd.read_csv(records.FOLDER / f"{name}-curve.csv")
    assert {"step", "loss", "validation error, %"} <= set(curve)
    assert curve.step.is_monotonic_increasing
    assert curve.step.max() >= records.read(name)["updates"] - 50


# ---- the check itself ----


def always(answer):
    """A model that names every canvas `answer`, whatever it sees."""
    model = tiny.TINY.build().eval()
    with torch.no_grad():
        last = model.f_class[-1]
        last.weight.zero_()
        last.bias.copy_(torch.eye(10)[answer])
    return model


def record_of(answer, moved=0):
    """The record of such a model, counted from the labels alone."""
    labels = torch.cat([batch.labels for batch in tiny.TINY.task.batches("test", 300)])
    return {"metrics": {"subset": {"n": 300, "wrong": int((labels != answer).sum()) + moved}}}


@pytest.mark.parametrize("moved", [-SLACK, 0, SLACK])
def test_the_check_passes_the_model_that_was_measured(moved):
    assert_reproduces(tiny.TINY, always(1), record_of(1, moved))


@pytest.mark.parametrize("moved", [-SLACK - 1, SLACK + 1])
def test_the_check_allows_no_more_than_its_slack(moved):
    with pytest.raises(AssertionError, match="wrong, not"):
        assert_reproduces(tiny.TINY, always(1), record_of(1, moved))


def test_the_check_catches_other_weights():
    with pytest.raises(AssertionError, match="wrong, not"):
        assert_reproduces(tiny.TINY, always(5), record_of(1))

"""What ships is a finished training of its recipe, measured as it was stored."""

import json
import re
from dataclasses import replace

import pytest
import tiny
import torch
from tiny import TINY

from ramlib import experiments
from ramlib.experiments import records, shipping, training, weights
from ramlib.experiments.measure import Measure, measure, share

RECIPE = replace(TINY, updates=14)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished training."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "VALIDATION_BATCHES", 1)
        patch.setattr(training, "VALIDATION_BATCH", 4)
        patch.setattr(training, "LOG_EVERY", 1)
        module, finished = tiny.train(RECIPE, folder)
    assert finished
    weights.save_weights(module.model, folder / "weights.safetensors")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Weights and records go to a folder of the test's own."""
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr(records, "FOLDER", tmp_path / "records")
    monkeypatch.setitem(experiments.RECIPES, "tiny", RECIPE)


def test_the_record_says_what_the_stored_weights_do(run):
    record, curve = shipping.ship(RECIPE, run, 60)
    found = json.loads(record.read_text())
    stored = weights.load("tiny")
    expected = measure(RECIPE.task, stored, "test", 60)
    assert found["metrics"]["error"] == expected["error"].as_dict()
    assert found["metrics"]["missed"] == expected["missed"].as_dict()
    assert found["metrics"]["validation_error"]["n"] == 60
    assert (found["updates"], found["batch"], found["images_seen"]) == (14, 4, 56)
    assert found["wall_s"] >= 0
    assert curve.read_text().startswith("step,")


def test_noisy_passes_are_averaged_where_there_is_noise():
    noisy = replace(RECIPE, model=replace(RECIPE.model, alpha=0.2))
    found = shipping.measure_all(noisy, noisy.build().eval(), 20)
    assert found["average_error"]["n"] == found["error"]["n"] == 20
    quiet = shipping.measure_all(RECIPE, RECIPE.build().eval(), 20)
    assert not any(name.startswith("average") for name in quiet)


def test_the_subset_is_counted_on_images_that_everybody_has():
    class Private(type(RECIPE.task)):
        @property
        def public(self):
            return RECIPE.task

        def batches(self, *_, **__):
            raise FileNotFoundError("nobody has these")

    model = RECIPE.build().eval()
    here = shipping.count_subset(replace(RECIPE, task=Private(size=30)), model, 50)
    assert here == shipping.count_subset(RECIPE, model, 50)
    assert here["n"] == 50


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (replace(RECIPE, updates=15), "stopped at update 14 of 15; finish it first"),
        (replace(RECIPE, seed=1), "was made with seed=0 (now 1)"),
    ],
)
def test_refuses_a_training_of_another_recipe(run, recipe, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        shipping.ship(recipe, run, 20)
    assert not records.FOLDER.exists()


def test_refuses_a_training_that_is_not_finished(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no finished training; finish it with"):
        shipping.trained(RECIPE, tmp_path)


def test_the_trained_model_is_the_one_of_the_run(run):
    model = shipping.trained(RECIPE, run)
    images = torch.rand(3, *RECIPE.task.image_shape)
    state = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    again = RECIPE.build().eval()
    again.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    assert torch.equal(model(images).logits, again(images).logits)


class TestMoved:
    # An interval of 2 percent: it may move by 0.2.
    @pytest.mark.parametrize(
        ("after", "moves"), [(5.0, False), (5.19, False), (4.81, False), (5.21, True), (4.79, True)]
    )
    def test_a_tenth_of_the_interval_is_allowed_either_way(self, after, moves):
        before = Measure(5.0, 4.1, 6.1, 1000)
        assert shipping.moved(before, Measure(after, 0.0, 100.0, 1000)) is moves

    def test_of_20000_canvases_at_four_percent_ten_may_change(self):
        before = share(800, 20_000)  # the interval is 109 canvases wide
        assert not shipping.moved(before, share(810, 20_000))
        assert shipping.moved(before, share(811, 20_000))


class TestStore:
    @pytest.fixture
    def recipe(self, monkeypatch):
        recipe = replace(TINY, model=replace(TINY.model, hidden=96))  # matrices of 20,000 and more
        monkeypatch.setitem(experiments.RECIPES, "tiny", recipe)
        return recipe

    def test_stores_in_eight_bits_what_stays_as_good(self, recipe):
        model = recipe.build().eval()
        with torch.no_grad():
            model.f_class[-1].bias[3] = 100  # whatever it sees, it says 3
        shipping.store(recipe, model, 50)
        assert weights.shipped_precision("tiny") == "int8"

    def test_stores_in_half_precision_what_eight_bits_would_change(self, recipe, monkeypatch):
        model, seen = recipe.build().eval(), []

        def measure(task, measured, split, count):
            seen.append((measured is model, split, count))
            return {"error": share(5 if measured is model else 25, count)}

        monkeypatch.setattr(shipping, "measure", measure)
        shipping.store(recipe, model, 50)
        assert weights.shipped_precision("tiny") == "float16"
        assert seen == [(True, "validation", 50), *[(False, "validation", 50)] * 2]
        value = model.f_rec.layer1.from_state.weight
        again = weights.load("tiny").f_rec.layer1.from_state.weight
        assert torch.equal(again, value.half().float())

"""Every recipe builds, says what it is, and gives the same model each time."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import NOISY, TINY

from ramlib import experiments
from ramlib.experiments import RECIPES, digit, get, house_numbers, pairs
from ramlib.experiments.recipe import Recipe, differences

each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@each_recipe
def test_recipe_builds_a_model_of_its_task(recipe):
    model = recipe.build()
    assert model.image_shape == recipe.task.image_shape
    assert model.classes == recipe.task.classes


@each_recipe
def test_model_answers_an_image_of_the_task(recipe, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RAMLIB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    # What ships stands in for what a reader brings.
    images = recipe.task.public.sample(1, generator=torch.Generator().manual_seed(0)).images
    logits = recipe.build().eval()(images).logits
    assert logits.shape[::2] == (1, recipe.task.classes)
    assert logits.isfinite().all()


@each_recipe
def test_recipe_starts_from_one_that_exists_and_is_listed_before_it(recipe):
    names = list(RECIPES)
    if recipe.start is not None:
        assert names.index(recipe.start) < names.index(recipe.name)


@each_recipe
def test_recipe_joins_two_that_differ_in_nothing_but_their_direction(recipe):
    if recipe.joins is not None:
        names = list(RECIPES)
        assert max(map(names.index, recipe.joins)) < names.index(recipe.name)
        forward, backward = map(get, recipe.joins)
        assert recipe.model.reader == forward.model
        assert backward.model == replace(forward.model, direction="right-to-left")
        assert forward.task == backward.task
        # It may be tried on other images than those it was trained on, but of the same kind.
        assert recipe.task.crop == forward.task.crop
        assert recipe.task == forward.task or recipe.name == "house-numbers-subset-untuned"


def test_recipes_are_found_by_their_names():
    assert all(name == recipe.name and get(name) is recipe for name, recipe in RECIPES.items())
    assert {"digit", "digit-context"} <= set(RECIPES)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in RECIPES)


def test_no_two_recipes_share_a_row():
    rows = [recipe.row for recipe in RECIPES.values()]
    assert len(set(rows)) == len(rows)


def test_every_name_in_a_table_is_a_recipe():
    assert {name for table in experiments.TABLES.values() for name in table.recipes} <= set(RECIPES)


@pytest.mark.parametrize(
    ("typo", "meant"), [("digit-contxt", "digit-context"), ("Digit", "digit"), ("?", None)]
)
def test_an_unknown_name_suggests_the_nearest_and_says_where_all_are(typo, meant):
    with pytest.raises(KeyError) as caught:
        get(typo)
    message = caught.value.args[0]
    assert f"no recipe is called {typo!r}" in message
    assert meant is None or f"did you mean {meant!r}" in message
    assert message.endswith("`ramlib list` shows all")


class TestBuild:
    def test_the_same_seed_gives_the_same_weights_and_another_seed_others(self):
        first, again, other = (r.build().state_dict() for r in (TINY, TINY, replace(TINY, seed=1)))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["f_class.0.weight"], other["f_class.0.weight"])

    def test_leaves_the_global_generator_alone(self):
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        TINY.build()
        assert torch.equal(torch.rand(3), expected)


class TestDifferences:
    def test_a_recipe_does_not_differ_from_itself(self):
        assert differences(TINY, asdict(TINY)) == []

    def test_names_what_differs_down_to_the_models_settings(self):
        assert differences(NOISY, asdict(TINY)) == [
            "model.alpha=0.0 (now 0.1)",
            "model.dropout=0.0 (now 0.3)",
            "model.recurrent_dropout=0.0 (now 0.3)",
            "seed=0 (now 3)",
        ]

    @pytest.mark.parametrize("name", ["cnn-pairs", "goodfellow-house-numbers-twin"])
    def test_a_recipe_that_was_written_to_a_file_and_read_does_not_differ(self, name):
        assert differences(get(name), json.loads(json.dumps(asdict(get(name))))) == []

    def test_names_and_expectations_are_words(self):
        saved = asdict(replace(TINY, name="old", row="Old", expects="much"))
        assert differences(TINY, saved) == []

    def test_what_was_not_saved_is_not_compared(self):
        assert differences(TINY, {}) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"updates": 0}, "Recipe: updates must be at least 1, got 0"),
        ({"batch": -1}, "Recipe: batch must be at least 1, got -1"),
        ({"rate": 0.0}, "Recipe: rate must be above 0, got 0.0"),
        ({"clip": 0.0}, "Recipe: clip must be above 0, got 0.0"),
        ({"seed": -1}, "Recipe: seed must be in [0, 2**31), got -1"),
        ({"seed": 2**31}, "Recipe: seed must be in [0, 2**31), got 2147483648"),
    ],
)
def test_refuses_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(TINY, **change)


@pytest.mark.parametrize("change", [{"updates": 5}, {"updates": 0, "start": "digit"}])
def test_what_joins_others_is_not_trained(change):
    with pytest.raises(ValueError, match="Recipe: what joins others is not trained; got updates="):
        replace(get("house-numbers-svhn"), **change)


def test_module_lists_no_recipe_outside_its_table():
    for module in (digit, house_numbers, pairs):
        loose = [name for name, value in vars(module).items() if isinstance(value, Recipe)]
        assert loose == []


class Holder:
    """A task of somebody's own."""

    image_shape, classes = (1, 30, 30), 10

    def __init__(self, **held):
        vars(self).update(held)

    def sample(self, count, *, split="train", generator): ...

    def batches(self, split, count=None, *, batch=500, device="cpu"): ...

    def judge(self, rollout, batch): ...

    def describe(self): ...

    @property
    def public(self):
        return self


class TestPlainValues:
    @pytest.mark.usefixtures("as_installed")
    def test_numbers_and_paths_become_plain_when_the_recipe_is_made(self):
        held = Holder(share=np.float32(0.5), shape=(np.int64(3), 4), folder=Path("a") / "b")
        recipe = replace(TINY, task=held, rate=np.float64(1e-3), seed=torch.tensor(3))
        settings = recipe.settings()
        assert settings["task"] == {"share": 0.5, "shape": [3, 4], "folder": "a/b"}
        assert (settings["rate"], settings["seed"]) == (1e-3, 3)
        assert json.loads(json.dumps(settings)) == settings

    @pytest.mark.parametrize(
        "value", [torch.zeros(3), np.zeros(3), len, torch.nn.Linear(1, 1), {1, 2}], ids=type
    )
    def test_what_is_not_plain_is_refused_with_the_cure(self, value):
        with pytest.raises(TypeError, match=r"task\.held must hold plain .*TensorTask"):
            replace(TINY, task=Holder(held=value))

"""The rows of Table III: what starts from what, and on equal terms."""

from dataclasses import astuple, replace

import pytest
import torch

from ramlib.experiments import RECIPES, TABLES, get
from ramlib.experiments.measure import multiply_adds
from ramlib.experiments.weights import start_from


def test_house_numbers_svhn_is_the_joined_reader_of_photographs():
    recipe = get("house-numbers-svhn")
    assert recipe.joins is not None
    assert (recipe.task.data, recipe.task.crop) == ("svhn", "tight")


def test_a_reader_of_the_subset_starts_from_the_one_of_the_twin():
    for recipe in RECIPES.values():
        if recipe.name.startswith("house-numbers-subset") and recipe.joins is None:
            assert recipe.start == recipe.name.replace("subset", "twin")
            assert recipe.task.crop == get(recipe.start).task.crop


@pytest.mark.parametrize(
    ("name", "fresh"),
    [
        ("twin-forward", {"f_glimpse"}),  # the simple eye is exchanged
        ("twin-backward", set()),
        ("twin-five-forward", {"f_glimpse"}),  # from the third layer on
        ("twin-five-backward", set()),
        ("twin-loose-forward", {"prepare"}),
        ("twin-loose-five-forward", {"prepare"}),
        ("twin-loose-five-backward", set()),
        ("subset-five-forward", set()),
        ("subset-loose-five-forward", set()),
    ],
)
def test_a_reader_takes_over_all_that_fits(name, fresh):
    recipe = get(f"house-numbers-{name}")
    left = start_from(recipe.build(), get(recipe.start).build().state_dict())
    assert {part.split(".")[0] for part in left} == fresh


def test_a_loose_window_covers_as_much_of_a_digit_as_a_tight_one():
    tight, loose = (get(f"house-numbers-twin-{name}forward").model for name in ("", "loose-"))
    for side, wide in zip(astuple(tight.window), astuple(loose.window), strict=True):
        assert side * 1.3 == pytest.approx(wide * 2.3)


def test_a_plain_cnn_spends_about_as_much_as_the_reader_beside_it():
    """On a number of two digits, the commonest length: nine looks."""
    size = 64
    reader = get("house-numbers-twin-forward")
    look = replace(reader.model, glimpses=9).build(reader.task.image_shape, 11).eval()
    for layer in look.f_class:  # says the end at once
        if isinstance(layer, torch.nn.Linear):
            layer.bias.data[-1] = 100
    blank = torch.zeros(1, 1, size, size)
    spent = multiply_adds(look, blank)
    for name in ("goodfellow-house-numbers-twin", "cnn-house-numbers-twin"):
        assert multiply_adds(get(name).build().eval(), blank) == pytest.approx(spent, rel=0.15)


def test_table_three_is_the_papers():
    published = {published.row: published.value for published in TABLES["III"].published}
    own = {row: value for row, value in published.items() if row.startswith("Semeniuta")}
    assert [v for row, v in own.items() if row.endswith("64x64")] == [4.5, 4.3, 3.9, 3.65, 3.4]
    assert [v for row, v in own.items() if row.endswith("128x128")] == [5.5, 5.2, 4.45, 4.35, 4.34]
    assert [value for row, value in published.items() if row not in own] == [
        3.96, 3.9, 4.46, 3.6, 3.9
    ]  # fmt: skip

"""The rivals' recipes: how they are trained, and where they stand in the tables."""

import pytest

from ramlib.baselines.mnih import HardAttentionConfig
from ramlib.experiments import RECIPES, TABLES
from ramlib.models.controls import BlindConfig

REWARDED = [r for r in RECIPES.values() if isinstance(r.model, HardAttentionConfig)]


@pytest.mark.parametrize("recipe", REWARDED, ids=lambda recipe: recipe.name)
class TestTrainedByRewards:
    def test_noise_falls_until_the_last_update(self, recipe):
        assert recipe.model.anneal == recipe.updates
        assert recipe.model.sigma[0] > recipe.model.sigma[1]


@pytest.mark.parametrize("number", TABLES)
def test_averages_are_the_rows_of_models_whose_windows_are_drawn(number):
    """Whose ten passes differ, so that their mean is a result of its own."""
    table = TABLES[number]
    drawn = {name for name in table.recipes if RECIPES[name].build().stochastic}
    assert set(table.averages) == drawn


@pytest.mark.parametrize(
    ("number", "authors"),
    [("I", "mnih"), ("I", "gregor"), ("I", "jaderberg"), ("I", "sonderby"), ("I", "cnn"),
     ("II", "ba"), ("II", "cnn")],
)  # fmt: skip
def test_every_rival_of_a_table_has_a_row_of_ours(number, authors):
    assert any(name.startswith(f"{authors}-") for name in TABLES[number].recipes)


def test_both_rules_of_reinforcement_differ_in_nothing_but_whom_rewards_teach():
    ours, theirs = (RECIPES[f"mnih-digit-4{suffix}"].model for suffix in ("", "-place"))
    assert (ours.reinforced, theirs.reinforced) == ("core", "place")
    different = {key for key, value in vars(ours).items() if value != getattr(theirs, key)}
    assert different == {"reinforced", "anneal"}


def test_controls_cost_as_many_looks_as_what_they_control():
    controls = [r for r in RECIPES.values() if isinstance(r.model, BlindConfig)]
    assert {r.model.glimpses for r in controls} == {RECIPES["digit"].model.glimpses}
    assert {r.model.size for r in controls} == {RECIPES["digit"].model.size}
    assert [r.name for r in controls if r.task.centred] == ["oracle-digit"]

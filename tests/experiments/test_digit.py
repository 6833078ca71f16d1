"""The rows of Table I and the ablation."""

from ramlib.experiments import GROUPS, RECIPES, TABLES
from ramlib.experiments.digit import DIGIT_CONTEXT


def test_table_one_is_the_papers():
    published = {published.row: published.value for published in TABLES["I"].published}
    assert sorted(published.values()) == [1.8, 3.29, 3.36, 4.18, 8.11, 9.41]
    assert published["Semeniuta & Barth, with context"] == 1.8


def test_every_ablation_changes_one_thing_of_the_model_and_nothing_else():
    base, *others = GROUPS["ablation"].recipes
    assert base.model == DIGIT_CONTEXT == RECIPES["digit-context"].model
    for recipe in others:
        changed = [k for k, v in vars(recipe.model).items() if v != getattr(base.model, k)]
        assert len(changed) == 1
        budget = ("task", "updates", "batch", "rate", "seed", "start")
        assert all(getattr(recipe, key) == getattr(base, key) for key in budget)

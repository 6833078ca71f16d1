"""The rows of Table II: a chain of stages, and whom the first one follows."""

from ramlib.experiments import RECIPES, TABLES, get, updates_behind
from ramlib.models.imitation import GuidedConfig


def test_the_updates_behind_a_recipe_are_those_of_its_whole_chain():
    chain = ("digit-context", "pairs-guided", "pairs", "pairs-conv-brief", "pairs-conv")
    assert updates_behind("pairs-conv") == sum(get(name).updates for name in chain)
    assert updates_behind("digit-context") == get("digit-context").updates


def test_every_guided_recipe_names_its_guide_and_no_other_does():
    for recipe in RECIPES.values():
        assert isinstance(recipe.model, GuidedConfig) == (recipe.guide is not None)
        assert recipe.guide is None or get(recipe.guide).task.target == "digit"


def test_validation_and_test_canvases_are_the_same_for_every_row_of_a_task():
    """Rows may train on more overlapping digits; they are measured on the same canvases."""
    pair = {
        (recipe.task.distractors, recipe.task.size)
        for name, recipe in RECIPES.items()
        if getattr(recipe.task, "target", None) == "pair"
    }
    assert pair == {(8, 100)}


def test_table_two_is_the_papers():
    published = {published.row: published.value for published in TABLES["II"].published}
    assert published == {
        "Ba et al., pairs": 5.0,
        "Ba et al., sum": 2.5,
        "Semeniuta & Barth, pairs": 4.3,
        "Semeniuta & Barth, sum": 2.55,
    }

"""Short trainings side by side: one change at a time, on one budget."""

from dataclasses import asdict, replace

import pytest
import torch
from tiny import TINY

from ramlib import experiments
from ramlib.experiments import records, trials


def changed(recipe, base):
    ours, theirs = asdict(recipe.model), asdict(base.model)
    return {key for key in ours if ours[key] != theirs[key]}


ABLATION = experiments.GROUPS["ablation"].recipes


@pytest.mark.parametrize("variant", ABLATION[1:], ids=lambda recipe: recipe.name)
def test_variant_of_the_ablation_changes_one_thing(variant):
    base = ABLATION[0]
    assert len(changed(variant, base)) == 1
    assert replace(variant, name=base.name, row=base.row, model=base.model) == base


def test_the_noise_trials_differ_in_nothing_but_their_noise():
    recipes = experiments.GROUPS["noise"].recipes
    assert [(r.model.alpha, r.task.augment) for r in recipes] == [
        (0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.1, 0.1)
    ]  # fmt: skip
    quiet = {
        replace(
            r, name="", row="", task=replace(r.task, augment=0.0), model=replace(r.model, alpha=0.0)
        )
        for r in recipes
    }
    assert len(quiet) == 1


def test_the_readers_of_the_regularisation_trials_differ_in_nothing_else():
    *readers, cnn = experiments.GROUPS["regularisation"].recipes
    settings = [
        (r.model.dropout > 0, r.model.recurrent_dropout > 0, r.model.alpha > 0) for r in readers
    ]
    assert settings == [(True, True, True), (True, True, False), (False, False, True), (False,) * 3]
    same = {"dropout": 0.0, "recurrent_dropout": 0.0, "alpha": 0.0}
    bare = {replace(r, name="", row="", model=replace(r.model, **same)) for r in readers}
    assert len(bare) == 1
    assert (cnn.task, cnn.updates, cnn.batch) == (
        readers[0].task,
        readers[0].updates,
        readers[0].batch,
    )


def test_pretraining_is_tried_with_three_seeds_in_25_epochs():
    group = experiments.GROUPS["pretraining"]
    assert len({(recipe.seed, recipe.start) for recipe in group.recipes}) == 6
    assert {recipe.seed for recipe in group.recipes} == {0, 1, 2}
    assert all(recipe.updates == 25 * group.every for recipe in group.recipes)
    others = {replace(recipe, name="", row="", seed=0, start=None) for recipe in group.recipes}
    assert len(others) == 1


@pytest.fixture
def tiny_group(tmp_path, monkeypatch):
    recipes = tuple(replace(TINY, name=name, updates=60) for name in ("one", "other"))
    group = experiments.Group("What is tiny?", recipes, images=20, every=30)
    monkeypatch.setattr(trials, "GROUPS", {"tiny": group})
    monkeypatch.setattr(trials, "FOLDER", tmp_path / "trials")
    return recipes


def test_rows_are_written_as_they_are_measured_and_not_measured_twice(tmp_path, tiny_group):
    assert trials.read("tiny") == []
    rows = trials.run("tiny", tmp_path / "runs")
    assert [row["recipe"] for row in rows] == ["one", "other"]
    assert all(row["error"]["n"] == 20 for row in rows)
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert trials.run("tiny", tmp_path / "runs") == rows == trials.read("tiny")
    assert not (tmp_path / "runs").exists()
    assert trials.read_all() == {row["recipe"]: row for row in rows}


def test_a_row_holds_its_learning_curve(tmp_path, tiny_group):
    row = trials.run("tiny", tmp_path / "runs")[0]
    logged = records.curve(tmp_path / "runs" / "one").dropna(subset="validation error, %")
    assert [updates for updates, _ in row["curve"]] == [30, 60]
    assert [error for _, error in row["curve"]] == pytest.approx(
        list(logged["validation error, %"]), abs=0.006
    )


@pytest.mark.parametrize(
    ("slow", "fast", "expected"),
    [
        ([90, 60, 30, 10], [30, 10, 5, 5], 3),
        ([90, 60, 28, 10], [30, 10, 5, 5], 3),
        ([50, 40], [50, 40], 1),
        ([40, 30], [50, 40], 1),
        # Never there: the ratio is at least this.
        ([90, 90, 90, 90], [30, 10, 5, 5], 4),
    ],
)
def test_speed_up_is_the_ratio_of_updates_to_the_first_error_of_the_other(slow, fast, expected):
    slow, fast = (
        {"curve": [[100 * (i + 1), error] for i, error in enumerate(errors)]}
        for errors in (slow, fast)
    )
    assert trials.speed_up(slow, fast) == expected


def test_a_row_holds_the_looks_at_the_first_validation_canvases(tmp_path, tiny_group):
    row = trials.run("tiny", tmp_path / "runs")[0]
    recipe = tiny_group[0]
    state = torch.load(tmp_path / "runs" / "one" / "last.ckpt", weights_only=True)["state_dict"]
    model = recipe.build().eval()
    model.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    batch = next(recipe.task.batches("validation", trials.SHOWN))
    with torch.inference_mode():
        windows = model(batch.images).windows
    assert torch.tensor(row["windows"]).sub(windows).abs().max() < 6e-3


def test_unknown_group_is_named():
    with pytest.raises(KeyError, match=r"trials: group must be one of ablation.*got 'ablations'"):
        trials.read("ablations")


def test_names_of_trials_are_unique():
    names = [recipe.name for group in experiments.GROUPS.values() for recipe in group.recipes]
    assert len(names) == len(set(names))

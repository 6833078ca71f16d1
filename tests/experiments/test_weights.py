"""Weights come back as they were stored, and a file that is not whole is refused by name."""

import json
import re
import struct
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY

from ramlib import experiments
from ramlib.data.house_numbers import HouseNumbers
from ramlib.experiments import weights
from ramlib.experiments.weights import (
    load,
    load_weights,
    save_weights,
    shipped,
    start_from,
)
from ramlib.models.reader import JoinedReaderConfig, ReaderConfig


@pytest.fixture
def model():
    return TINY.build()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of weights in which the tiny recipe ships."""
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    monkeypatch.setitem(experiments.RECIPES, "tiny", TINY)
    save_weights(replace(TINY, seed=5).build(), tmp_path / "tiny.safetensors", half=True)
    return tmp_path


def other():
    return replace(TINY, seed=9).build()


class TestRoundTrip:
    def test_full_precision_comes_back_to_the_bit(self, model, tmp_path):
        save_weights(model, tmp_path / "w.safetensors")
        again = other()
        load_weights(again, tmp_path / "w.safetensors")
        for name, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)

    def test_half_precision_comes_back_rounded_and_in_the_models_own_type(self, model, tmp_path):
        save_weights(model, tmp_path / "w.safetensors", half=True)
        again = other()
        load_weights(again, tmp_path / "w.safetensors")
        for name, value in model.state_dict().items():
            assert again.state_dict()[name].dtype == torch.float32
            assert torch.equal(again.state_dict()[name], value.half().float())

    def test_half_precision_takes_half_the_space(self, model, tmp_path):
        save_weights(model, tmp_path / "full"), save_weights(model, tmp_path / "half", half=True)
        parameters = sum(p.numel() for p in model.parameters())
        saved = (tmp_path / "full").stat().st_size - (tmp_path / "half").stat().st_size
        assert saved == pytest.approx(2 * parameters, abs=200)  # the headers differ by a few bytes

    def test_file_is_safetensors_with_notes_and_no_pickle(self, model, tmp_path):
        path = tmp_path / "w.safetensors"
        save_weights(model, path, notes={"recipe": "tiny"})
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        assert header["__metadata__"]["recipe"] == "tiny"
        assert set(header) - {"__metadata__"} == set(model.state_dict())
        assert not raw.startswith((b"PK", b"\x80"))
        assert set(load_file(path)) == set(model.state_dict())


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            lambda raw: raw[:-100],
            lambda raw: raw[:100],
            lambda raw: b"",
            lambda raw: b"<html>404</html>",
            lambda raw: raw[:20] + bytes([raw[20] ^ 255]) + raw[21:],
            lambda raw: raw[:-100] + bytes([raw[-100] ^ 1]) + raw[-99:],
            lambda raw: raw.replace(b'"f_class.0.bias"', b'"f_class.0.bigs"'),
        ],
        ids=[
            "cut short", "header cut", "empty", "a web page", "header flipped", "a weight's bit",
            "a name changed",
        ],
    )  # fmt: skip
    def test_is_named_with_its_cure(self, damage, folder):
        path = folder / "tiny.safetensors"
        path.write_bytes(damage(path.read_bytes()))
        message = rf"load_weights: {re.escape(str(path))} is damaged .*reinstall ramlib"
        with pytest.raises(ValueError, match=message):
            load("tiny")

    def test_a_missing_file_is_named_with_its_cure(self, model, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"load_weights: no file .*w; reinstall ramlib"):
            load_weights(model, tmp_path / "w")

    def test_another_models_weights_are_not_loaded(self, tmp_path):
        wider = replace(TINY, model=replace(TINY.model, hidden=9)).build()
        save_weights(wider, tmp_path / "w")
        with pytest.raises(ValueError, match=r"load_weights: .*w holds another model's weights"):
            load_weights(TINY.build(), tmp_path / "w")

    def test_a_pickle_is_never_opened(self, model, tmp_path):
        torch.save(model.state_dict(), tmp_path / "w")
        with pytest.raises(ValueError, match="is damaged"):
            load_weights(model, tmp_path / "w")

    def test_a_folder_that_cannot_be_made_is_refused(self, model, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            save_weights(model, tmp_path / "file" / "w")


class TestLoad:
    def test_a_run_of_ones_own_goes_before_what_ships(self, folder, tmp_path):
        runs, mine = tmp_path / "runs", other().f_class[0].weight
        shipped_one = load("tiny", runs=runs).state_dict()
        assert not torch.equal(shipped_one["f_class.0.weight"], mine)
        save_weights(other(), runs / "tiny" / "weights.safetensors")
        assert torch.equal(load("tiny", runs=runs).state_dict()["f_class.0.weight"], mine)
        (folder / "tiny.safetensors").unlink()
        assert torch.equal(load("tiny", runs=runs).state_dict()["f_class.0.weight"], mine)

    def test_gives_the_stored_model_ready_to_use(self, folder):
        model = load("tiny")
        assert not model.training
        stored = load_file(folder / "tiny.safetensors")
        for name, value in model.state_dict().items():
            assert torch.equal(value, stored[name].float())

    def test_shipped_names_the_recipes_that_have_a_file(self, folder):
        assert shipped() == ["tiny"]
        (folder / "unknown.safetensors").touch()
        assert shipped() == ["tiny"]

    def test_a_joined_recipe_is_its_two_parts(self, folder, monkeypatch):
        reader = ReaderConfig(size=4, hidden=8, shrink=8)
        one = replace(TINY, task=HouseNumbers(), model=reader)
        two = replace(one, name="back", model=replace(reader, direction="right-to-left"), seed=1)
        both = replace(
            one, name="both", model=JoinedReaderConfig(reader), updates=0, joins=("tiny", "back")
        )
        for recipe in (one, two, both):
            monkeypatch.setitem(experiments.RECIPES, recipe.name, recipe)
        save_weights(one.build(), folder / "tiny.safetensors")
        assert shipped() == ["tiny"]
        with pytest.raises(FileNotFoundError, match="no weights ship for 'back'"):
            load("both")
        save_weights(two.build(), folder / "back.safetensors")
        assert shipped() == ["tiny", "back", "both"]
        joined = load("both")
        assert all(value.is_meta for value in load("both", "meta").state_dict().values())
        assert not joined.training
        for part, recipe in ((joined.rightwards, one), (joined.leftwards, two)):
            expected = recipe.build().state_dict()
            assert all(torch.equal(v, expected[k]) for k, v in part.state_dict().items())

    @pytest.mark.parametrize(
        ("typo", "meant"), [("digits", "digit"), ("digit_context", "digit-context")]
    )
    def test_an_unknown_name_suggests_the_nearest(self, typo, meant):
        with pytest.raises(KeyError, match=f"did you mean '{meant}'"):
            load(typo)

    def test_a_recipe_without_weights_says_how_to_train_it(self, folder):
        with pytest.raises(FileNotFoundError, match="train it with `ramlib train digit`"):
            load("digit")


class TestStartFrom:
    def test_copies_what_fits_and_names_what_does_not(self):
        wide = replace(TINY, task=replace(TINY.task, target="pair")).build()
        state = {name: value.clone() for name, value in other().state_dict().items()}
        last = wide.state_dict()["f_class.2.weight"].clone()
        fresh = start_from(wide, state)
        assert fresh == ["f_class.2.bias", "f_class.2.weight"]
        assert torch.equal(wide.state_dict()["f_class.2.weight"], last)
        for name in set(state) - set(fresh):
            assert torch.equal(wide.state_dict()[name], state[name])

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
    save_weights(replace(TINY, seed=5).build(), tmp_path / "tiny.safetensors", precision="float16")
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
        save_weights(model, tmp_path / "w.safetensors", precision="float16")
        again = other()
        load_weights(again, tmp_path / "w.safetensors")
        for name, value in model.state_dict().items():
            assert again.state_dict()[name].dtype == torch.float32
            assert torch.equal(again.state_dict()[name], value.half().float())

    def test_half_precision_takes_half_the_space(self, model, tmp_path):
        (
            save_weights(model, tmp_path / "full"),
            save_weights(model, tmp_path / "half", precision="float16"),
        )
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


class Rows(torch.nn.Module):
    """A matrix that is large enough for eight bits, and all else that a model may hold."""

    def __init__(self, values=None):
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.randn(8, 3000) if values is None else values)
        self.filters = torch.nn.Parameter(torch.randn(64, 16, 5, 5))
        self.small = torch.nn.Parameter(torch.randn(6, 256))
        self.bias = torch.nn.Parameter(torch.randn(5000))
        self.reach = torch.nn.Parameter(torch.tensor(1.1))
        self.register_buffer("seen", torch.tensor(2**40 + 1))
        self.register_buffer("table", torch.arange(5000).view(50, 100))


def returned(module, path, precision="int8"):
    save_weights(module, path, precision=precision)
    again = Rows(torch.zeros_like(module.matrix)).to(module.matrix.dtype)
    load_weights(again, path)
    return again.state_dict()


class TestEightBits:
    def test_every_weight_is_within_half_a_step_of_its_row(self, tmp_path):
        rows = Rows()
        back = returned(rows, tmp_path / "w")
        for name in ("matrix", "filters"):
            value = rows.state_dict()[name]
            for row, stored in zip(value.flatten(1), back[name].flatten(1), strict=True):
                step = row.abs().max() / 127
                assert (row - stored).abs().max() <= step / 2 * 1.01  # the step is rounded, too
                assert (row - stored).abs().max() >= step / 4  # in eight bits, not in more

    def test_in_blocks_a_weight_is_within_half_a_step_of_its_64_neighbours(self, tmp_path):
        rows = Rows()
        back = returned(rows, tmp_path / "w", "int8-blocks")
        for name in ("matrix", "filters"):  # of 3,000 numbers in a row, and of 400: no whole blocks
            values = rows.state_dict()[name].flatten(1)
            blocks = values.split(64, 1), back[name].flatten(1).split(64, 1)
            for value, stored in zip(*blocks, strict=True):
                step = value.abs().amax(1, keepdim=True) / 127
                assert ((value - stored).abs() <= step / 2 * 1.01).all()

    def test_in_blocks_one_huge_value_harms_its_own_block_alone(self, tmp_path):
        values = torch.full((8, 3000), 0.5)
        values[1, 70] = 60_000
        back = returned(Rows(values), tmp_path / "w", "int8-blocks")["matrix"]
        assert (back[1, 64:70] == 0).all()
        assert back[1, :64] == pytest.approx(values[1, :64], rel=1e-3)
        assert back[1, 128:] == pytest.approx(values[1, 128:], rel=1e-3)

    def test_values_by_hand(self, tmp_path):
        values = torch.zeros(8, 3000)
        # A step of 1/8: 15.875 = 127 steps, and 0.3 = 2.4 steps, which are 2 as a whole number.
        values[0, :4] = torch.tensor([15.875, -15.875, 0.3, -0.3])
        back = returned(Rows(values), tmp_path / "w")["matrix"]
        assert back[0, :5].tolist() == [15.875, -15.875, 0.25, -0.25, 0.0]

    def test_a_row_of_zeros_stays_so_and_one_huge_value_harms_its_own_row_alone(self, tmp_path):
        values = torch.full((8, 3000), 0.5)
        values[0] = 0
        values[1, 7] = 60_000
        back = returned(Rows(values), tmp_path / "w")["matrix"]
        assert (back[0] == 0).all()
        assert back[1, 7] == pytest.approx(60_000, rel=1e-3)
        assert (back[1, :7] == 0).all()  # half a step is 236
        assert back[2:] == pytest.approx(values[2:], rel=1e-3)

    def test_tiny_rows_are_kept_to_within_half_the_least_step(self, tmp_path):
        values = torch.randn(8, 3000) * torch.logspace(-9, -2, 8)[:, None]
        back = returned(Rows(values), tmp_path / "w")["matrix"]
        step = (values.abs().amax(1) / 127).clamp(min=2.0**-14)
        assert ((back - values).abs() <= step[:, None] / 2 * 1.01).all()

    def test_vectors_numbers_and_small_matrices_are_in_half_precision(self, tmp_path):
        rows = Rows()
        back = returned(rows, tmp_path / "w")
        for name in ("small", "bias", "reach"):
            assert torch.equal(back[name], rows.state_dict()[name].half().float())

    def test_whole_numbers_come_back_exactly(self, tmp_path):
        rows = Rows()
        back = returned(rows, tmp_path / "w")
        assert back["seen"] == 2**40 + 1
        assert torch.equal(back["table"], rows.table)

    def test_a_model_in_double_precision_stays_so(self, tmp_path):
        rows = Rows().double()
        back = returned(rows, tmp_path / "w")
        assert back["matrix"].dtype == torch.float64
        single = returned(rows.float(), tmp_path / "w")["matrix"]
        assert torch.equal(back["matrix"], single.double())

    def test_what_was_stored_is_stored_again_unchanged(self, tmp_path):
        rows = Rows()
        rows.load_state_dict(returned(rows, tmp_path / "w"))
        again = returned(rows, tmp_path / "again")
        for name, value in rows.state_dict().items():
            assert torch.allclose(again[name], value, rtol=1e-3, atol=0), name

    def test_takes_a_byte_for_each_weight_and_two_for_each_row(self, tmp_path):
        rows = Rows()
        save_weights(rows, tmp_path / "w", precision="int8")
        stored = load_file(tmp_path / "w")
        matrices = {name for name, value in stored.items() if value.dtype == torch.int8}
        assert matrices == {"matrix", "filters"}
        size = sum(value.nbytes for value in stored.values())
        floats = 6 * 256 + 5000 + 1
        assert size == (8 * 3000 + 64 * 16 * 25) + 2 * (8 + 64) + 2 * floats + 8 * 5001

    @pytest.mark.parametrize("precision", ["int8", "int8-blocks", "float16"])
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e9])
    def test_what_is_not_finite_is_refused_and_the_old_file_stays(self, value, precision, tmp_path):
        path = tmp_path / "w"
        save_weights(Rows(), path)
        before = path.read_bytes()
        rows = Rows()
        with torch.no_grad():
            rows.matrix[3, 5] = value
        message = f"save_weights: matrix cannot be stored in {precision}: .* not finite, or too"
        with pytest.raises(ValueError, match=message):
            save_weights(rows, path, precision=precision)
        assert path.read_bytes() == before

    def test_a_flipped_scale_is_found(self, tmp_path):
        path = tmp_path / "w"
        save_weights(Rows(), path, precision="int8")
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        first, _ = json.loads(raw[8 : 8 + length])["matrix/scale"]["data_offsets"]
        at = 8 + length + first
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(ValueError, match="is damaged"):
            load_weights(Rows(), path)

    @pytest.mark.usefixtures("as_installed")
    def test_refuses_a_precision_that_it_does_not_know(self, tmp_path):
        with pytest.raises(
            ValueError, match="must be one of int8, int8-blocks, float16 or None, got 'int4'"
        ):
            save_weights(Rows(), tmp_path / "w", precision="int4")


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_the_file_says_in_what_a_recipe_ships(precision, folder):
    save_weights(TINY.build(), folder / "tiny.safetensors", precision=precision)
    assert weights.shipped_precision("tiny") == precision


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

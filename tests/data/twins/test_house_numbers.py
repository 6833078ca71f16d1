"""The twin: drawn alike from one seed, boxed where it was drawn, common where SVHN is common."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ramlib import cli
from ramlib.data import digit_struct, house_numbers
from ramlib.data.house_numbers import SAMPLE, HouseNumbers
from ramlib.data.twins import house_numbers as house_number_twin
from ramlib.data.twins.house_numbers import (
    DIGITS,
    HEIGHT,
    LARGEST,
    LENGTHS,
    Box,
    around,
    draw_digits,
    draw_image,
    set_number,
    typefaces,
    view,
    write_twin,
)

SEEDS = range(40)


@pytest.fixture(scope="module")
def images():
    return [draw_image(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return write_twin(tmp_path_factory.mktemp("data") / "twin", train=6, test=3, seed=1, quiet=True)


def rng(seed=0):
    return np.random.default_rng(seed)


def bounds(mask):
    """Box around what is more than half covered."""
    rows, columns = np.nonzero(mask > 127)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


class TestTypefaces:
    def test_are_many_and_each_can_be_read(self):
        paths, shares = typefaces()
        assert len(paths) == len(set(paths)) >= 50
        assert all(path.suffix in (".ttf", ".otf") and path.is_file() for path in paths)
        assert shares.sum() == pytest.approx(1)
        assert shares.min() > 0

    def test_a_missing_package_is_named_with_its_cure(self, monkeypatch):
        typefaces.cache_clear()
        found = house_number_twin.find_spec
        monkeypatch.setattr(
            house_number_twin, "find_spec", lambda n: None if n == "font_manrope" else found(n)
        )
        with pytest.raises(FileNotFoundError, match=r"font-manrope are not .*'ramlib\[fonts\]'"):
            typefaces()


class TestDigits:
    def test_lengths_and_digits_are_as_common_as_in_svhn(self):
        source = rng()
        numbers = [draw_digits(source) for _ in range(5_000)]
        lengths = np.bincount([len(number) for number in numbers], minlength=6)[1:] / 5_000
        np.testing.assert_allclose(lengths, LENGTHS, atol=0.025)
        assert lengths[4] > 0
        # The first digit is left out: it is seldom 0.
        digits = np.bincount([d for number in numbers for d in number[1:]], minlength=10)
        np.testing.assert_allclose(digits / digits.sum(), np.array(DIGITS) / sum(DIGITS), atol=0.02)

    def test_few_numbers_begin_with_zero(self):
        source = rng()
        assert np.mean([draw_digits(source)[0] == 0 for _ in range(2_000)]) < 0.02

    def test_shares_are_shares(self):
        assert sum(LENGTHS) == pytest.approx(1)


class TestBoxes:
    @pytest.mark.parametrize("seed", range(12))
    def test_hold_the_ink_before_it_is_viewed(self, seed):
        layer = set_number([3, 8, 0, 1], 40.0, rng(seed))
        ink = np.asarray(layer.masks)[..., 0]
        assert len(layer.boxes) == 4
        np.testing.assert_allclose(bounds(ink), around(layer.boxes), atol=2.5)
        lefts = [box[0] for box in layer.boxes]
        assert lefts == sorted(lefts)

    @pytest.mark.parametrize("seed", range(12))
    def test_hold_the_ink_when_it_is_viewed_from_the_side(self, seed):
        layer = view(set_number([6, 9, 5], 60.0, rng(seed)), rng(seed))
        ink = np.asarray(layer.masks)[..., 0]
        left, top, right, bottom = around(layer.boxes)
        x1, y1, x2, y2 = bounds(ink)
        assert left - 2 <= x1
        assert top - 2 <= y1
        assert x2 <= right + 2
        assert y2 <= bottom + 2
        # The box around a tilted box is larger than the ink, though not by much.
        assert (x2 - x1) * (y2 - y1) > 0.5 * (right - left) * (bottom - top)

    def test_each_digit_has_its_own(self, images):
        for image in images:
            assert len(image.boxes) == len(image.digits)
            assert all(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in image.boxes)

    def test_are_whole_numbers_and_nearly_all_inside(self, images):
        boxes = np.concatenate([image.boxes for image in images])
        assert (boxes % 1 == 0).all()
        sizes = np.concatenate([[image.image.size * 2] * len(image.boxes) for image in images])
        assert ((boxes >= 0) & (boxes <= sizes)).mean() > 0.98

    def test_around_is_the_least_box_that_holds_all(self):
        assert around([Box(1.0, 2.0, 3.0, 4.0), Box(0.0, 3.0, 2.0, 9.0)]) == (0, 2, 3, 9)


class TestImages:
    def test_same_seed_same_image(self, images):
        again = draw_image(SEEDS[3])
        assert again.digits == images[3].digits
        assert again.boxes == images[3].boxes
        assert again.image.tobytes() == images[3].image.tobytes()

    def test_another_seed_gives_another(self, images):
        assert len({image.image.tobytes() for image in images}) == len(images)

    def test_are_colour_of_many_sizes_and_not_too_large(self, images):
        assert {image.image.mode for image in images} == {"RGB"}
        sizes = {image.image.size for image in images}
        assert len(sizes) > 30
        assert max(wide * high for wide, high in sizes) < 1.05 * LARGEST

    def test_a_number_that_is_too_large_itself_is_framed_closely(self):
        number = Box(0.0, 0.0, 700.0, 150.0)
        (wide, high), (x, y) = house_number_twin._frame(number, rng())
        assert 700 <= wide < 760
        assert 150 <= high < 165
        assert 0 <= x < 60
        assert 0 <= y < 15

    def test_digits_are_as_high_as_in_svhn(self, images):
        heights = np.concatenate([[b[3] - b[1] for b in image.boxes] for image in images])
        assert np.median(heights) == pytest.approx(HEIGHT[0], rel=0.35)

    def test_the_number_differs_from_what_it_stands_on(self):
        """Ink against the rest of its boxes, before light and camera: never the same grey."""
        for seed in SEEDS:
            wall, ground, ink = house_number_twin._colours(rng(seed), bool(seed % 2))
            assert wall.shape == ground.shape == ink.shape == (3,)
            assert abs(house_number_twin.GREY @ (ink - ground)) > 40


class TestFolder:
    def test_has_the_official_layout_and_says_that_it_is_a_twin(self, twin):
        assert sorted(path.name for path in twin.iterdir()) == ["test", "train", "twin.json"]
        files = {path.name for path in (twin / "test").iterdir()}
        assert files == {"1.png", "2.png", "3.png", "digitStruct.mat"}
        note = json.loads((twin / "twin.json").read_text())
        assert note == {"synthetic": True, "seed": 1, "train": 6, "test": 3}

    def test_lists_what_was_drawn(self, twin):
        for part, partition in enumerate(("train", "test")):
            listed = digit_struct.read(twin / partition, quiet=True)
            for i, (name, start, count) in enumerate(
                zip(listed.names, listed.starts, listed.counts, strict=True)
            ):
                drawn = draw_image((1, part, i))
                own = slice(start, start + count)
                assert listed.digits[own].tolist() == drawn.digits
                assert listed.boxes[own].tolist() == [list(box) for box in drawn.boxes]
                with Image.open(twin / partition / name) as stored:
                    assert stored.tobytes() == drawn.image.tobytes()

    def test_of_more_images_begins_alike(self, twin, tmp_path):
        longer = write_twin(tmp_path / "longer", train=7, test=1, seed=1, quiet=True)
        for i in range(1, 7):
            name = f"train/{i}.png"
            assert (longer / name).read_bytes() == (twin / name).read_bytes()

    def test_a_palette_makes_smaller_files_of_nearly_the_same_greys(self, twin, tmp_path):
        small = write_twin(tmp_path / "small", train=6, test=1, seed=1, colours=64, quiet=True)
        for i in range(1, 7):
            one, other = twin / f"train/{i}.png", small / f"train/{i}.png"
            assert other.stat().st_size < one.stat().st_size
            greys = [np.asarray(Image.open(path).convert("L"), float) for path in (one, other)]
            assert np.abs(greys[0] - greys[1]).mean() < 3

    def test_is_read_like_svhn(self, twin, tmp_path, monkeypatch):
        monkeypatch.setenv("RAMLIB_CACHE", str(tmp_path))
        task = HouseNumbers("twin", folder=str(twin.parent))
        batch = task.sample(4, split="test", generator=torch.Generator().manual_seed(0))
        assert batch.images.shape == (4, 1, 64, 64)
        assert task.describe() == "synthetic twin of SVHN: 5 train, 1 validation, 3 test"

    def test_is_there_whole_or_not_at_all(self, tmp_path, monkeypatch):
        def fail(*_):
            raise RuntimeError("power cut")

        monkeypatch.setattr(digit_struct, "write", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            write_twin(tmp_path / "twin", train=2, test=1, quiet=True)
        assert list(tmp_path.iterdir()) == []


class TestSample:
    @pytest.fixture(autouse=True)
    def _cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("RAMLIB_CACHE", str(tmp_path))
        house_numbers.load.cache_clear()

    def test_ships_some_hundreds_of_images_in_less_than_three_megabytes(self):
        said = HouseNumbers().describe()
        assert said == "synthetic twin of SVHN (the sample): 234 train, 26 validation, 80 test"
        assert sum(path.stat().st_size for path in SAMPLE.rglob("*")) < 3_000_000

    def test_is_what_the_command_writes(self, tmp_path):
        """`ramlib data house-numbers --train 260 --test 80 --seed 2016 --colours 64`."""
        note = json.loads((SAMPLE / "twin.json").read_text())
        again = write_twin(
            tmp_path / "s", train=3, test=2, seed=note["seed"], colours=64, quiet=True
        )
        shipped = digit_struct.read(SAMPLE / "train", quiet=True)
        listed = digit_struct.read(again / "train", quiet=True)
        digits = len(listed.digits)
        assert shipped.names[:3] == listed.names
        assert shipped.digits[:digits].tolist() == listed.digits.tolist()
        assert shipped.boxes[:digits].tolist() == listed.boxes.tolist()


@pytest.mark.usefixtures("as_installed")
class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train": 1}, "train must be at least 2, got 1"),
            ({"test": 0}, "test must be at least 1, got 0"),
            ({"seed": -1}, "seed must be in [0, 2**31), got -1"),
            ({"colours": 1}, "colours must be in [2, 256] or None, got 1"),
            ({"colours": 257}, "colours must be in [2, 256] or None, got 257"),
        ],
    )
    def test_a_number_out_of_its_range(self, options, message, tmp_path):
        with pytest.raises(ValueError, match=re.escape(f"write_twin: {message}")):
            write_twin(tmp_path / "t", **{"train": 2, "test": 1, "quiet": True, **options})

    def test_a_folder_that_holds_something_is_left_alone(self, twin):
        before = sorted(twin.rglob("*"))
        with pytest.raises(FileExistsError, match=r"write_twin: .*twin exists; choose another"):
            write_twin(twin, train=2, test=1, quiet=True)
        assert sorted(twin.rglob("*")) == before

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            write_twin(tmp_path / "file" / "twin", train=2, test=1, quiet=True)


class TestCommand:
    def test_writes_a_twin_and_says_how_to_name_it(self, twin, tmp_path, capsys):
        arguments = ["--train", "6", "--test", "3", "--seed", "1", "--quiet"]
        assert cli.main(["data", "house-numbers", "--out", str(tmp_path / "t"), *arguments]) == 0
        assert f"RAMLIB_DATA={tmp_path / 't'}" in capsys.readouterr().out
        for path in twin.rglob("*.png"):
            assert (tmp_path / "t" / path.relative_to(twin)).read_bytes() == path.read_bytes()

    def test_refuses_a_folder_that_is_there_in_one_line(self, twin, capsys):
        assert cli.main(["data", "house-numbers", "--out", str(twin), "--quiet"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("ramlib: write_twin: ")
        assert error.count("\n") == 1

    @pytest.mark.parametrize("wrong", ["--train=1", "--test=x", "--seed=-1", "--colours=0"])
    def test_refuses_a_wrong_number(self, wrong, tmp_path, capsys):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["data", "house-numbers", "--out", str(tmp_path / "t"), wrong])
        assert stopped.value.code == 2
        assert "must be a whole number from" in capsys.readouterr().err
        shutil.rmtree(tmp_path / "t", ignore_errors=True)

"""Photographs are cut as they are asked for, refused by name, and kept safely."""

import pwd
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from svhn_files import write_image
from tolerances import assert_near

from ramlib.data import crops
from ramlib.data.crops import (
    cache_folder,
    cache_of,
    cut,
    cut_all,
    expand_boxes,
    mapped,
    open_photograph,
    write_mapped,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("RAMLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def grey_of(colours):
    """Rec. 601's luma in 16-bit fixed point, which is Pillow's."""
    r, g, b = np.moveaxis(colours.astype(np.int64), -1, 0)
    return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16


class TestBoxes:
    def test_grow_about_their_centre_by_a_share_of_their_own_size(self):
        box = np.array([[10, 20, 30, 60]], np.float32)
        assert_near(torch.from_numpy(expand_boxes(box, 0.3)), [[7, 14, 33, 66]])
        assert_near(torch.from_numpy(expand_boxes(box, 1.3)), [[-3, -6, 43, 86]])


class TestCut:
    @pytest.fixture
    def photograph(self, tmp_path):
        colours = np.random.default_rng(0).integers(0, 256, (90, 100, 3), np.uint8)
        write_image(tmp_path / "1.png", colours)
        return tmp_path / "1.png", colours

    def test_without_scaling_is_a_grey_piece(self, photograph):
        path, colours = photograph
        image, frame = cut(path, np.array([10.0, 20, 74, 84]), 64)
        np.testing.assert_array_equal(image, grey_of(colours)[20:84, 10:74])
        assert frame.tolist() == [10, 20, 74, 84]

    def test_is_scaled_along_both_sides_alike_or_not(self, tmp_path):
        """A ramp along x and y stays one: pixel i of 32 is the mean of what it covers."""
        ramp = np.add.outer(np.arange(64.0), 2 * np.arange(48.0))
        write_image(tmp_path / "1.png", ramp)
        image, _ = cut(tmp_path / "1.png", np.array([0.0, 0, 48, 64]), 16)
        y, x = 4 * np.arange(16) + 1.5, 3 * np.arange(16) + 1
        expected = np.add.outer(y, 2 * x)
        np.testing.assert_allclose(image[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1)

    def test_what_leaves_the_photograph_is_cut_off(self, photograph):
        path, _ = photograph
        image, frame = cut(path, np.array([-20.0, 50, 64, 130]), 64)
        assert frame.tolist() == [0, 50, 64, 90]
        inside, _ = cut(path, np.array([0.0, 50, 64, 90]), 64)
        np.testing.assert_array_equal(image, inside)

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
    def test_reads_any_kind_of_png(self, mode, tmp_path):
        values = np.full((20, 20), 255, np.uint8)
        Image.fromarray(values).convert(mode).save(tmp_path / "1.png")
        image, _ = cut(tmp_path / "1.png", np.array([2.0, 2, 18, 18]), 8)
        assert image.shape == (8, 8)
        assert (image == 255).all()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda raw: b"",
            lambda raw: b"<html>404</html>",
            lambda raw: raw[: len(raw) // 2],
            lambda raw: raw[:33] + raw[40:],
            lambda raw: raw[:60] + bytes(40) + raw[100:],
        ],
        ids=["empty", "a web page", "cut short", "a piece missing", "zeros inside"],
    )
    def test_a_damaged_image_is_named_with_its_cure(self, damage, photograph):
        path, _ = photograph
        path.write_bytes(damage(path.read_bytes()))
        message = f"{re.escape(str(path))} cannot be read as an image .*; unpack"
        with pytest.raises(ValueError, match=message):
            cut(path, np.array([0.0, 0, 5, 5]), 8)

    @pytest.mark.parametrize(
        "box", [[-9.0, 0.0, 0.0, 5.0], [100.0, 0.0, 120.0, 5.0], [0.0, 95.0, 9.0, 99.0]]
    )
    def test_a_box_outside_its_image_is_refused_by_name(self, box, photograph):
        message = f"the box {re.escape(str(box))} lies outside .*1.png, whose size is .100, 90."
        with pytest.raises(ValueError, match=message):
            cut(photograph[0], np.array(box), 8)

    def test_no_box_is_the_whole_photograph(self, photograph):
        path, _ = photograph
        whole, frame = cut(path, None, 32)
        named, _ = cut(path, np.array([0.0, 0, 100, 90]), 32)
        assert frame.tolist() == [0, 0, 100, 90]
        np.testing.assert_array_equal(whole, named)

    def test_keeps_colours_where_they_are_asked_for(self, photograph):
        path, colours = photograph
        image, _ = cut(path, np.array([10.0, 20, 74, 84]), 64, "RGB")
        np.testing.assert_array_equal(image, colours[20:84, 10:74])

    @pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
    def test_photographs_of_any_kind_come_out_in_colours(self, mode, tmp_path):
        file = tmp_path / ("1.jpg" if mode == "CMYK" else "1.png")
        Image.new("RGB", (20, 10), (102, 102, 102)).convert(mode).save(file)
        image = np.asarray(open_photograph(file, "RGB"))
        assert image.shape == (10, 20, 3)
        assert abs(image.astype(int) - 102).max() <= 3

    def test_a_truncated_jpeg_is_named(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "1.jpg")
        raw = (tmp_path / "1.jpg").read_bytes()
        (tmp_path / "1.jpg").write_bytes(raw[: len(raw) // 2])
        with pytest.raises(ValueError, match=r"1\.jpg cannot be read as an image"):
            cut(tmp_path / "1.jpg", None, 8, "RGB")


class TestCutAll:
    BOXES = np.array([[0.0, 0, 8, 8], [2, 2, 20, 20], [-5, 1, 9, 30]])

    @pytest.fixture
    def paths(self, tmp_path):
        rng = np.random.default_rng(0)
        folder = tmp_path / "photographs"
        folder.mkdir()
        for i in range(3):
            write_image(folder / f"{i}.png", rng.integers(0, 256, (24, 24, 3), np.uint8))
        return [folder / f"{i}.png" for i in range(3)]

    def all_of(self, paths, mode="RGB"):
        cache = cache_of("a-kind", "here", [paths[0].parent])
        return cut_all(cache, "small", paths, self.BOXES, 8, mode, quiet=True)

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_is_every_cut_in_order(self, mode, paths):
        images, frames = self.all_of(paths, mode)
        for i, path in enumerate(paths):
            image, frame = cut(path, self.BOXES[i], 8, mode)
            np.testing.assert_array_equal(images[i], image)
            np.testing.assert_array_equal(frames[i], frame)

    def test_comes_from_the_cache_the_second_time(self, paths, monkeypatch):
        first = self.all_of(paths)
        monkeypatch.setattr(crops, "cut", None)
        again = self.all_of(paths)
        np.testing.assert_array_equal(again[0], first[0])
        np.testing.assert_array_equal(again[1], first[1])

    def test_grey_and_colours_are_not_taken_for_each_other(self, paths):
        assert self.all_of(paths, "RGB")[0].shape == (3, 8, 8, 3)
        assert self.all_of(paths, "L")[0].shape == (3, 8, 8)


class TestCache:
    def test_is_the_users_usual_one_when_none_is_named(self, monkeypatch):
        monkeypatch.delenv("RAMLIB_CACHE")
        assert cache_folder("a-kind").name == "a-kind"
        assert "ramlib" in str(cache_folder("a-kind"))

    def test_what_was_made_of_older_files_is_removed(self, tmp_path):
        (tmp_path / "data").mkdir()
        old = cache_of("a-kind", "here", [tmp_path / "data"])
        (old / "made").touch()
        (tmp_path / "data" / "new").touch()
        new = cache_of("a-kind", "here", [tmp_path / "data"])
        assert new != old
        assert list(new.parent.iterdir()) == [new]

    def test_two_places_do_not_disturb_each_other(self, tmp_path):
        (tmp_path / "data").mkdir()
        one, other = (cache_of("a-kind", place, [tmp_path / "data"]) for place in "ab")
        assert one != other
        assert one.is_dir()

    def test_an_interrupted_writer_leaves_nothing(self, cache):
        def fill(array):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_mapped(cache / "x.npy", (3,), np.uint8, fill)
        assert list(cache.iterdir()) == []

    def test_an_array_of_another_shape_or_type_is_not_taken(self, cache):
        write_mapped(cache / "x.npy", (3,), np.float16, lambda array: array.fill(2))
        assert mapped(cache / "x.npy", (3,), np.float16).tolist() == [2, 2, 2]
        assert mapped(cache / "x.npy", (4,), np.float16) is None
        assert mapped(cache / "x.npy", (3,), np.float32) is None
        assert mapped(cache / "y.npy", (3,), np.float16) is None


def test_without_a_home_folder_the_cure_is_named(monkeypatch):
    def nobody(_):
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "RAMLIB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FileNotFoundError, match="name a folder as RAMLIB_CACHE"):
        cache_folder("house-numbers")


def test_a_full_disk_is_told_before_anything_is_cut(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"images\.npy needs at least 10\.0 MB, and 5\.0 MB are"):
        write_mapped(tmp_path / "images.npy", (10_000_000,), np.uint8, pytest.fail)
    assert not list(tmp_path.iterdir())

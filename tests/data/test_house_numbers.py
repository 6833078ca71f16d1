"""House numbers: cut as the paper says, split once, cached safely, refused by name."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from svhn_files import some_entries, write_folder, write_image, write_list
from tolerances import assert_near

from ramlib.data import crops, digit_struct, house_numbers
from ramlib.data.crops import cut, expand_boxes
from ramlib.data.house_numbers import (
    CROPS,
    HouseNumbers,
    is_twin,
    load,
    split_rows,
    union_boxes,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and nothing remembered from another test."""
    monkeypatch.setenv("RAMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAMLIB_DATA", raising=False)
    load.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def svhn(tmp_path):
    """Thirty training images and seven test images in the official layout."""
    root = tmp_path / "svhn"
    write_folder(root / "train", some_entries(30), seed=1)
    write_folder(root / "test", some_entries(7, seed=5), seed=2)
    return root


def fresh(root, part="training", crop="tight"):
    load.cache_clear()
    return load(root, part, crop, quiet=True)


def task(root, **options):
    return HouseNumbers("svhn", folder=str(root), **options)


def draw(root, count=8, split="train", seed=0, **options):
    return task(root, **options).sample(
        count, split=split, generator=torch.Generator().manual_seed(seed)
    )


class TestBoxes:
    def test_union_is_the_box_around_all_digits_of_an_image(self, tmp_path):
        digits = [[(1, 9, 4, 5, 20)], [(2, 3, 8, 6, 9), (3, 10, 5, 4, 7), (4, 15, 9, 5, 10)]]
        write_list(tmp_path, [(f"{i}.png", own) for i, own in enumerate(digits)])
        listed = digit_struct.read(tmp_path, quiet=True)
        assert union_boxes(listed).tolist() == [[9, 4, 14, 24], [3, 5, 20, 19]]

    def test_crops_are_those_of_the_paper(self):
        assert (CROPS["tight"].expand, CROPS["tight"].side) == (0.3, 64)
        assert (CROPS["loose"].expand, CROPS["loose"].side) == (1.3, 128)


class TestLoad:
    def test_crops_are_the_grown_unions_in_the_order_of_the_list(self, svhn):
        numbers = fresh(svhn, "test")
        listed = digit_struct.read(svhn / "test", quiet=True)
        boxes = expand_boxes(union_boxes(listed), 0.3)
        assert numbers.names == [f"test/{name}" for name in listed.names]
        for i, name in enumerate(listed.names):
            image, _ = cut(svhn / "test" / name, boxes[i], 64)
            np.testing.assert_array_equal(numbers.images[i], image)

    def test_labels_are_the_digits_then_the_class_of_the_end(self, svhn):
        numbers = fresh(svhn, "test")
        for labels, (_, digits) in zip(numbers.labels, some_entries(7, seed=5), strict=True):
            own = [digit[0] % 10 for digit in digits]
            assert labels.tolist() == own + [10] * (6 - len(own))

    @pytest.mark.parametrize(("crop", "side"), [("tight", 64), ("loose", 128)])
    def test_digit_boxes_are_in_pixels_of_the_crop(self, crop, side, tmp_path):
        """Two digits from (20, 20) to (40, 40): grown to 26 or 46 pixels about (30, 30)."""
        entries = [("1.png", [(1, 20, 20, 10, 20), (2, 30, 22, 10, 18)])]
        write_folder(tmp_path / "test", entries, size=(200, 200))
        boxes = fresh(tmp_path, "test", crop).boxes[0]
        grown = 26 if crop == "tight" else 46
        corner = 30 - grown / 2
        inside = np.array([[20, 20, 30, 40], [30, 22, 40, 40]]) - corner
        assert_near(boxes[:2], inside * side / grown, atol=1e-4, rtol=0)
        assert (boxes[2:] == 0).all()

    def test_a_number_of_six_digits_is_left_out_and_named(self, tmp_path):
        entries = some_entries(4)
        six = ("six.png", [(1 + n, 2 + 6 * n, 5, 5, 9) for n in range(6)])
        write_folder(tmp_path / "test", [*entries[:2], six, *entries[2:]])
        numbers = fresh(tmp_path, "test")
        assert numbers.left_out == ["test/six.png"]
        assert numbers.names == [f"test/{name}" for name, _ in entries]
        assert len(numbers.images) == len(numbers.labels) == len(numbers.boxes) == 4
        lengths = (numbers.labels != 10).sum(1)
        assert lengths.tolist() == [len(digits) for _, digits in entries]

    def test_extra_joins_train_where_it_is_there(self, svhn):
        assert len(fresh(svhn).names) == 30
        write_folder(svhn / "extra", some_entries(20, seed=9), seed=9)
        numbers = fresh(svhn)
        assert len(numbers.images) == 50
        assert numbers.names[29:31] == ["train/30.png", "extra/1.png"]

    def test_more_images_than_one_chunk(self, svhn, monkeypatch):
        whole = fresh(svhn)
        monkeypatch.setattr(crops, "_CHUNK", 7)
        monkeypatch.setattr(crops, "_VERSION", -1)
        assert torch.equal(fresh(svhn).images, whole.images)

    def test_shows_progress_bars_unless_it_is_quiet(self, svhn, capsys):
        load(svhn, "test")
        shown = capsys.readouterr().err
        assert "reading test/digitStruct.mat: 100%" in shown
        assert "cutting tight crops: 100%" in shown
        fresh(svhn)
        assert capsys.readouterr().err == ""


class TestCache:
    @pytest.fixture
    def no_reading(self, monkeypatch):
        """From now on, neither lists nor images can be read."""

        def forbid():
            def fail(*_, **__):
                raise AssertionError("read again")

            monkeypatch.setattr(crops, "cut", fail)
            monkeypatch.setattr(digit_struct, "read", fail)

        return forbid

    def test_is_used(self, svhn, no_reading):
        first = fresh(svhn)
        no_reading()
        again = fresh(svhn)
        assert torch.equal(again.images, first.images)
        assert torch.equal(again.labels, first.labels)
        assert torch.equal(again.boxes, first.boxes)
        assert again.names == first.names

    def test_keeps_the_two_crops_apart(self, svhn, no_reading):
        fresh(svhn, "test", "tight")
        fresh(svhn, "test", "loose")
        no_reading()
        assert fresh(svhn, "test", "tight").images.shape == (7, 64, 64)
        assert fresh(svhn, "test", "loose").images.shape == (7, 128, 128)

    def test_what_is_read_cannot_change_it(self, svhn):
        kept = fresh(svhn).images.clone()
        fresh(svhn).images.zero_()
        assert torch.equal(fresh(svhn).images, kept)

    @pytest.mark.parametrize("change", ["content", "time", "list", "one more"])
    def test_follows_the_files(self, change, svhn, cache):
        fresh(svhn, "test")
        image = svhn / "test" / "3.png"
        if change == "content":
            write_image(image, np.zeros((30, 40)))
        elif change == "time":
            os.utime(image, ns=(1, 1))
        elif change == "list":
            write_list(svhn / "test", some_entries(6, seed=5))
        else:
            (svhn / "test" / "new.png").touch()
        before = {path for path in cache.rglob("*") if path.is_file()}
        numbers = fresh(svhn, "test")
        after = {path for path in cache.rglob("*") if path.is_file()}
        assert len(numbers.images) == (6 if change == "list" else 7)
        assert (numbers.images[2] == 0).all() == (change == "content")
        # What was made of the old files is gone.
        assert len(after) == len(before) == 3
        assert not before & after

    @pytest.mark.parametrize("file", ["index.npz", "tight.npy", "tight-frames.npy"])
    @pytest.mark.parametrize("damage", ["cut short", "empty", "missing", "a pickle"])
    def test_is_made_again_where_it_is_damaged(self, file, damage, svhn, cache):
        kept = fresh(svhn, "test").images.clone()
        (path,) = cache.rglob(file)
        raw = path.read_bytes()
        if damage == "missing":
            path.unlink()
        elif damage == "a pickle":
            with path.open("wb") as handle:
                np.save(handle, np.array([Path("x")], object), allow_pickle=True)
        else:
            path.write_bytes(raw[: len(raw) // 2] if damage == "cut short" else b"")
        assert torch.equal(fresh(svhn, "test").images, kept)
        assert path.read_bytes()[:100] == raw[:100]

    def test_nothing_half_made_stays(self, svhn, cache):
        (svhn / "test" / "5.png").write_bytes(b"")
        with pytest.raises(ValueError, match=r"5\.png"):
            fresh(svhn, "test")
        assert [path.name for path in cache.rglob("*") if path.is_file()] == ["index.npz"]

    def test_a_cache_that_cannot_be_written_is_named_with_its_cure(self, svhn, monkeypatch):
        (svhn / "file").touch()
        monkeypatch.setenv("RAMLIB_CACHE", str(svhn / "file"))
        with pytest.raises(OSError, match=r"the cache .*file.* cannot be written .*RAMLIB_CACHE"):
            fresh(svhn, "test")


class TestSplits:
    @pytest.mark.parametrize(
        ("images", "held_out"), [(2, 1), (30, 3), (2_000, 200), (33_401, 3_340), (235_754, 5_000)]
    )
    def test_validation_is_a_tenth_and_at_most_5000(self, images, held_out):
        rows = {split: split_rows(images, split) for split in ("train", "validation")}
        assert len(rows["validation"]) == held_out
        joined = np.sort(np.concatenate(list(rows.values())))
        np.testing.assert_array_equal(joined, np.arange(images))

    def test_validation_is_drawn_from_all_over_train_and_extra(self):
        rows = split_rows(235_754, "validation")
        assert (rows < 33_401).mean() == pytest.approx(33_401 / 235_754, abs=0.02)

    def test_is_the_same_every_time(self):
        np.testing.assert_array_equal(split_rows(500, "train"), split_rows(500, "train"))

    def test_test_images_are_all_of_the_test_folder(self, svhn):
        numbers, rows = task(svhn).numbers("test")
        assert rows.tolist() == list(range(7))
        assert all(name.startswith("test/") for name in numbers.names)


class TestSample:
    def test_shapes_types_and_ranges(self, svhn):
        batch = draw(svhn, 8)
        assert batch.images.shape == (8, 1, 64, 64)
        assert batch.images.dtype == torch.float32
        assert batch.images.max() > 200
        assert batch.labels.shape == (8, 6)
        assert batch.labels.dtype == torch.int64
        assert batch.boxes.shape == (8, 5, 4)

    def test_same_seed_same_batch(self, svhn):
        one, again, other = (draw(svhn, 20, seed=seed) for seed in (3, 3, 4))
        assert torch.equal(one.images, again.images)
        assert torch.equal(one.labels, again.labels)
        assert not torch.equal(one.images, other.images)

    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    def test_draws_only_from_its_split_and_all_of_it(self, split, svhn):
        numbers, rows = task(svhn).numbers(split)
        allowed = {bytes(numbers.images[row].numpy()) for row in rows}
        batch = draw(svhn, 300, split)
        drawn = {bytes(image.byte().numpy()) for image in batch.images[:, 0]}
        assert drawn == allowed

    def test_images_labels_and_boxes_belong_together(self, svhn):
        numbers, _ = task(svhn).numbers("train")
        where = {bytes(image.numpy()): row for row, image in enumerate(numbers.images)}
        batch = draw(svhn, 30)
        for image, labels, boxes in zip(*batch, strict=True):
            row = where[bytes(image.byte().numpy())]
            assert torch.equal(labels, numbers.labels[row])
            assert torch.equal(boxes, numbers.boxes[row])

    def test_batches_hold_every_image_once_in_order(self, svhn):
        parts = list(task(svhn).batches("test", batch=3))
        assert [len(part.labels) for part in parts] == [3, 3, 1]
        joined = torch.cat([part.images for part in parts])
        assert torch.equal(joined[:, 0].byte(), fresh(svhn, "test").images)

    def test_batches_hold_the_first_images_where_so_many_are_asked_for(self, svhn):
        (part,) = task(svhn).batches("test", 4)
        assert torch.equal(part.images[:, 0].byte(), fresh(svhn, "test").images[:4])

    def test_mean_image_is_that_of_the_training_crops(self, svhn):
        numbers, rows = task(svhn).numbers("train")
        expected = numbers.images.numpy()[rows.numpy()].astype(float).mean(0)
        mean = task(svhn).mean_image()
        assert mean.shape == (1, 64, 64)
        assert_near(mean[0], expected, atol=1e-3, rtol=0)

    def test_a_part_of_the_training_images_leaves_the_other_splits_whole(self, svhn):
        part, whole = task(svhn, only=5), task(svhn)
        assert [len(part.numbers(s)[1]) for s in ("train", "validation", "test")] == [5, 3, 7]
        assert torch.equal(part.numbers("train")[1], whole.numbers("train")[1][:5])

    def test_loose_crops_are_larger(self, svhn):
        assert task(svhn, crop="loose").image_shape == (1, 128, 128)
        assert draw(svhn, 2, crop="loose").images.shape == (2, 1, 128, 128)

    def test_classes_are_the_digits_and_the_end(self):
        assert HouseNumbers().classes == 11


class TestFolder:
    def test_is_named_by_the_argument_or_by_the_environment(self, svhn, monkeypatch):
        assert task(svhn).root == svhn
        monkeypatch.setenv("RAMLIB_DATA", str(svhn))
        assert HouseNumbers("svhn").root == svhn

    def test_may_hold_the_data_in_a_folder_of_its_name(self, svhn, monkeypatch):
        monkeypatch.setenv("RAMLIB_DATA", str(svhn.parent))
        assert HouseNumbers("svhn").root == svhn

    def test_a_twin_is_never_taken_for_photographs(self, svhn):
        assert not is_twin(svhn)
        (svhn / "twin.json").touch()
        assert is_twin(svhn)
        with pytest.raises(FileNotFoundError, match="holds a folder 'train' of photographs"):
            _ = task(svhn).root
        assert HouseNumbers("twin", folder=str(svhn)).root == svhn

    def test_photographs_are_never_taken_for_a_twin(self, svhn):
        with pytest.raises(FileNotFoundError, match="of synthetic images; write it with: ramlib"):
            _ = HouseNumbers("twin", folder=str(svhn)).root

    def test_a_subset_and_a_twin_say_so(self, svhn):
        assert task(svhn).describe() == "SVHN subset: 27 train, 3 validation, 7 test"
        (svhn / "twin.json").touch()
        said = HouseNumbers("twin", folder=str(svhn)).describe()
        assert said == "synthetic twin of SVHN: 27 train, 3 validation, 7 test"

    @pytest.mark.parametrize("images", [33_401, 235_754])
    def test_the_whole_says_that_it_is(self, images, svhn, monkeypatch):
        lengths = {"train": images - 1, "validation": 1, "test": 13_068}
        monkeypatch.setattr(
            HouseNumbers, "numbers", lambda _, split: (None, torch.zeros(lengths[split]))
        )
        assert task(svhn).describe().startswith("SVHN: ")


class TestAugment:
    """A crop is linear in x and y, so that every sampled pixel is known in closed form."""

    ALPHA = 0.2

    def shaken(self, count=40, seed=0):
        x = torch.arange(64.0).expand(64, 64)
        images = (x + 2 * x.T).expand(count, 1, 64, 64)
        boxes = torch.tensor([[20.0, 24, 40, 44], [0, 0, 0, 0]]).expand(count, 2, 4)
        batch = house_numbers.NumberBatch(images, torch.arange(count)[:, None], boxes)
        generator = torch.Generator().manual_seed(seed)
        return house_numbers.shake(batch, self.ALPHA, generator)

    def test_moves_and_scales_boxes_within_the_noise(self):
        box = self.shaken().boxes[:, 0]
        width = box[:, 2] - box[:, 0]
        assert ((width > 20 / 1.2) & (width < 20 / 0.8)).all()
        centre = (box[:, 0] + box[:, 2]) / 2
        # The box's centre is 2 pixels left of the middle; the shift is up to 0.2 * 32 pixels.
        assert ((centre - 32).abs() < (2 + 0.2 * 32) / 0.8).all()
        assert width.std() > 1
        assert centre.std() > 2

    def test_pixels_and_boxes_move_together(self):
        batch = self.shaken()
        for image, box in zip(batch.images[:, 0], batch.boxes[:, 0], strict=True):
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            # Old box: centre (30, 34) from edge to edge, which is pixel (29.5, 33.5).
            seen = image[round(float(y) - 0.5), round(float(x) - 0.5)]
            assert abs(float(seen) - (29.5 + 2 * 33.5)) <= 0.5 * 1.2 * 3

    def test_axes_and_images_move_by_themselves(self):
        box = self.shaken().boxes[:, 0]
        size = box[:, 2:] - box[:, :2]
        assert len(torch.cat([size[:, 0], size[:, 1]]).unique()) == 80

    def test_what_is_no_box_stays_none(self):
        assert (self.shaken().boxes[:, 1] == 0).all()

    def test_same_seed_same_noise(self):
        assert torch.equal(self.shaken().images, self.shaken().images)
        assert not torch.equal(self.shaken().images, self.shaken(seed=1).images)

    def test_only_training_images_are_augmented(self, svhn):
        for split, same in (("train", False), ("validation", True), ("test", True)):
            images = [draw(svhn, split=split, augment=a).images for a in (0.0, 0.1)]
            assert torch.equal(*images) is same

    def test_keeps_grey_levels(self, svhn):
        images = draw(svhn, augment=0.3).images
        assert images.shape == (8, 1, 64, 64)
        assert images.min() >= 0
        assert images.max() <= 255


@pytest.mark.usefixtures("as_installed")
class TestBadInput:
    def test_a_listed_image_that_is_missing_is_named(self, svhn):
        (svhn / "test" / "4.png").unlink()
        (svhn / "test" / "6.png").unlink()
        with pytest.raises(
            FileNotFoundError, match=r"2 of 7 files .* not there, the first is 4\.p"
        ):
            fresh(svhn, "test")

    def test_a_missing_partition_is_named(self, tmp_path):
        (tmp_path / "train").mkdir()
        with pytest.raises(FileNotFoundError, match=r"house_numbers\.load: no folder .*test"):
            fresh(tmp_path, "test")

    def test_no_folder_named(self):
        with pytest.raises(
            FileNotFoundError, match="no folder is named for 'svhn'; name one as RA"
        ):
            _ = HouseNumbers("svhn").root

    def test_a_folder_that_holds_nothing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"unpack train\.tar\.gz and test\.tar\.gz"):
            _ = task(tmp_path / "nowhere").root

    @pytest.mark.parametrize(
        ("name", "message"),
        [("data", "data must be one of sample, twin, svhn"), ("crop", "one of tight, loose")],
    )
    def test_an_unknown_choice(self, name, message):
        with pytest.raises(ValueError, match=f"HouseNumbers: .*{message}, got 'x'"):
            HouseNumbers(**{name: "x"})

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"only": 0}, "only must be at least 1 or None, got 0"),
            ({"augment": -0.1}, r"augment must be in \[0, 1\), got -0.1"),
            ({"augment": 1.0}, r"augment must be in \[0, 1\), got 1.0"),
        ],
    )
    def test_a_setting_out_of_range(self, wrong, message):
        with pytest.raises(ValueError, match=f"HouseNumbers: {message}"):
            HouseNumbers(**wrong)

    def test_an_unknown_split(self, svhn):
        with pytest.raises(ValueError, match="split must be one of train, validation, test, got"):
            draw(svhn, split="extra")

    @pytest.mark.parametrize("count", [0, -1])
    def test_an_empty_batch(self, count, svhn):
        with pytest.raises(ValueError, match=f"count must be at least 1, got {count}"):
            draw(svhn, count)

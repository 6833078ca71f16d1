"""CUB's layout is read as it is, parted once, and refused by name where it is damaged."""

import numpy as np
import pytest
import torch
from cub_files import edit, write_cub
from PIL import Image
from tolerances import assert_near
from torchvision.ops import box_iou

from ramlib.data import birds
from ramlib.data.birds import (
    SAMPLE,
    SIDE,
    Birds,
    centre_inside,
    iou,
    load,
    random_crops,
    read_listing,
    split_rows,
    ten_crops,
)
from ramlib.interface import Rollout


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and nothing remembered from another test."""
    monkeypatch.setenv("RAMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAMLIB_DATA", raising=False)
    load.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def cub(tmp_path):
    """Three classes of six training and two test images."""
    return write_cub(tmp_path / "CUB_200_2011")


def fresh(root):
    load.cache_clear()
    return load(root, quiet=True)


class TestListing:
    def test_numbers_with_gaps_become_rows_and_classes_from_0(self, cub):
        listing = read_listing(cub)
        assert listing.classes == ["007.Kind_0", "008.Kind_1", "009.Kind_2"]
        assert listing.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
        assert listing.training.tolist() == ([1] * 6 + [0] * 2) * 3
        folders = [path.parent.name for path in listing.paths]
        assert folders == [listing.classes[label] for label in listing.labels]

    def test_boxes_become_edges(self, cub):
        assert read_listing(cub).boxes[8].tolist() == [5, 3, 25, 18]

    def test_lists_in_another_order_mean_the_same(self, cub):
        before = read_listing(cub)
        path = cub / "bounding_boxes.txt"
        path.write_text("\n".join(reversed(path.read_text().splitlines())))
        np.testing.assert_array_equal(read_listing(cub).boxes, before.boxes)


class TestPhotographs:
    def test_become_squares_with_their_boxes(self, cub):
        photographs = fresh(cub)
        assert photographs.images.shape == (24, SIDE, SIDE, 3)
        scale = np.array([SIDE / 40, SIDE / 30] * 2)
        np.testing.assert_allclose(photographs.boxes[8], np.array([5, 3, 25, 18]) * scale)

    def test_batch_holds_colours_from_0_to_1_in_their_order(self, cub):
        red = np.zeros((30, 40, 3), np.uint8)
        red[..., 0] = 255
        Image.fromarray(red).save(read_listing(cub).paths[3], quality=95)
        image = fresh(cub).of(np.array([3])).images[0]
        assert image.shape == (3, SIDE, SIDE)
        assert image[0].min() > 0.95
        assert image[1:].max() < 0.05

    def test_crop_cuts_in_the_photographs_own_resolution(self, cub):
        photographs = fresh(cub)
        box = np.array([[64.0, 0, 192, 256]])
        direct, _ = birds.crops.cut(
            photographs.listing.paths[0], np.array([10.0, 0, 30, 30]), SIDE, "RGB"
        )
        (crop,) = photographs.crop(np.array([0]), box)
        np.testing.assert_array_equal((crop * 255).round().permute(1, 2, 0).numpy(), direct)

    def test_a_crop_of_a_point_or_beyond_the_edge_still_has_pixels(self, cub):
        boxes = np.array([[100.0, 100, 100, 100], [300, -50, 400, -10], [-10, -10, 999, 999]])
        crops = fresh(cub).crop(np.array([0, 1, 2]), boxes)
        assert crops.shape == (3, 3, SIDE, SIDE)
        whole = fresh(cub).of(np.array([2])).images[0]
        assert_near(crops[2], whole, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    def test_grey_and_cmyk_are_read_as_colours(self, mode, cub):
        path = read_listing(cub).paths[0]
        Image.new("RGB", (40, 30), (102, 102, 102)).convert(mode).save(path)
        values = fresh(cub).of(np.array([0])).images * 255
        assert (values - 102).abs().max() < 4

    def test_come_from_the_cache_the_second_time(self, cub, monkeypatch):
        first = fresh(cub)
        monkeypatch.setattr(birds.crops, "cut", None)
        np.testing.assert_array_equal(fresh(cub).images, first.images)

    def test_a_box_that_leaves_its_photograph_is_cut_at_the_edge(self, cub):
        edit(cub / "bounding_boxes.txt", "4.0 3.0 20.0 15.0", "30.0 -3.0 20.0 15.0")
        np.testing.assert_allclose(fresh(cub).boxes[0], [192, 0, 256, 12 * 256 / 30])


class TestSplits:
    def test_validation_is_a_sixth_of_each_class_of_the_official_training_images(self, cub):
        listing = read_listing(cub)
        rows = {split: split_rows(listing, split) for split in ("train", "validation", "test")}
        assert np.bincount(listing.labels[rows["validation"]]).tolist() == [1, 1, 1]
        assert (listing.training[rows["validation"]] == 1).all()
        assert rows["test"].tolist() == np.flatnonzero(listing.training == 0).tolist()
        assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(24))

    def test_is_the_same_every_time(self, cub):
        listing = read_listing(cub)
        one, again = (split_rows(listing, "train") for _ in range(2))
        np.testing.assert_array_equal(one, again)

    def test_a_class_of_few_images_gives_none_to_validation(self, tmp_path):
        listing = read_listing(write_cub(tmp_path / "few", train=5))
        assert len(split_rows(listing, "validation")) == 0


class TestTask:
    def test_same_seed_same_batch_of_its_split_alone(self, cub):
        task = Birds("cub", str(cub), 3)
        draws = [
            task.sample(40, split="test", generator=torch.Generator().manual_seed(seed))
            for seed in (3, 3, 4)
        ]
        assert torch.equal(draws[0].images, draws[1].images)
        assert not torch.equal(draws[0].images, draws[2].images)
        allowed = {image.numpy().tobytes() for image in next(task.batches("test")).images}
        assert {image.numpy().tobytes() for image in draws[0].images} == allowed

    def test_batches_hold_every_photograph_once_in_order(self, cub):
        task = Birds("cub", str(cub), 3)
        parts = list(task.batches("test", batch=4))
        assert [len(part.labels) for part in parts] == [4, 2]
        rows = task.rows("test")
        assert torch.cat([part.labels for part in parts]).tolist() == (
            task.photographs.listing.labels[rows].tolist()
        )
        assert len(next(task.batches("test", 3)).labels) == 3

    def test_judges_species_and_the_last_window(self):
        logits = torch.eye(2)[None].repeat(2, 1, 1)  # the last look says class 1
        windows = torch.tensor([[0.0, 0, 256, 256], [0, 0, 100, 100]]).repeat(2, 1, 1)
        batch = birds.BirdBatch(
            torch.zeros(2, 3, SIDE, SIDE),
            torch.tensor([1, 0]),
            torch.tensor([[0.0, 0, 100, 60], [150, 150, 200, 200]]),
        )
        judged = Birds().judge(Rollout(logits, windows), batch)
        assert judged["error"][0].tolist() == [False, True]
        assert judged["missed"][0].tolist() == [False, True]
        assert judged["apart"][0].tolist() == [False, True]
        assert set(Birds().judge(Rollout(logits), batch)) == {"error"}

    def test_a_subset_and_a_twin_say_so(self, cub):
        said = "3 classes: 15 train, 3 validation, 6 test"
        assert Birds("cub", str(cub), 3).describe() == f"CUB-200-2011 subset, {said}"
        (cub / "twin.json").touch()
        told = Birds("twin", str(cub), 3).describe()
        assert told == f"synthetic twin of CUB-200-2011, {said}"

    def test_the_sample_ships_and_needs_no_folder(self):
        task = Birds()
        assert task.root == SAMPLE
        assert task.describe().startswith("synthetic twin of CUB-200-2011 (the sample), 5 classes")
        assert Birds("cub", folder="x").public == task
        files = sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file())
        assert files < 3_000_000

    def test_folder_is_named_by_the_argument_or_by_the_environment(self, cub, monkeypatch):
        assert Birds("cub", str(cub), 3).root == cub
        monkeypatch.setenv("RAMLIB_DATA", str(cub.parent))
        assert Birds("cub").root == cub

    def test_a_twin_is_never_taken_for_photographs(self, cub):
        (cub / "twin.json").touch()
        with pytest.raises(FileNotFoundError, match=r"images\.txt of photographs; unpack CUB"):
            _ = Birds("cub", str(cub), 3).root


class TestBoxes:
    def boxes(self, count=50):
        low = torch.rand(count, 2) * 200
        return torch.cat([low, low + 1 + torch.rand(count, 2) * 50], 1)

    def test_iou_is_torchvisions(self):
        first, second = self.boxes(), self.boxes()
        first[:25] = second[:25] + 7
        expected = box_iou(first.clamp(0, SIDE), second.clamp(0, SIDE)).diagonal()
        assert_near(iou(first, second), expected, atol=1e-6, rtol=0)

    def test_iou_cuts_at_the_border(self):
        window, box = torch.tensor([[-100.0, 0, 128, 256]]), torch.tensor([[0.0, 0, 256, 256]])
        assert iou(window, box).item() == pytest.approx(0.5)

    def test_centre_inside(self):
        box = torch.tensor([[10.0, 10, 20, 20]]).repeat(2, 1)
        windows = torch.tensor([[0.0, 0, 24, 38], [0, 0, 50, 28]])
        assert centre_inside(windows, box).tolist() == [True, False]


class TestCropsForAClassifier:
    def ramp(self, count=64):
        x = torch.arange(32.0)
        plane = x[None] + 100 * x[:, None]
        return plane.expand(count, 3, 32, 32)

    def test_random_crops_are_pieces_half_of_them_mirrored(self):
        cut = random_crops(self.ramp(), 24, generator=torch.Generator().manual_seed(0))
        assert cut.shape == (64, 3, 24, 24)
        step = cut[:, 0, 0, 1] - cut[:, 0, 0, 0]
        assert set(step.tolist()) == {1.0, -1.0}
        assert 16 < (step > 0).sum() < 48
        assert (cut[:, 0, 1, 0] - cut[:, 0, 0, 0] == 100).all()
        corner = cut[:, 0, 0].amin(1)
        assert corner.min() < 200
        assert corner.max() > 600

    def test_ten_crops_are_corners_middle_and_mirrors(self):
        ten = ten_crops(self.ramp(1), 24)
        corners = [crop[0, 0, 0].min().item() for crop in ten[:5]]
        assert corners == [0, 8, 800, 808, 404]
        mirrored = {crop.flip(3).contiguous().numpy().tobytes() for crop in ten[:5]}
        assert {crop.contiguous().numpy().tobytes() for crop in ten[5:]} == mirrored


@pytest.mark.usefixtures("as_installed")
class TestBadInput:
    @pytest.mark.parametrize("name", ["images", "classes", "bounding_boxes"])
    def test_a_missing_list_is_named(self, name, cub):
        (cub / f"{name}.txt").unlink()
        with pytest.raises(FileNotFoundError, match=rf"no file .*{name}\.txt; unpack"):
            read_listing(cub)

    def test_a_missing_image_is_named(self, cub):
        read_listing(cub).paths[5].unlink()
        with pytest.raises(FileNotFoundError, match=r"1 of 24 images .* there, the first is .*jpg"):
            read_listing(cub)

    @pytest.mark.parametrize(
        ("name", "old", "new", "message"),
        [
            ("images", "7 007", "007", r"line 1 of .*images\.txt must be a new number and 1 value"),
            ("images", "9 007", "7 007", r"line 2 of .*images\.txt must be a new number"),
            ("bounding_boxes", "4.0 3.0", "4.0", r"line 1 of .*boxes\.txt must be .* 4 value"),
            ("bounding_boxes", "4.0", "left", r"bounding_boxes\.txt must hold numbers"),
            ("bounding_boxes", "4.0", "nan", r"bounding_boxes\.txt must hold finite numbers"),
            ("train_test_split", "7 1\n", "", r"must list the same images; 1 are in one .*\[7\]"),
            ("image_class_labels", "7 7", "7 99", r"images of the class \[99\], which has no name"),
            ("classes", "7 007", "6 006.Rare\n7 007", r"1 of 4 classes .* is \['006.Rare'\]"),
        ],
    )
    def test_a_damaged_list_is_named(self, name, old, new, message, cub):
        edit(cub / f"{name}.txt", old, new)
        with pytest.raises(ValueError, match=message):
            read_listing(cub)

    def test_a_box_outside_its_photograph_is_named(self, cub):
        edit(cub / "bounding_boxes.txt", "4.0 3.0 20.0 15.0", "41.0 3.0 20.0 15.0")
        with pytest.raises(ValueError, match=r"boxes of 1 images lie outside them, .*_7\.jpg"):
            fresh(cub)

    def test_a_truncated_photograph_is_named(self, cub):
        path = read_listing(cub).paths[2]
        path.write_bytes(path.read_bytes()[:400])
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read as an image"):
            fresh(cub)

    def test_no_folder_named(self):
        with pytest.raises(FileNotFoundError, match="no folder is named for 'cub'; name one as"):
            _ = Birds("cub").root

    def test_an_unknown_choice(self, cub):
        with pytest.raises(ValueError, match="data must be one of sample, twin, cub, got 'x'"):
            Birds("x")
        with pytest.raises(ValueError, match="classes must be at least 2, got 1"):
            Birds(classes=1)
        with pytest.raises(ValueError, match=r"classes must be 3, as in .*CUB_200_2011, got 200"):
            Birds("cub", str(cub), 200).rows("test")
        with pytest.raises(ValueError, match="split must be one of train, validation, test"):
            Birds("cub", str(cub), 3).rows("extra")

    def test_a_batch_of_nothing(self, cub):
        with pytest.raises(ValueError, match="count must be at least 1, got 0"):
            Birds("cub", str(cub), 3).sample(0, generator=torch.Generator())

    def test_a_crop_larger_than_its_photograph(self):
        with pytest.raises(ValueError, match=r"side must be in \[1, 32\], got 33"):
            random_crops(torch.zeros(1, 3, 32, 32), 33, generator=torch.Generator())

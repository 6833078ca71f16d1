"""The twin of CUB: species differ in their parts alone, and a box holds its bird."""

import numpy as np
import pytest
from PIL import Image

from ramlib.data.birds import SAMPLE, read_listing
from ramlib.data.twins.birds import Species, all_species, draw_bird, write_twin


def difference(one, other):
    """Where two images of the same seed differ by more than noise could."""
    gap = np.abs(np.asarray(one.image, int) - np.asarray(other.image, int)).max(-1)
    return np.argwhere(gap > 40)


class TestSpecies:
    def test_are_all_different(self):
        assert len(set(all_species())) == 36

    @pytest.mark.parametrize("part", ["bars", "ring"])
    def test_one_part_changes_a_small_place_on_the_bird(self, part):
        plain = Species("short", 0, "short", False)
        other = plain._replace(**{part: 2 if part == "bars" else True})
        one, two = draw_bird(plain, 3), draw_bird(other, 3)
        where = difference(one, two)
        x1, y1, x2, y2 = one.box
        assert one.box == two.box
        assert len(where) > 5
        assert ((where >= (y1 - 2, x1 - 2)) & (where <= (y2 + 2, x2 + 2))).all()
        assert len(where) < 0.15 * (x2 - x1) * (y2 - y1)

    @pytest.mark.parametrize(("part", "value"), [("bill", "long"), ("tail", "long")])
    def test_a_longer_part_makes_a_longer_bird(self, part, value):
        """The box grows, unless it is at its largest; so it has another shape."""
        plain = Species("short", 0, "short", False)

        def shape(species):
            x1, y1, x2, y2 = draw_bird(species, 3).box
            return (x2 - x1) / (y2 - y1)

        assert shape(plain._replace(**{part: value})) > 1.05 * shape(plain)


class TestDrawBird:
    def test_same_seed_same_image(self):
        kind = all_species()[0]
        one, again, other = (draw_bird(kind, seed) for seed in (1, 1, 2))
        assert one.image.tobytes() == again.image.tobytes()
        assert one.box == again.box
        assert other.image.tobytes() != one.image.tobytes()

    def test_the_bird_is_on_the_picture_in_many_places_and_sizes(self):
        birds = [draw_bird(all_species()[7], seed) for seed in range(24)]
        sides = np.array([bird.image.size for bird in birds])
        boxes = np.array([bird.box for bird in birds])
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= sides).all()
        assert sides.max() == 256
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / sides
        assert (centre.std(0) > 0.06).all()
        share = ((boxes[:, 2:] - boxes[:, :2]) / sides).max(1)
        assert share.min() < 0.5 < share.max()


class TestWriteTwin:
    @pytest.fixture
    def twin(self, tmp_path):
        return write_twin(tmp_path / "twin", train=5, test=3, classes=2, quiet=True)

    def test_is_the_official_layout(self, twin):
        listing = read_listing(twin)
        assert listing.labels.tolist() == [0] * 5 + [1] * 3
        assert listing.training.tolist() == [1, 1, 1, 0, 0, 1, 1, 0]
        for path, box in zip(listing.paths, listing.boxes, strict=True):
            with Image.open(path) as image:
                sides = np.array(image.size)
            assert (box[:2] >= 0).all()
            assert (box[2:] <= sides + 0.1).all()

    def test_more_images_begin_with_the_same(self, twin, tmp_path):
        more = write_twin(tmp_path / "more", train=8, test=3, classes=2, quiet=True)
        one, other = (read_listing(folder) for folder in (twin, more))
        assert one.paths[0].read_bytes() == other.paths[0].read_bytes()
        assert len(other.paths) == 11

    def test_the_sample_is_what_the_command_writes(self):
        """Its boxes, not its bytes: another library of JPEG rounds otherwise."""
        listing = read_listing(SAMPLE)
        bird = draw_bird(all_species()[0], (0, 0, 1, 0))
        np.testing.assert_allclose(listing.boxes[0], bird.box, atol=0.11)

    def test_leaves_nothing_behind_when_it_fails(self, tmp_path, monkeypatch):
        def fail(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("ramlib.data.twins.birds.draw_bird", fail)
        with pytest.raises(KeyboardInterrupt):
            write_twin(tmp_path / "twin", train=2, test=2, classes=2, quiet=True)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_holds_something_is_left_alone(self, tmp_path):
        (tmp_path / "own").touch()
        with pytest.raises(FileExistsError, match="choose another folder"):
            write_twin(tmp_path, train=2, test=2, classes=2)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"classes": 1}, r"classes must be in \[2, 36\], got 1"),
            ({"classes": 37}, r"classes must be in \[2, 36\], got 37"),
            ({"train": 9}, "train must be at least 10, got 9"),
            ({"test": 0}, "test must be at least 10, got 0"),
            ({"seed": -1}, r"seed must be in \[0, 2\*\*31\), got -1"),
            ({"quality": 96}, r"quality must be in \[1, 95\], got 96"),
        ],
    )
    @pytest.mark.usefixtures("as_installed")
    def test_a_number_out_of_range(self, wrong, message, tmp_path):
        with pytest.raises(ValueError, match=f"write_twin: {message}"):
            write_twin(tmp_path / "twin", **{"train": 10, "test": 10, **wrong})

"""The book's figures: what is drawn where, and that nothing is told by colour alone."""

import ast
import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox
from PIL import Image

from ramlib import plots
from ramlib.glimpse import GlimpseGrid
from ramlib.interface import Rollout

LOOKS, SIZE, SIDE = 3, 5, 20


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


@pytest.fixture
def canvas(ax):
    """Axes with a black image."""
    return plots.show_image(ax, torch.zeros(SIDE, SIDE))


@pytest.fixture
def figures():
    yield
    plt.close("all")


def grids(c_x, c_y, delta):
    looks = len(c_x)
    return GlimpseGrid(
        *map(torch.tensor, (c_x, c_y, [delta] * looks, [delta] * looks)),
        torch.ones(looks),
        torch.ones(looks),
    )


def windows(*where):
    """Their windows."""
    return grids(*where).boxes(SIZE, (SIDE, SIDE))


@pytest.fixture(scope="module")
def rollout():
    generator = torch.Generator().manual_seed(0)
    parameters = torch.rand(6, 2, LOOKS, generator=generator)
    return torch.rand(2, 1, SIDE, SIDE, generator=generator), Rollout(
        logits=torch.zeros(2, LOOKS, 10),
        windows=GlimpseGrid(*parameters).boxes(SIZE, (SIDE, SIDE)),
        glimpses=torch.rand(2, LOOKS, 1, SIZE, SIZE, generator=generator),
        shifts=torch.zeros(2, LOOKS, 2),
    )


def rectangles(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def luminance(colour):
    """Relative luminance, WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


class TestShowImage:
    @pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (3, 4, 6)])
    def test_draws_pixels_in_the_coordinates_of_boxes(self, ax, shape):
        plots.show_image(ax, torch.rand(shape))
        left, right, bottom, top = ax.images[0].get_extent()
        assert (left, top, right, bottom) == (0, 0, 6, 4)
        assert ax.get_ylim() == (4, 0)

    def test_keeps_the_pixels(self, ax):
        image = torch.rand(3, 4, 6)
        plots.show_image(ax, image)
        assert torch.equal(torch.as_tensor(ax.images[0].get_array().data), image.permute(1, 2, 0))

    def test_black_is_zero_and_white_is_one(self, ax):
        plots.show_image(ax, torch.full((4, 6), 0.5))
        assert ax.images[0].get_clim() == (0, 1)

    @pytest.mark.usefixtures("as_installed")
    def test_refuses_two_channels(self, ax):
        with pytest.raises(
            ValueError, match=r"show_image: image must have shape .* got \(2, 4, 6\)"
        ):
            plots.show_image(ax, torch.rand(2, 4, 6))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_bytes_look_like_the_same_image_from_0_to_1(self, ax, channels):
        image = torch.randint(256, (channels, 4, 6), dtype=torch.uint8)
        for shown in (image, image.float() / 255):
            plots.show_image(ax, shown)
        of_bytes, of_floats = (drawn.make_image(None, unsampled=True)[0] for drawn in ax.images)
        np.testing.assert_array_equal(of_bytes, of_floats)
        assert of_bytes[..., :3].std() > 30


class TestDrawWindows:
    def test_outlines_the_boxes(self, canvas):
        # A 5 x 5 grid of 2-pixel cells on 20 pixels, centred: from 5 to 15.
        plots.draw_windows(canvas, windows([0.0], [0.0], 2.0))
        (window,) = rectangles(canvas)
        assert window.get_bbox().extents == pytest.approx([5, 5, 15, 15])

    def test_cuts_a_window_at_the_border(self, canvas):
        # Centred on the first column and the last row: half of it is outside.
        plots.draw_windows(canvas, windows([-1.0], [1.0], 2.0))
        (window,) = rectangles(canvas)
        assert window.get_bbox().extents == pytest.approx([0, 14.5, 5.5, 20])

    def test_numbers_the_looks_from_one(self, canvas):
        plots.draw_windows(canvas, windows([0.0, 0.5], [0.0, 0.5], 1.0))
        assert [text.get_text() for text in canvas.texts] == ["1", "2"]

    def test_numbers_stand_beside_their_windows(self, canvas):
        """Each outside its own window, at a corner of its own, so that it hides no digit."""
        plots.draw_windows(canvas, torch.tensor([[6.0, 6.0, 14.0, 14.0]]).expand(4, -1))
        for number in self.places(canvas):
            assert number.y0 >= 13.5 or number.y1 <= 6.5

    def test_a_number_without_room_stands_inside(self, canvas):
        plots.draw_windows(canvas, torch.tensor([[0.0, 0.0, 8.0, 8.0]]))
        (number,) = self.places(canvas)
        assert number.y0 >= 0

    @staticmethod
    def places(canvas):
        """The boxes of the numbers, in pixels of the image, y running down."""
        canvas.figure.draw_without_rendering()
        turn = canvas.transData.inverted()
        boxes = [turn.transform_bbox(text.get_window_extent()) for text in canvas.texts]
        return [Bbox([[b.x0, min(b.y0, b.y1)], [b.x1, max(b.y0, b.y1)]]) for b in boxes]

    def test_takes_labels(self, canvas):
        plots.draw_windows(canvas, windows([0.0], [0.0], 1.0), ["here"])
        assert [text.get_text() for text in canvas.texts] == ["here"]

    def test_refuses_labels_of_another_length(self, canvas):
        with pytest.raises(ValueError, match="draw_windows: labels must have length 1, got 2"):
            plots.draw_windows(canvas, windows([0.0], [0.0], 1.0), ["a", "b"])

    @pytest.mark.usefixtures("as_installed")
    def test_refuses_a_batch_of_rollouts(self, canvas, rollout):
        with pytest.raises(ValueError, match=r"windows must have shape \(T, 4\), got \(2, 3, 4\)"):
            plots.draw_windows(canvas, rollout[1].windows)

    def test_four_looks_differ_in_colour_and_in_style(self):
        lines = [plots.window_line(t) for t in range(4)]
        for one, other in itertools.combinations(lines, 2):
            assert one["edgecolor"] != other["edgecolor"]
            assert one["linestyle"] != other["linestyle"]

    def test_every_colour_stands_out_on_black(self):
        # WCAG asks a contrast of 3 of graphics; black has luminance 0.
        for colour in plots.WINDOW_COLOURS:
            assert (luminance(colour) + 0.05) / 0.05 >= 3


@pytest.mark.usefixtures("figures")
class TestShowRollouts:
    def test_draws_the_image_and_every_glimpse(self, rollout):
        images, result = rollout
        axes = plots.show_rollouts(images, result, ["a", "b"])
        assert axes.shape == (2, LOOKS + 1)
        for b, t in itertools.product(range(2), range(LOOKS)):
            drawn = torch.as_tensor(axes[b, t + 1].images[0].get_array().data)
            glimpse = result.glimpses[b, t, 0]
            assert torch.equal(drawn, glimpse / glimpse.max())  # its brightest cell is white
        assert [axis.get_title() for axis in axes[:, 0]] == ["a", "b"]

    def test_frames_a_glimpse_in_the_colour_of_its_window(self, rollout):
        row = plots.show_rollouts(*rollout)[0]
        for window, axis in zip(rectangles(row[0]), row[1:], strict=True):
            assert axis.spines["left"].get_edgecolor() == window.get_edgecolor()

    def test_refuses_a_row_of_another_length(self, rollout):
        images, result = rollout
        _, axes = plt.subplots(1, LOOKS)
        with pytest.raises(ValueError, match="axes must have length 4 for 3 glimpses, got 3"):
            plots.show_rollout(axes, images[0], result.windows[0], result.glimpses[0])


def test_show_filterbank_has_a_row_per_filter(ax):
    weights = torch.rand(5, 20)
    plots.show_filterbank(ax, weights)
    assert torch.equal(torch.as_tensor(ax.images[0].get_array().data), weights)


@pytest.mark.parametrize("names", [["a", "b"], [1, 2]])
def test_plot_curves_differ_in_colour_and_in_dash(ax, names):
    frame = pd.DataFrame(
        {"x": [0, 1] * 2, "y": [0, 1, 1, 2], "run": [n for n in names for _ in "xy"]}
    )
    plots.plot_curves(frame, "x", "y", "run", ax)
    first, second = ax.lines[:2]
    assert first.get_color() != second.get_color()
    assert first._unscaled_dash_pattern != second._unscaled_dash_pattern


class TestPlotMeasures:
    MEASURES = ({"value": 3.0, "low": 2.5, "high": 4.0}, {"value": 9.0, "low": 8.0, "high": 9.5})

    def test_draws_each_value_between_the_ends_of_its_interval(self, ax):
        plots.plot_measures(ax, ["one", "other"], self.MEASURES)
        (container,) = ax.containers
        dots, _, (bars,) = container
        assert dots.get_xydata().tolist() == [[3, 0], [9, 1]]
        ends = [[list(end) for end in segment] for segment in bars.get_segments()]
        assert ends == [[[2.5, 0], [4, 0]], [[8, 1], [9.5, 1]]]

    def test_the_first_name_is_on_top(self, ax):
        plots.plot_measures(ax, ["one", "other"], self.MEASURES)
        assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "other"]
        assert ax.yaxis_inverted()

    def test_refuses_another_number_of_measures(self, ax):
        with pytest.raises(ValueError, match="measures must have length 1, got 2"):
            plots.plot_measures(ax, ["one"], self.MEASURES)


@pytest.fixture(scope="module")
def frames(rollout, tmp_path_factory):
    images, result = rollout
    animation = plots.animate_rollout(images[0], result.windows[0], result.glimpses[0])
    path = plots.save_animation(animation, tmp_path_factory.mktemp("gif") / "look.gif", seconds=0.5)
    assert [entry.name for entry in path.parent.iterdir()] == ["look.gif"]
    with Image.open(path) as gif:
        found = []
        for index in range(gif.n_frames):
            gif.seek(index)
            found.append((gif.info["duration"], gif.convert("RGB").copy()))
        return found, gif.info["loop"]


class TestAnimation:
    def test_has_a_frame_before_the_looks_and_one_for_each(self, frames):
        assert len(frames[0]) == LOOKS + 1

    def test_every_look_adds_ink(self, frames):
        white = [(np.asarray(frame) > 250).all(-1).sum() for _, frame in frames[0]]
        assert all(later < earlier for earlier, later in itertools.pairwise(white))

    def test_keeps_its_time_and_repeats(self, frames):
        assert {duration for duration, _ in frames[0]} == {500}
        assert frames[1] == 0  # for ever

    def test_leaves_nothing_behind_when_the_folder_is_missing(self, rollout, tmp_path):
        images, result = rollout
        animation = plots.animate_rollout(images[0], result.windows[0], result.glimpses[0])
        with pytest.raises(OSError):
            plots.save_animation(animation, tmp_path / "missing" / "look.gif")
        assert list(tmp_path.iterdir()) == []
        animation._draw_was_started = True  # else matplotlib warns that it was never shown


class TestShowSource:
    def test_is_the_function_without_its_docstring(self):
        shown = plots.show_source(plots.window_line).data
        head, *code, fence = shown.splitlines()
        assert (head, fence) == ("```python", "```")
        (function,) = ast.parse("\n".join(code)).body
        assert function.name == "window_line"
        assert ast.get_docstring(function) is None
        assert '"linestyle": WINDOW_STYLES[t % len(WINDOW_STYLES)],' in shown

    def test_shows_a_method_at_the_margin(self):
        assert plots.show_source(GlimpseGrid.map).data.splitlines()[1].startswith("def map(")


def test_book_style_is_drawn_on_white():
    with mpl.rc_context():
        plots.use_book_style()
        assert mpl.rcParams["figure.facecolor"] == mpl.rcParams["savefig.facecolor"] == "white"

"""The figures to touch: their numbers are PyTorch's, and hand, keys and pen move them."""

import base64
import io
from pathlib import Path

import export_browser
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import ramlib
from ramlib.data.cluttered import ClutteredDigits

STATIC = Path(__file__).resolve().parents[2] / "book" / "_static"


@pytest.fixture
def open_figure(browser, tmp_path):
    """Open a page, from a file, that holds one figure of a kind; wait until it is alive."""
    pages = []

    def open_(kind, **options):
        source = f"""<!doctype html><html lang="en"><title>{kind}</title>
        <link rel="stylesheet" href="{STATIC.as_uri()}/touch.css">
        <figure class="{kind}"><img alt="a still" src="{STATIC.as_uri()}/looking-still.png">
        <figcaption>A caption.</figcaption></figure>
        <script defer src="{STATIC.as_uri()}/touch.js"></script></html>"""
        file = tmp_path / "page.html"
        file.write_text(source, encoding="utf-8")
        page = browser.new_page(**options)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(file.as_uri())
        page.wait_for_selector(".touch canvas")
        pages.append(page)
        return page

    yield open_
    for page in pages:
        assert page.errors == []
        page.close()


# ---- what is written by a tool ----


@pytest.mark.parametrize("name", export_browser.SCRIPTS)
def test_script_is_current(name):
    written = (STATIC / name).read_text(encoding="utf-8")
    assert written == export_browser.SCRIPTS[name](), "run: python tools/export_browser.py"


def canvases(count):
    """Canvases of whole grey levels, as the browser gets them, and their labels."""
    generator = torch.Generator().manual_seed(11)
    batch = ClutteredDigits("digit").sample(count, split="validation", generator=generator)
    return (batch.images * 255).round().to(torch.uint8), batch.labels


def looks_of(model, images):
    with torch.inference_mode():
        return model(images)


def test_rounding_costs_no_answers():
    """The reader in int8 errs as often as the one that ships, to half a percent."""
    images, labels = canvases(1000)
    wrong = []
    for model in (ramlib.load(export_browser.RECIPE), export_browser.rounded_reader()):
        answers = looks_of(model, images / 255).labels
        wrong.append((answers != labels).float().mean().item())
    assert abs(wrong[0] - wrong[1]) <= 0.005


# ---- the model ----


@pytest.mark.pages
def test_model_computes_what_pytorch_computes(open_figure):
    page = open_figure("live-model")
    images, _ = canvases(100)
    rollout = looks_of(export_browser.rounded_reader(), images / 255)
    found = page.evaluate(
        """text => {
          const reader = new Looking.Reader(window.RAMLIB_READER);
          const pixels = Float64Array.from(Touch.bytes(text), value => value / 255);
          return Array.from({ length: 100 }, (_, i) => reader
            .look(pixels.slice(i * 10000, (i + 1) * 10000))
            .map(({ logits, box, g }) => [[...logits], box, [...g]]));
        }""",
        base64.b64encode(images.numpy().tobytes()).decode(),
    )
    for k, expected in enumerate((rollout.logits, rollout.windows, rollout.glimpses.flatten(2))):
        ours = torch.tensor([[look[k] for look in looks] for looks in found])
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.pages
@pytest.mark.parametrize("kind", ["live-model", "live-grid", "live-descent"])
@pytest.mark.parametrize("width", [390, 1366])
def test_pictures_keep_their_shape_and_fit(open_figure, kind, width):
    page = open_figure(kind, viewport={"width": width, "height": 800})
    shapes = page.evaluate(
        """() => [...document.querySelectorAll('.touch canvas')].map(node => {
          const { width, height, right } = node.getBoundingClientRect();
          return [width / height, node.width / node.height, right];
        })"""
    )
    for shown, drawn, right in shapes:
        assert shown == pytest.approx(drawn, rel=0.03)
        assert right <= width


@pytest.mark.pages
def test_page_opens_with_what_the_still_shows(open_figure):
    page = open_figure("live-model")
    image = export_browser.scene_image(export_browser.first_scene())
    rollout = looks_of(export_browser.rounded_reader(), image)
    ours = torch.tensor(state(page)["boxes"])
    torch.testing.assert_close(ours, rollout.windows[0], rtol=0, atol=1e-3)


def state(page):
    """The boxes of the looks, the bars and what is said."""
    page.wait_for_timeout(400)  # the words wait until the hand rests
    return page.evaluate(
        """() => ({
          boxes: document.querySelector('figure').looks.map(look => look.box),
          bars: [...document.querySelectorAll('.touch-bars i')].map(bar => bar.style.height),
          says: document.querySelector('[role=status]').textContent,
        })"""
    )


def on_canvas(page, x, y, selector=".touch-canvas", side=100):
    """Where a pixel of the picture lies on the page."""
    box = page.locator(selector).bounding_box()
    return box["x"] + (x + 0.5) / side * box["width"], box["y"] + (y + 0.5) / side * box["height"]


@pytest.mark.pages
def test_dragging_the_digit_moves_windows_and_bars(open_figure):
    page = open_figure("live-model")
    before = state(page)
    x, y = export_browser.first_scene()["at"]
    page.mouse.move(*on_canvas(page, x + 14, y + 14))
    page.mouse.down()
    page.mouse.move(*on_canvas(page, 30, 50), steps=5)
    page.mouse.up()
    after = state(page)
    left, top, right, bottom = after["boxes"][-1]
    assert abs((left + right) / 2 - 30) < 7
    assert abs((top + bottom) / 2 - 50) < 7
    assert before["boxes"][-1] != after["boxes"][-1]
    assert before["bars"] != after["bars"]
    assert before["says"] != after["says"]


@pytest.mark.pages
def test_arrow_keys_move_the_digit(open_figure):
    page = open_figure("live-model")
    before = state(page)
    page.locator(".touch-canvas").focus()
    for _ in range(10):
        page.keyboard.press("Shift+ArrowDown")
    after = state(page)
    assert after["boxes"][-1][1] > before["boxes"][-1][1] + 20


@pytest.mark.pages
def test_drawing_changes_the_answer(open_figure):
    """A vertical stroke is a 1, whatever stood there."""
    page = open_figure("live-model")
    page.mouse.move(*on_canvas(page, 14, 5, ".touch-pad", 28))
    page.mouse.down()
    page.mouse.move(*on_canvas(page, 13, 23, ".touch-pad", 28), steps=8)
    page.mouse.up()
    assert "says 1 " in state(page)["says"]


@pytest.mark.pages
@pytest.mark.parametrize("kind", ["live-model", "live-grid", "live-descent"])
def test_finger_drags_what_it_meets_and_scrolls_elsewhere(open_figure, kind):
    page = open_figure(
        kind, reduced_motion="reduce", has_touch=True, viewport={"width": 390, "height": 800}
    )
    prevented = page.evaluate(
        """places => places.map(([x, y]) => {
          const canvas = document.querySelector('.touch-canvas');
          const { left, top, width } = canvas.getBoundingClientRect();
          const event = new Event('touchstart', { cancelable: true });
          const [clientX, clientY] = [left + x / 100 * width, top + y / 100 * width];
          Object.defineProperty(event, 'touches', { value: [{ clientX, clientY }] });
          canvas.dispatchEvent(event);
          return event.defaultPrevented;
        })""",
        [[76, 26], [2, 98]],
    )
    assert prevented == [True, False]


@pytest.mark.pages
def test_shuffle_shows_all_looks_at_once_where_motion_is_unwanted(open_figure):
    page = open_figure("live-model", reduced_motion="reduce")
    page.get_by_role("button", name="Shuffle").click()
    answers = page.locator(".touch-looks span").all_text_contents()
    assert all(answers)
    page.emulate_media(reduced_motion="no-preference")
    page.get_by_role("button", name="Shuffle").click()
    answers = page.locator(".touch-looks span").all_text_contents()
    assert answers[0]
    assert not answers[-1]
    page.wait_for_timeout(2000)
    assert all(page.locator(".touch-looks span").all_text_contents())


# ---- chapters 2 and 3 ----


@pytest.mark.pages
def test_slopes_are_those_of_autograd(open_figure):
    """Losses and gradients of both teachers, for windows of many places and sizes."""
    page = open_figure("live-grid")
    image = canvases(1)[0] / 255
    generator = torch.Generator().manual_seed(0)
    windows = torch.rand(20, 3, generator=generator) * torch.tensor([99, 99, 80]) + 20
    found = page.evaluate(
        """([pixels, windows]) => windows.map(([x, y, width]) => {
          const wanted = Looking.read(pixels, 100, Grids.windowAt(40, 40, width), 12).g;
          const read = Grids.readWithSlopes(pixels, 100, Grids.windowAt(x, y, width));
          return [wanted, null].map(goal =>
            [Grids.lossOf(read.g, goal), ...Grids.push(read, goal)]);
        })""",
        [image.double().flatten().tolist(), windows.double().tolist()],
    )
    for (x, y, width), ours in zip(windows.double(), found, strict=True):
        place = torch.stack([x, y]).requires_grad_()
        centre = 2 * place / 99 - 1
        sizes = [width / 12, width / 12, width / 24 + 0.3, torch.ones_like(width)]

        def read(c, sizes=sizes):
            grid = ramlib.GlimpseGrid(*(value.reshape(1) for value in (*c, *sizes)))
            return ramlib.read_glimpse(image.double(), grid, 12)

        seen, wanted = read(centre), read(torch.full((2,), 2 * 40 / 99 - 1).double())
        for loss, (value, *slopes) in zip(
            ((seen - wanted).square().sum(), -seen.sum()), ours, strict=True
        ):
            expected = torch.autograd.grad(loss, place, retain_graph=True)[0]
            assert value == pytest.approx(loss.item(), abs=1e-6)
            assert slopes == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.pages
def test_descent_is_that_of_pytorch(open_figure):
    page = open_figure("live-descent")
    scene = export_browser.first_scene()
    image = export_browser.scene_image(scene, clutter=False)
    x, y = scene["at"]
    start, target = (float(x), y + 24.0), (x + 13.5, y + 13.5)
    path = page.evaluate(
        """([pixels, start, target]) => {
          const wanted = Looking.read(pixels, 100, Grids.windowAt(...target, 48), 12).g;
          return Grids.descend(pixels, 100, start, 48, wanted).map(({ place }) => place);
        }""",
        [image.flatten().tolist(), start, target],
    )
    expected = export_browser.descent(image, start, target, 48)
    torch.testing.assert_close(torch.tensor(path), expected, rtol=0, atol=0.05)


@pytest.mark.pages
def test_window_follows_hand_keys_and_sliders(open_figure):
    page = open_figure("live-grid")
    grid = lambda: page.evaluate("document.querySelector('figure').grid")  # noqa: E731
    before = grid()
    page.mouse.move(*on_canvas(page, before["x"], before["y"]))
    page.mouse.down()
    page.mouse.move(*on_canvas(page, 50, 60), steps=3)
    page.mouse.up()
    assert grid()["x"] == pytest.approx(50, abs=0.5)
    assert grid()["y"] == pytest.approx(60, abs=0.5)
    page.keyboard.press("Tab")
    page.locator(".touch-canvas").focus()
    page.keyboard.press("ArrowLeft")
    assert grid()["x"] == pytest.approx(48, abs=0.5)
    for name, slider in zip(
        ("delta_x", "delta_y", "sigma", "gamma"), page.get_by_role("slider").all(), strict=True
    ):
        was = grid()[name]
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert grid()[name] > was


@pytest.mark.pages
def test_small_window_feels_nothing_and_a_near_one_finds_the_digit(open_figure):
    page = open_figure("live-descent", reduced_motion="reduce")
    verdict = lambda: page.evaluate("document.querySelector('figure').descent.verdict")  # noqa: E731
    assert verdict() == "It found the digit."
    page.get_by_role("slider").focus()
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
    page.mouse.click(*on_canvas(page, 10, 90))
    assert verdict() == "It felt nothing."
    x, y = export_browser.first_scene()["at"]
    page.mouse.move(*on_canvas(page, 10, 90))
    page.mouse.down()
    page.mouse.move(*on_canvas(page, x + 16, y + 16), steps=4)
    assert page.evaluate("document.querySelector('figure').descent.place[0]") > x
    page.mouse.up()
    assert verdict() == "It found the digit."


# ---- the pages that show them ----


@pytest.mark.parametrize("name", export_browser.PICTURES)
def test_still_is_current(name):
    """Drawn again, the still is the one that the book shows, to a trace of anti-aliasing."""
    export_browser.use_book_style()
    figure = export_browser.PICTURES[name]()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=200, format="png")
    plt.close(figure)
    fresh, stored = (
        np.asarray(Image.open(file).convert("L"), dtype=float)
        for file in (buffer, export_browser.STILLS / name)
    )
    assert fresh.shape == stored.shape
    assert np.abs(fresh - stored).mean() < 1, "run: python tools/export_browser.py"


@pytest.mark.parametrize("script", ["looking.js", "touch.js", "grids.js"])
def test_script_is_short(script):
    assert len((STATIC / script).read_text(encoding="utf-8").splitlines()) <= 350


@pytest.mark.pages
@pytest.mark.parametrize("name", ["intro", "02_glimpse", "04_attention", "06_whole_model"])
def test_built_page_comes_alive_from_a_file(browser, name):
    html = STATIC.parents[1] / "_build" / "html" / "book" / f"{name}.html"
    if not html.exists():
        pytest.skip("build it first: make book")
    page = browser.new_page()
    page.goto(html.as_uri())
    page.wait_for_selector("figure .touch canvas")
    page.close()

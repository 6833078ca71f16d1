"""The figures to touch: their numbers are PyTorch's, and hand, keys and pen move them."""

import base64
from pathlib import Path

import export_browser
import pytest
import torch

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


@torch.inference_mode()
def looks_of(model, images):
    looks = model.looks(images)
    logits = model.f_class(torch.stack([look.state.h1 for look in looks], 1))
    boxes = [look.grid.boxes(model.config.size, images.shape[-2:]) for look in looks]
    return logits, torch.stack(boxes, 1), torch.stack([look.glimpse for look in looks], 1)


def test_rounding_costs_no_answers():
    """The reader in int8 errs as often as the one that ships, to half a percent."""
    import ramlib

    images, labels = canvases(1000)
    wrong = []
    for model in (ramlib.load(export_browser.RECIPE), export_browser.rounded_reader()):
        answers = looks_of(model, images / 255)[0][:, -1].argmax(-1)
        wrong.append((answers != labels).float().mean().item())
    assert abs(wrong[0] - wrong[1]) <= 0.005


# ---- the model ----


@pytest.mark.pages
def test_model_computes_what_pytorch_computes(open_figure):
    page = open_figure("live-model")
    images, _ = canvases(100)
    logits, boxes, glimpses = looks_of(export_browser.rounded_reader(), images / 255)
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
    for k, expected in enumerate((logits, boxes, glimpses.flatten(2))):
        ours = torch.tensor([[look[k] for look in looks] for looks in found])
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


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
    page.mouse.move(*on_canvas(page, 30, 70), steps=5)
    page.mouse.up()
    after = state(page)
    left, top, right, bottom = after["boxes"][-1]
    assert abs((left + right) / 2 - 30) < 6
    assert abs((top + bottom) / 2 - 70) < 6
    assert before["boxes"] != after["boxes"]
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
def test_finger_drags_the_digit_and_scrolls_elsewhere(open_figure):
    page = open_figure("live-model", has_touch=True, viewport={"width": 390, "height": 800})
    prevented = page.evaluate(
        """([x, y]) => [[x, y], [2, 2]].map(([px, py]) => {
          const scene = document.querySelector('.touch-canvas');
          const { left, top, width } = scene.getBoundingClientRect();
          const touch = new Touch_({ identifier: 0, target: scene,
            clientX: left + px / 100 * width, clientY: top + py / 100 * width });
          const event = new TouchEvent('touchstart', { touches: [touch], cancelable: true });
          scene.dispatchEvent(event);
          return event.defaultPrevented;
        })""".replace("Touch_", "window.Touch_"),
        [76, 26],
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

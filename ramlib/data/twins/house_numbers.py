"""A synthetic twin of SVHN, written in SVHN's own format.

Every image is drawn from a seed of its own: digits in one of many open typefaces, on a plate or on
the wall, seen a little from the side, among signs that do not belong to the number; then shadow,
blur, noise and JPEG's marks fall on it. What is common and what is rare follows the first 2,000
training photographs of SVHN: how long the numbers are and which digits they hold, how high the
digits stand in pixels, how wide and how sloped they are, and how much lies around them.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import tempfile
from collections.abc import Iterable
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ramlib._checks import require
from ramlib._extras import bar, needs, quietly
from ramlib._files import as_path, room, usual_rights
from ramlib.data import digit_struct
from ramlib.data.digit_struct import DigitStruct
from ramlib.data.house_numbers import TWIN_MARK

with needs("train"):
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

Colour = Float[np.ndarray, " 3"]
Plane = Float[np.ndarray, "height width"]
Picture = Float[np.ndarray, "height width 3"]

# Shares of the lengths 1 to 5, and counts of the digits 0 to 9, in 2,000 training photographs of
# SVHN. None of them has five digits; few of the others have.
LENGTHS = (0.136, 0.552, 0.264, 0.044, 0.004)
DIGITS = (315, 871, 603, 507, 463, 428, 326, 321, 326, 274)
# Height of a digit in pixels: median, spread on a logarithmic scale, least and largest.
HEIGHT = (30.0, 0.5, 11.0, 110.0)
# What lies around the number, in widths or heights of the number: median, spread, least, largest.
BESIDE, ABOVE = (1.2, 0.55, 0.05, 4.0), (0.3, 0.9, 0.0, 2.5)
LARGEST = 60_000  # pixels in an image
GREY = np.array([0.299, 0.587, 0.114])  # the eye's shares of red, green and blue (Rec. 601)

# Package: its share of the images, and which of its typefaces are left out, by the end of the name.
TYPEFACES: dict[str, tuple[float, tuple[str, ...]]] = {
    "font_source_sans_pro": (0.17, (".otf", "ExtraLight.ttf", "ExtraLightIt.ttf")),
    "font_source_serif_pro": (0.15, (".otf", "ExtraLight.ttf", "ExtraLightIt.ttf")),
    "font_hanken_grotesk": (0.15, ("LightItalic.otf",)),
    "font_manrope": (0.09, ("wght.ttf", "ExtraLight.ttf")),
    "font_caladea": (0.10, ("-",)),
    "font_fredoka_one": (0.03, ("-",)),
    "font_amatic_sc": (0.02, ("Regular.ttf",)),
    "font_intuitive": (0.02, ("-",)),
}
MATPLOTLIB_SHARE = 0.27
MATPLOTLIB = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic", "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBol",
    "STIXGeneralBolIta", "STIXGeneralItalic", "cmb10", "cmr10", "cmss10",
)  # fmt: skip


class Box(NamedTuple):
    """A box in pixels: its edges."""

    left: float
    top: float
    right: float
    bottom: float


class HouseNumber(NamedTuple):
    """One image of the twin, its digits from left to right and their boxes, xyxy in pixels."""

    image: Image.Image
    digits: list[int]
    boxes: list[Box]


# ---- typefaces ----


@lru_cache(maxsize=1)
def typefaces() -> tuple[list[Path], Float[np.ndarray, " faces"]]:
    """The files of all typefaces, and the share of the images that each is chosen for.

    Raises:
        FileNotFoundError: if a package of typefaces is not installed.
    """
    paths, shares = [], []
    for package, (share, left_out) in {**TYPEFACES, "matplotlib": (MATPLOTLIB_SHARE, ())}.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise FileNotFoundError(
                f"house_number_twin: the typefaces of {package.replace('_', '-')} are not "
                "installed; install them with: pip install 'ramlib[fonts]'"
            )
        home = Path(spec.origin).parent
        if package == "matplotlib":
            own = [home / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf" for name in MATPLOTLIB]
        else:
            files = sorted((home / "files").glob("*.[ot]tf"))
            own = [path for path in files if not path.name.endswith(left_out)]
        paths += own
        shares += [share / len(own)] * len(own)
    return paths, np.array(shares) / sum(shares)


@lru_cache(maxsize=512)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


# ---- the number, seen from the front ----


class Layer(NamedTuple):
    """A number without colours.

    `masks` has four bands: the number's ink, its plate, the plate's border, and what does not
    belong to it. `boxes` are the digits', in its pixels.
    """

    masks: Image.Image
    boxes: list[Box]


class Type(NamedTuple):
    """How a number is set: font, boldness in pixels, and factor on the width."""

    font: ImageFont.FreeTypeFont
    stroke: int
    width: float

    def mask(self, sign: str) -> Image.Image:
        """A sign as a mask without margins."""
        left, top, right, bottom = self.font.getbbox(sign, stroke_width=self.stroke)
        size = math.ceil(right - left), math.ceil(bottom - top)
        mask = Image.new("L", size)
        place = (-left, -top)
        ImageDraw.Draw(mask).text(place, sign, 255, self.font, stroke_width=self.stroke)
        # The font's own box includes the distance to the next sign.
        mask = mask.crop(mask.getbbox())
        wide = max(2, round(mask.width * self.width))
        return mask.resize((wide, mask.height), Image.Resampling.BILINEAR)


def _between(rng: np.random.Generator, median: float, spread: float, low: float, high: float):
    """A number from a log-normal distribution, held between `low` and `high`."""
    return float(np.clip(median * math.exp(rng.normal(0, spread)), low, high))


def draw_digits(rng: np.random.Generator) -> list[int]:
    """A number's digits; few numbers begin with 0."""
    count = rng.choice(len(LENGTHS), p=LENGTHS) + 1
    digits = rng.choice(10, size=count, p=np.array(DIGITS) / sum(DIGITS))
    if digits[0] == 0 and rng.random() < 0.9:
        digits[0] = rng.integers(1, 10)
    return digits.tolist()


def around(boxes: Iterable[Box]) -> Box:
    """The box around several."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return Box(min(lefts), min(tops), max(rights), max(bottoms))


def set_number(digits: list[int], height: float, rng: np.random.Generator) -> Layer:
    """Set the digits side by side, with a plate behind and other signs beside them.

    Args:
        digits: from left to right.
        height: of a digit, in pixels.
        rng: where chance comes from.
    """
    paths, shares = typefaces()
    path = paths[rng.choice(len(paths), p=shares)]
    kind = Type(
        _font(path, max(8, round(height / 0.7))),  # a digit is 0.7 of its font's size high
        round(height * rng.choice([0.0, 0.0, 0.02, 0.04])),
        rng.uniform(0.55, 1.0),
    )
    gap = height * rng.choice([rng.uniform(0.0, 0.1), rng.uniform(0.05, 0.4)], p=[0.65, 0.35])
    apart = rng.random() < 0.3  # each digit is screwed to the wall by itself
    slope = rng.uniform(-0.7, 0.4) if rng.random() < 0.06 else rng.normal(0, 0.03)
    glyphs = [kind.mask(str(digit)) for digit in digits]
    if apart:
        turn = partial(Image.Image.rotate, resample=Image.Resampling.BILINEAR, expand=True)
        glyphs = [turn(glyph, angle=rng.normal(0, 4)) for glyph in glyphs]
    span = sum(glyph.width for glyph in glyphs) + gap * (len(glyphs) - 1)
    tallest = max(glyph.height for glyph in glyphs)
    pad = 1.5 * height
    rise = abs(slope) * span / 2
    size = math.ceil(span + 2 * pad), math.ceil(tallest + 2 * pad + 2 * rise)
    ink = Image.new("L", size)
    boxes, x = [], pad
    for glyph in glyphs:
        y = pad + rise + tallest - glyph.height + slope * (x + glyph.width / 2 - pad - span / 2)
        y += rng.normal(0, 0.04) * height * apart
        ink.paste(255, (round(x), round(y)), glyph)
        boxes.append(Box(x, y, x + glyph.width, y + glyph.height))
        x += glyph.width + gap
    plate, border = _draw_plate(size, around(boxes), height, rng)
    others = _draw_others(size, around(boxes), kind, height, rng)
    return Layer(Image.merge("CMYK", (ink, plate, border, others)), boxes)


def _draw_plate(
    size: tuple[int, int], number: Box, height: float, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """The plate and the line along its edge; either may be missing."""
    plate, border = Image.new("L", size), Image.new("L", size)
    shape = rng.choice(["none", "rectangle", "rounded", "ellipse"], p=[0.35, 0.35, 0.22, 0.08])
    margin_x, margin_y = rng.uniform(0.08, 0.7, 2) * height
    radius = rng.uniform(0.1, 0.4) * height
    line = round(height * rng.uniform(0.03, 0.1)) * (rng.random() < 0.5)
    left, top, right, bottom = number
    box = (
        max(left - margin_x, 0),
        max(top - margin_y, 0),
        min(right + margin_x, size[0] - 1),
        min(bottom + margin_y, size[1] - 1),
    )
    options = [(plate, {"fill": 255})]
    if line:
        options.append((border, {"outline": 255, "width": line}))
    for mask, option in options:
        draw = ImageDraw.Draw(mask)
        if shape == "rectangle":
            draw.rectangle(box, **option)
        elif shape == "rounded":
            draw.rounded_rectangle(box, radius, **option)
        elif shape == "ellipse":
            draw.ellipse(box, **option)
    return plate, border


def _draw_others(
    size: tuple[int, int], number: Box, kind: Type, height: float, rng: np.random.Generator
) -> Image.Image:
    """What does not belong to the number: another sign, strokes, screws."""
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    left, top, right, bottom = number
    if rng.random() < 0.15:
        glyph = kind.mask(str(rng.choice(list("0123456789ABCDENRS-"))))
        distance = rng.uniform(0.25, 0.8) * height
        x = right + distance if rng.random() < 0.5 else left - distance - glyph.width
        mask.paste(255, (round(x), round(top + rng.normal(0, 0.1) * height)), glyph)
    for _ in range(rng.integers(1, 4) if rng.random() < 0.3 else 0):
        away, length = rng.uniform((0.1, 0.3), (0.8, 3.0)) * height
        y = top - away if rng.random() < 0.5 else bottom + away
        x, lean = rng.uniform(0, size[0]), rng.normal(0, 0.1) * height
        width = max(1, round(rng.uniform(0.02, 0.12) * height))
        draw.line((x, y, x + length, y + lean), 255, width)
    if rng.random() < 0.12:
        radius = rng.uniform(0.03, 0.07) * height
        for x in (left - 0.3 * height, right + 0.3 * height):
            y = (top + bottom) / 2
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), 255)
    return mask


# ---- the view ----


def _projection(boxes: list[Box], rng: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """From the layer's pixels to where they are seen, about the middle of the boxes."""
    left, top, right, bottom = around(boxes)
    reach = max(right - left, bottom - top)
    angle = math.radians(rng.normal(0, 12) if rng.random() < 0.1 else rng.normal(0, 3))
    cos, sin = math.cos(angle), math.sin(angle)
    to_middle = np.array([[1, 0, -(left + right) / 2], [0, 1, -(top + bottom) / 2], [0, 0, 1]])
    shear = np.array([[1, rng.normal(0, 0.08), 0], [0, 1, 0], [0, 0, 1]])
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    aside = np.eye(3)
    aside[2, :2] = rng.normal(0, (0.15, 0.06)) / reach
    return aside @ turn @ shear @ to_middle


def _seen(box: Box, projection: Float[np.ndarray, "3 3"]) -> Box:
    """The upright box around a box that is seen through a projection."""
    x1, y1, x2, y2 = box
    corners = projection @ np.array([[x1, x2, x1, x2], [y1, y1, y2, y2], [1, 1, 1, 1]])
    x, y = corners[:2] / corners[2]
    return Box(float(x.min()), float(y.min()), float(x.max()), float(y.max()))


def _frame(number: Box, rng: np.random.Generator) -> tuple[tuple[int, int], tuple[float, float]]:
    """Size of the image around a number, and where the number's corner lies in it."""
    left, top, right, bottom = number
    wide, high = right - left, bottom - top
    margins = [wide * _between(rng, *BESIDE) for _ in range(2)]
    margins += [high * _between(rng, *ABOVE) for _ in range(2)]
    # An image that would be too large loses margin on all sides alike, down to the number itself.
    for _ in range(20):
        if (wide + margins[0] + margins[1]) * (high + margins[2] + margins[3]) <= LARGEST:
            break
        margins = [0.8 * margin for margin in margins]
    size = round(wide + margins[0] + margins[1]), round(high + margins[2] + margins[3])
    return size, (margins[0], margins[2])


def view(layer: Layer, rng: np.random.Generator) -> Layer:
    """See a layer a little from the side, with something around the number."""
    projection = _projection(layer.boxes, rng)
    number = around(_seen(box, projection) for box in layer.boxes)
    size, (x, y) = _frame(number, rng)
    to_frame = np.array([[1, 0, x - number[0]], [0, 1, y - number[1]], [0, 0, 1]])
    projection = to_frame @ projection
    # Pillow asks the other way round: where in the layer each pixel of the image comes from.
    back = np.linalg.inv(projection)
    back = tuple((back / back[2, 2]).ravel()[:8])
    how = Image.Transform.PERSPECTIVE
    masks = layer.masks.transform(size, how, back, Image.Resampling.BICUBIC)
    return Layer(masks, [_seen(box, projection) for box in layer.boxes])


# ---- colours, light and the camera ----


def _shade(rng: np.random.Generator, low: float, high: float, tint: float) -> Colour:
    """A grey between `low` and `high` of 255, tinted."""
    return rng.uniform(low, high) + rng.normal(0, tint, 3)


def _colours(rng: np.random.Generator, on_plate: bool) -> tuple[Colour, Colour, Colour]:
    """Wall, what the number stands on, and ink."""
    wall = _shade(rng, 40.0, 220.0, 12.0) + rng.uniform(0, 30) * np.array([1.0, 0.3, -0.7])
    dark, light = _shade(rng, 5.0, 70.0, 10.0), _shade(rng, 185.0, 250.0, 10.0)
    kind = rng.choice(["blue", "dark", "light", "any"], p=[0.28, 0.2, 0.4, 0.12])
    if not on_plate:
        ground = wall
        ink = dark if wall.mean() > rng.normal(125, 20) else light
    elif kind == "blue":
        ground, ink = np.array([25, 45, 120]) + rng.normal(0, 18, 3), light
    elif kind == "dark":
        ground = _shade(rng, 15.0, 80.0, 14.0)
        ink = np.array([205, 165, 90]) + rng.normal(0, 15, 3) if rng.random() < 0.3 else light
    elif kind == "light":
        ground, ink = light, dark + (rng.random() < 0.3) * np.array([0, 10, 70])
    else:
        ground, ink = rng.uniform(20, 235, 3), rng.uniform(20, 235, 3)
    if abs(GREY @ (ink - ground)) < 60:
        ink = dark if GREY @ ground > 128 else light
    return wall, ground, ink


def _smooth(rng: np.random.Generator, size: tuple[int, int], cell: float) -> Plane:
    """Noise of about unit variance whose spots are `cell` pixels wide."""
    coarse = tuple(max(2, round(side / cell)) for side in size)
    noise = Image.fromarray(rng.normal(0, 1, coarse[::-1]).astype(np.float32))
    return np.asarray(noise.resize(size, Image.Resampling.BICUBIC))


def _wall(
    colour: Colour, size: tuple[int, int], height: float, rng: np.random.Generator
) -> Picture:
    """A wall: spots, grain, and on some walls bricks, boards or an edge."""
    wide, high = size
    level = _smooth(rng, size, height) * rng.uniform(0, 12)
    level = level + _smooth(rng, size, 2.0) * rng.exponential(2.5)
    x, y = np.arange(wide), np.arange(high)[:, None]
    pattern = rng.random()
    if pattern < 0.12:  # bricks
        course, brick = height * rng.uniform(0.4, 1.2), height * rng.uniform(1, 3)
        offset = (y // course % 2) * brick / 2 + rng.uniform(0, brick)
        joint = max(1.0, 0.06 * course)
        seam = (y % course < joint) | ((x + offset) % brick < joint)
        level = level + seam * rng.normal(0, 35)
    elif pattern < 0.28:  # boards
        board = height * rng.uniform(0.4, 2)
        along = x + 0 * y if rng.random() < 0.5 else y + 0 * x
        level = level + (along % board < max(1.0, 0.06 * board)) * rng.normal(-20, 25)
    elif pattern < 0.45:  # an edge: a frame, a door
        at, side = rng.uniform(0, wide), rng.choice([-1, 1])
        tilt = rng.normal(0, 0.1)
        level = level + (side * (x - at - tilt * y) > 0) * rng.normal(0, 60)
    return colour + level[..., None]


def _paint(picture: Picture, mask: Plane, colour: Colour | Picture) -> Picture:
    """Lay a colour on a picture where the mask says."""
    return picture + mask[..., None] * (colour - picture)


def _shifted(mask: Plane, right: int, down: int) -> Plane:
    """A mask moved by whole pixels; what enters is empty."""
    moved = np.zeros_like(mask)
    high, wide = mask.shape
    moved[max(down, 0) : high + min(down, 0), max(right, 0) : wide + min(right, 0)] = mask[
        max(-down, 0) : high - max(down, 0), max(-right, 0) : wide - max(right, 0)
    ]
    return moved


def _compose(masks: Image.Image, height: float, rng: np.random.Generator) -> Picture:
    """Paint wall, plate and number in colours of their own."""
    ink, plate, border, others = np.moveaxis(np.asarray(masks, np.float32) / 255, -1, 0)
    wall, ground, colour = _colours(rng, bool(plate.any()))
    # Some numbers can hardly be told from what they stand on.
    contrast = 1.0 if rng.random() < 0.4 else rng.uniform(0.4, 1)
    colour = ground + contrast * (colour - ground)
    picture = _wall(wall, masks.size, height, rng)
    picture = _paint(picture, plate, ground + _smooth(rng, masks.size, height)[..., None] * 5)
    picture = _paint(picture, border, colour)
    picture = _paint(picture, others, _shade(rng, 10.0, 240.0, 20.0))
    if rng.random() < 0.25:
        far = max(1, round(0.06 * height))
        right, down = (int(rng.integers(-far, far + 1)) for _ in range(2))
        shadow = _shifted(ink, right, down) * rng.uniform(0.2, 0.7)
        picture = _paint(picture, shadow, 0.3 * ground)
    gloss = _smooth(rng, masks.size, height)[..., None] * rng.uniform(0, 15)
    return _paint(picture, ink, colour + gloss)


def _light(picture: Picture, rng: np.random.Generator) -> Picture:
    """Uneven light, a shadow's edge on some images, and the exposure."""
    high, wide = picture.shape[:2]
    x, y = np.linspace(-1, 1, wide), np.linspace(-1, 1, high)[:, None]
    slope_x, slope_y = rng.normal(0, 0.12, 2)
    light = 1 + slope_x * x + slope_y * y
    if rng.random() < 0.12:
        angle, at = rng.uniform(0, 2 * math.pi), rng.normal(0, 0.4)
        edge = (x * math.cos(angle) + y * math.sin(angle) - at) * rng.uniform(5, 40)
        light = light * (1 - rng.uniform(0.2, 0.6) / (1 + np.exp(-edge)))
    lit = picture * light[..., None]
    return 120 + (lit - 120) * rng.uniform(0.6, 1.1) + rng.normal(0, 18)


def _photograph(
    picture: Picture, height: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "height width 3"]:
    """Blur, shake, noise, and the marks of JPEG."""
    if rng.random() < 0.15:
        steps = max(2, round(height * rng.uniform(0.05, 0.16)))
        along_x = rng.random() < 0.85
        high, wide = picture.shape[:2]
        padded = np.pad(picture, ((0, steps), (0, steps), (0, 0)), "edge")
        places = ((0, step) if along_x else (step, 0) for step in range(steps))
        picture = sum(padded[y : y + high, x : x + wide] for y, x in places) / steps
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    blur = height * _between(rng, 0.034, 0.6, 0.006, 0.1)
    image = image.filter(ImageFilter.GaussianBlur(blur))
    noise = rng.normal(0, min(rng.exponential(1.5), 8.0), (image.height, image.width, 1))
    image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=int(rng.integers(40, 93)))
    return np.asarray(Image.open(packed))


def draw_image(seed: int | tuple[int, ...]) -> HouseNumber:
    """One image of the twin; the same seed gives the same image.

    Args:
        seed: a number, or several.

    Raises:
        FileNotFoundError: if a package of typefaces is not installed.
    """
    rng = np.random.default_rng(seed)
    digits, height = draw_digits(rng), _between(rng, *HEIGHT)
    masks, boxes = view(set_number(digits, height, rng), rng)
    photograph = _photograph(_light(_compose(masks, height, rng), rng), height, rng)
    # People drew SVHN's boxes, in whole pixels and not to the pixel.
    drawn = (np.array(boxes) + rng.normal(0, 0.02 * height, (len(boxes), 4))).round()
    drawn[:, 2:] = np.maximum(drawn[:, 2:], drawn[:, :2] + 2)
    return HouseNumber(Image.fromarray(photograph), digits, [Box(*box) for box in drawn.tolist()])


# ---- the folder ----


def write_twin(
    folder: Path | str,
    *,
    train: int,
    test: int,
    seed: int = 0,
    colours: int | None = None,
    quiet: bool = False,
) -> Path:
    """Write a twin: `train` and `test`, each with its images and its `digitStruct.mat`.

    The same seed gives the same images, however many there are.

    Args:
        folder: made here; it must not hold anything yet.
        train: images in `train`, at least 2, since one is for validation.
        test: images in `test`, at least 1.
        seed: of all images.
        colours: in the palette of each file, from 2 to 256. With 64, a file is half as large, and
            its grey levels are off by one on average. None keeps all colours.
        quiet: without progress bars.

    Raises:
        ValueError: if a number is out of its range.
        FileExistsError: if `folder` holds something.
        FileNotFoundError: if a package of typefaces is not installed.
        OSError: if `folder` cannot be written.
    """
    for name, value, least in (("train", train, 2), ("test", test, 1)):
        require(value >= least, f"write_twin: {name} must be at least {least}, got {value}")
    require(0 <= seed < 2**31, f"write_twin: seed must be in [0, 2**31), got {seed}")
    require(
        colours is None or 2 <= colours <= 256,
        f"write_twin: colours must be in [2, 256] or None, got {colours}",
    )
    typefaces()
    folder = as_path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"write_twin: {folder} exists; choose another folder, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The folder appears when it is complete.
    partial_folder = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with room(partial_folder, folder), quietly(quiet):
            for part, (partition, count) in enumerate((("train", train), ("test", test))):
                (partial_folder / partition).mkdir()
                names, drawn = [f"{index + 1}.png" for index in range(count)], []
                for index in bar(range(count), f"drawing {partition}", count):
                    image, digits, boxes = draw_image((seed, part, index))
                    if colours is not None:
                        image = image.quantize(colours, dither=Image.Dither.NONE)
                    image.save(
                        partial_folder / partition / names[index], optimize=colours is not None
                    )
                    drawn.append((digits, boxes))
                struct = DigitStruct(
                    names,
                    np.array([len(digits) for digits, _ in drawn]),
                    np.concatenate([digits for digits, _ in drawn]).astype(np.uint8),
                    np.concatenate([boxes for _, boxes in drawn]).astype(np.float32),
                )
                digit_struct.write(struct, partial_folder / partition)
            note = {"synthetic": True, "seed": seed, "train": train, "test": test}
            (partial_folder / TWIN_MARK).write_text(json.dumps(note) + "\n", encoding="utf-8")
        usual_rights(partial_folder, 0o777)
        partial_folder.replace(folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    return folder

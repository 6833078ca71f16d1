"""A tiny model of each kind, and a batch that it learns from."""

from dataclasses import replace

import torch

from ramlib.attention import Window
from ramlib.baselines.cnn import CNNConfig
from ramlib.baselines.goodfellow import NumberCNNConfig
from ramlib.labels import LONGEST, STOP
from ramlib.model import RAMConfig
from ramlib.models.inhibition import ReadAgainConfig
from ramlib.models.reader import JoinedReaderConfig, ReaderConfig

IMAGE_SHAPE = (1, 32, 32)
SMALL = {
    "size": 4, "hidden": 8, "shrink": 4, "window": Window(0.3, 0.2, 0.4), "gradient_limit": 1.0,
}  # fmt: skip
DIGIT = RAMConfig(glimpses=2, context=False, **SMALL)
READER = ReaderConfig(glimpses=1, eye="conv-3", **SMALL)
# A configuration and the number of classes.
KINDS = {
    "digit": (DIGIT, 10),
    "context and convolutions": (replace(DIGIT, context=True, eye="conv-3", alpha=0.1), 10),
    "inhibition of return": (ReadAgainConfig(replace(DIGIT, glimpses=1), closer=6), 55),
    "reader": (READER, 11),
    "reader from right to left": (replace(READER, direction="right-to-left"), 11),
    "joined reader": (JoinedReaderConfig(READER), 11),
    "plain CNN": (CNNConfig((4, 4), 8), 10),
    "CNN that reads": (NumberCNNConfig(stages=((4,), (4,)), hidden=8), 11),
}
UNTRAINED = ("joined reader",)  # its parts are trained, one by one


def build(kind):
    """The model, with the same weights every time; a policy's are large enough to tell images."""
    config, classes = KINDS[kind]
    torch.manual_seed(0)
    model = config.build(IMAGE_SHAPE, classes).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("f_ext.linear.weight"):
                value.mul_(30)
    return model


def images(model, count, seed=0):
    """Noise in the range that the model takes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *model.image_shape, generator=generator) * model.value_range[1]


def labels(model, count):
    """Classes, or numbers of different lengths."""
    if model.classes != STOP + 1:
        return torch.arange(count) % model.classes
    rows = torch.full((count, LONGEST + 1), STOP)
    for n, row in enumerate(rows):
        row[: 1 + n % LONGEST] = n
    return rows

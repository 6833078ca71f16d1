"""MNIST as it ships: the official digits, split once, and no damaged file read."""

import gzip
import hashlib
import re

import pytest
import torch
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

from ramlib.data import mnist

# Yann LeCun's page gives the sizes; the counts of the labels are those of the official files.
COUNTS = {
    "train": [4932, 5678, 4968, 5101, 4859, 4506, 4951, 5175, 4842, 4988],
    "validation": [991, 1064, 990, 1030, 983, 915, 967, 1090, 1009, 961],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in the place of the shipped files."""
    clear = (mnist.load.cache_clear, mnist._read_pair.cache_clear)
    monkeypatch.setattr(mnist, "FOLDER", tmp_path)
    for forget in clear:
        forget()
    yield tmp_path
    for forget in clear:
        forget()


class TestShippedFiles:
    @pytest.mark.parametrize("name", mnist.DIGESTS)
    def test_digests_are_those_of_the_official_files(self, name):
        raw = gzip.decompress((mnist.FOLDER / f"{name}.gz").read_bytes())
        assert hashlib.md5(raw).hexdigest() == mnist.DIGESTS[name]

    @pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
    def test_reads_what_torchvision_reads(self, name, tmp_path):
        packed = mnist.FOLDER / f"{name}.gz"
        plain = tmp_path / name
        plain.write_bytes(gzip.decompress(packed.read_bytes()))
        ours = torch.from_numpy(mnist.read_idx(packed).copy())
        assert torch.equal(ours, read_sn3_pascalvincent_tensor(str(plain)))


class TestSplits:
    @pytest.mark.parametrize("split", COUNTS)
    def test_sizes_types_and_label_counts(self, split):
        digits = mnist.load(split)
        assert digits.images.dtype == torch.uint8
        assert digits.images.shape == (sum(COUNTS[split]), 28, 28)
        assert digits.labels.dtype == torch.int64
        assert digits.labels.bincount().tolist() == COUNTS[split]

    def test_train_and_validation_are_the_official_order(self):
        official = mnist.read_idx(mnist.FOLDER / "train-labels-idx1-ubyte.gz")
        joined = torch.cat([mnist.load("train").labels, mnist.load("validation").labels])
        assert joined.tolist() == official.tolist()

    def test_no_digit_is_in_two_splits(self):
        seen = {
            split: {image.tobytes() for image in mnist.load(split).images.numpy()}
            for split in mnist.SPLITS
        }
        assert not seen["train"] & seen["validation"]
        assert not seen["train"] & seen["test"]
        assert not seen["validation"] & seen["test"]

    def test_is_read_once_per_process(self):
        assert mnist.load("test") is mnist.load("test")


class TestBadInput:
    @pytest.mark.usefixtures("as_installed")
    def test_refuses_an_unknown_split_and_names_the_known(self):
        message = "mnist.load: split must be one of train, validation, test, got 'valid'"
        with pytest.raises(ValueError, match=re.escape(message)):
            mnist.load("valid")

    def test_a_missing_file_is_named_with_its_cure(self, folder):
        with pytest.raises(FileNotFoundError, match="restore the file") as caught:
            mnist.load("test")
        assert str(folder / "t10k-images-idx3-ubyte.gz") in str(caught.value)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda packed: packed[:-100],
            lambda packed: b"",
            lambda packed: b"<html>404</html>",
            lambda packed: packed[:2000] + bytes([packed[2000] ^ 255]) + packed[2001:],
            lambda packed: gzip.compress(gzip.decompress(packed)[:-1] + b"\x0b", 1),
            lambda packed: gzip.compress(gzip.decompress(packed)[:-1], 1),
        ],
        ids=["cut short", "empty", "a web page", "a bit flipped", "a label changed", "one missing"],
    )
    def test_a_damaged_file_is_named_with_its_cure(self, damage, folder):
        path = folder / "t10k-labels-idx1-ubyte.gz"
        packed = (mnist.Path(mnist.__file__).parent / "mnist_files" / path.name).read_bytes()
        path.write_bytes(damage(packed))
        with pytest.raises(ValueError, match="restore the file") as caught:
            mnist.read_idx(path)
        assert str(path) in str(caught.value)

    def test_a_damaged_file_is_refused_by_load_too(self, folder):
        (folder / "train-images-idx3-ubyte.gz").write_bytes(b"")
        with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz"):
            mnist.load("validation")

"""What `pip install .` gives: a package that works elsewhere, with data and weights inside."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ramlib.experiments import RECIPES

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted(
    str(path.relative_to(ROOT))
    for folder, pattern in {
        "ramlib": "**/*.py",
        "ramlib/data/mnist_files": "*.gz",
        "ramlib/data/house_number_files": "**/*.*",
        "ramlib/weights": "*.safetensors",
        "ramlib/records": "**/*.*",
    }.items()
    for path in (ROOT / folder).glob(pattern)
    if not path.name.startswith(".")
)

# Run in another folder, without the repository on the path.
VISIT = """
import json, sys, torch, ramlib
from ramlib.data import mnist
from ramlib.models.reader import Reader

def answer(model):
    images = torch.rand(2, *model.image_shape)
    return model.predict(255 * images if isinstance(model, Reader) else images).shape

answers = {name: answer(ramlib.load(name)) for name in ramlib.shipped()}
digits = {split: len(mnist.load(split).labels) for split in ("train", "validation", "test")}
print(json.dumps({"file": ramlib.__file__, "digits": digits, "answers": answers}))
"""


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy, so that the build leaves nothing in the repository."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "ramlib", source / "ramlib", ignore=shutil.ignore_patterns("__pycache__", ".*")
    )
    out = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", out, source)
    (built,) = out.glob("ramlib-*.whl")
    return built


@pytest.fixture(scope="module")
def visit(wheel, tmp_path_factory):
    """Install the wheel into an empty folder and use it from another one."""
    site = tmp_path_factory.mktemp("site")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--target", site, wheel)
    environment = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    answer = json.loads(run(sys.executable, "-c", VISIT, cwd=elsewhere, env=environment))
    assert Path(answer["file"]).is_relative_to(site)
    return answer


def test_wheel_holds_all_modules_data_weights_and_records(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(SHIPPED) <= names
    assert any(name.endswith(".gz") for name in SHIPPED)


# In MB. PyPI takes files of 100 MB and less.
LIMITS = {"weights": 60, "wheel": 70}


def test_weights_and_wheel_are_as_small_as_the_readme_says(wheel):
    weights = sum(path.stat().st_size for path in (ROOT / "ramlib/weights").glob("*.safetensors"))
    assert weights < 1e6 * LIMITS["weights"]
    assert wheel.stat().st_size < 1e6 * LIMITS["wheel"]
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    said = "take less than {weights} MB, and the wheel less than {wheel} MB"
    assert said.format(**LIMITS) in text


def test_wheel_carries_both_licences(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {Path(name).name for name in names if "/licenses/" in name} == {
        "LICENSE",
        "LICENSE-TEXT",
    }


def test_mnist_loads_outside_the_repository(visit):
    assert visit["digits"] == {"train": 50_000, "validation": 10_000, "test": 10_000}


def test_every_shipped_model_answers_outside_the_repository(visit):
    weights = {Path(name).stem for name in SHIPPED if name.endswith(".safetensors")}
    joined = {name for name, recipe in RECIPES.items() if recipe.joins is not None}
    assert weights <= set(visit["answers"]) <= weights | joined
    assert "house-numbers-svhn" in visit["answers"]
    for name, shape in visit["answers"].items():
        assert shape == ([2, 6] if "house-numbers" in name else [2])

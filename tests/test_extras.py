"""A plain installation loads and runs what ships; what it lacks is named with its extra."""

import json
import subprocess
import sys

import pytest

from ramlib._extras import bar, later, needs, quietly

# A fresh process in which these cannot be imported, as after a plain `pip install ramlib`.
PLAIN = """
import json, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""
MISSING = {
    *("h5py", "lightning", "matplotlib", "pandas", "PIL", "platformdirs", "seaborn", "tabulate"),
    *("tqdm", "beartype", "hypothesis"),
}


def plain(code):
    """Run it where only the plain installation is; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PLAIN.format(missing=MISSING) + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_plain_installation_runs_what_ships():
    code = """
import torch, ramlib
digits, numbers = ramlib.load("digit-context"), ramlib.load("house-numbers-svhn")
labels = digits.predict(torch.rand(2, *digits.image_shape))
read = numbers.read(255 * torch.rand(2, *numbers.image_shape))
print(json.dumps([labels.tolist(), read, len(ramlib.shipped()), len(ramlib.RECIPES)]))
"""
    labels, read, shipped, recipes = json.loads(plain(code))
    assert len(labels) == 2
    assert [type(text) for text in read] == [str, str]
    assert 2 < shipped < recipes


def test_a_plain_installation_measures_digits_and_lists_recipes():
    code = """
from ramlib.cli import main
sys.exit(main(["list"]) or main(["evaluate", "digit-context", "--images", "20"]))
"""
    assert "error " in plain(code)


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["train", "digit-context"], "lightning", "train"),
        (["table", "I"], "pandas", "train"),
        (["data", "house-numbers", "--out", "nowhere"], "PIL", "train"),
    ],
)
def test_a_command_names_the_extra_that_it_lacks(arguments, missing, extra):
    code = f"""
from ramlib.cli import main
sys.stderr = sys.stdout
assert main({arguments}) == 2
"""
    message = f"{missing} is not installed; install it with: pip install 'ramlib[{extra}]'"
    assert plain(code) == f"ramlib: {message}\n"


def test_figures_name_the_extra_that_they_lack():
    code = """
try:
    import ramlib.plots
except ImportError as error:
    print(error)
"""
    assert plain(code).endswith("pip install 'ramlib[plot]'\n")


def test_a_module_comes_when_it_is_used():
    code = """
from ramlib._extras import later
colorsys = later("colorsys", "none")
before = "colorsys" in sys.modules
print(before, colorsys.rgb_to_hls(0, 0, 0), "colorsys" in sys.modules)
"""
    assert plain(code).split() == ["False", "(0.0,", "0.0,", "0.0)", "True"]


def test_an_attribute_that_a_module_lacks_is_no_missing_package():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        later("json", "train").nothing  # noqa: B018


def test_other_errors_of_an_import_stay_as_they_are():
    with pytest.raises(ZeroDivisionError), needs("train"):
        1 / 0  # noqa: B018


def test_bars_are_silent_within_quietly_and_only_there(capsys):
    with quietly():
        assert list(bar(range(3), "silent", 3)) == [0, 1, 2]
        with quietly(False):  # what is inside does not speak up again
            assert list(bar(range(3), "silent", 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    assert list(bar(range(3), "counting", 3)) == [0, 1, 2]
    assert "counting: 100%" in capsys.readouterr().err

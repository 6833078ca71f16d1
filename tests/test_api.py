"""What others rely on: public names, their arguments, a light core, arrows that go one way."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ramlib

PACKAGE = Path(ramlib.__file__).parent
MODULES = {
    ".".join(("ramlib", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in PACKAGE.rglob("*.py")
}
MODULES = {name.removesuffix(".__init__"): path for name, path in MODULES.items()}

# From the bottom to the top; what stands further down knows nothing of what stands above it.
LAYERS = (
    ("_checks", "_extras", "_files", "_pytree", "labels"),
    ("glimpse",),
    ("attention", "networks", "recurrence", "interface"),
    ("model", "tasks"),
    ("data", "device", "models", "plots"),
    ("baselines",),
    ("experiments",),
    ("cli", "__main__"),
)
CORE = ("glimpse", "attention", "networks", "recurrence", "interface", "model")


def signature(thing):
    """Names of the arguments; a star stands before those that are named in a call."""
    kinds = [p.kind for p in inspect.signature(thing).parameters.values()]
    names = list(inspect.signature(thing).parameters)
    first = next((i for i, k in enumerate(kinds) if k == inspect.Parameter.KEYWORD_ONLY), None)
    return " ".join(names if first is None else [*names[:first], "*", *names[first:]])


def test_public_names():
    assert sorted(ramlib.__all__) == [
        "Classifier",
        "GlimpseGrid",
        "RAMConfig",
        "RECIPES",
        "Recipe",
        "RecurrentAttentionModel",
        "Rollout",
        "best_device",
        "gaussian_filterbank",
        "load",
        "read_glimpse",
        "shipped",
    ]
    assert set(ramlib.__all__) <= set(dir(ramlib))
    assert all(getattr(ramlib, name) is not None for name in ramlib.__all__)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("GlimpseGrid", "c_x c_y delta_x delta_y sigma gamma"),
        ("Rollout", "logits windows grids glimpses shifts said"),
        ("RecurrentAttentionModel", "config image_shape classes * prepare f_glimpse operator"),
        ("gaussian_filterbank", "centre delta sigma * filters pixels first"),
        ("read_glimpse", "images grid size * support"),
        ("load", "name device * runs"),
        ("shipped", ""),
    ],
)
def test_arguments(name, arguments):
    assert signature(getattr(ramlib, name)) == arguments


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("forward", "self images * noisy"),
        ("predict", "self images * passes"),
        ("probabilities", "self images * passes"),
        ("objective", "self images labels"),
        ("loss", "self rollout labels"),
    ],
)
def test_arguments_of_a_model(method, arguments):
    assert signature(getattr(ramlib.Classifier, method)) == arguments


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ramlib' has no attribute 'rollout'"):
        ramlib.rollout  # noqa: B018


# ---- arrows ----


def imports(name, *, everywhere=False):
    """Modules of ours that a module imports when it is imported itself, or anywhere in its code."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
    return {module for module in found if module in MODULES and module != name}


def layer(name):
    """How high a module stands."""
    top = [*name.split("."), "__init__"][1]
    return next((i for i, names in enumerate(LAYERS) if top in names), None)


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"ramlib"}))
def test_arrows_go_down(name):
    above = [m for m in imports(name, everywhere=True) if m != "ramlib" and layer(m) > layer(name)]
    assert above == []


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("ramlib.data")])
def test_data_know_no_model(name):
    known = imports(name, everywhere=True)
    assert not [m for m in known if m.split(".")[1] in ("model", "models", "baselines")]


def test_there_is_no_circle():
    done, path = set(), []

    def visit(name):
        assert name not in path, f"circle: {' -> '.join([*path, name])}"
        if name not in done:
            path.append(name)
            for other in imports(name) - {"ramlib"}:
                visit(other)
            done.add(path.pop())

    for name in MODULES:
        visit(name)


# ---- a light core ----

HEAVY = ("h5py", "PIL", "pandas", "lightning", "matplotlib", "seaborn", "torchvision", "timm")


@pytest.mark.parametrize("line", ["import ramlib", "from ramlib.glimpse import read_glimpse"])
def test_the_core_loads_no_laboratory_and_nothing_heavy(line):
    code = f"import torch, sys; before = set(sys.modules); {line}; print(set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(run.stdout)
    assert not {name for name in loaded if name.split(".")[0] in HEAVY}
    assert not {name for name in loaded if name.startswith(("ramlib.experiments", "ramlib.data"))}
    others = {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert others <= {"ramlib", "jaxtyping", "wadler_lindig", "numpy"}  # the last two are its own


def test_the_core_can_be_read_in_one_sitting():
    lines = {name: len((PACKAGE / f"{name}.py").read_text().splitlines()) for name in CORE}
    assert sum(lines.values()) < 1_250, lines

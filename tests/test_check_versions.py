"""The script that checks the bounds installs exactly them."""

import tomllib

import check_versions
from packaging.requirements import Requirement


def test_the_lowest_versions_are_the_bounds_of_the_package():
    project = tomllib.loads((check_versions.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    declared = [*project["project"]["dependencies"]]
    declared += [line for name in ("train", "plot", "fonts") for line in extras[name]]
    bounds = {r.name: r.specifier for r in map(Requirement, declared)}
    pinned = {
        r.name: r.specifier for r in map(Requirement, check_versions.lowest(project["project"]))
    }
    assert pinned.keys() == bounds.keys()
    for name, specifier in pinned.items():
        (pin,) = specifier
        assert pin.operator == "=="
        assert f">={pin.version}" in str(bounds[name]).split(",")

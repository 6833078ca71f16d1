"""The inventories in the repository are those that the tool writes, and Sphinx can read them."""

import pytest
import yaml
from make_inventories import FOLDER, INVENTORIES, inventory
from sphinx.util.inventory import InventoryFile


def read(path):
    with path.open("rb") as stream:
        return InventoryFile.load(
            stream, "https://example.org", lambda base, page: f"{base}/{page}"
        )


@pytest.mark.parametrize("project", INVENTORIES)
def test_file_is_what_the_tool_writes(project, tmp_path):
    fresh = tmp_path / f"{project}.inv"
    fresh.write_bytes(inventory(project, INVENTORIES[project]))
    assert read(FOLDER / f"{project}.inv") == read(fresh), "run: python tools/make_inventories.py"


def test_a_name_leads_to_its_page():
    classes = read(FOLDER / "torch.inv")["py:class"]
    assert classes["torch.Size"][2] == "https://example.org/size.html#torch.Size"
    assert classes["Tensor"][2] == "https://example.org/tensors.html#torch.Tensor"


def test_the_book_is_told_of_every_inventory():
    config = yaml.safe_load((FOLDER.parent.parent / "_config.yml").read_text(encoding="utf-8"))
    mapping = config["sphinx"]["config"]["intersphinx_mapping"]
    assert {name: path for name, (_, path) in mapping.items()} == {
        name: f"book/_inv/{name}.inv" for name in INVENTORIES
    }

"""The inventories in the repository are those that the tool writes, and Sphinx can read them."""

import pytest
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

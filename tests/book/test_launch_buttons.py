"""Buttons that run a chapter elsewhere: there with an address, and they lead to files."""

from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from launch_buttons import add_buttons, launch_links

ROOT = Path(__file__).resolve().parent.parent.parent
ADDRESS = "https://github.com/reader/looking"
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))


def buttons(page, address):
    """The groups of buttons that a page gets, by their labels."""
    options = {"repository_url": address, "repository_branch": "main"}
    app = SimpleNamespace(config=SimpleNamespace(html_theme_options=options))
    source = {"label": "download-source-button"}
    pdf = {"label": "download-pdf-button"}
    download = {"label": "download-buttons", "buttons": [source, pdf]}
    context = {"header_buttons": [download], "pathto": lambda path, resource: f"../{path}"}
    add_buttons(app, page, "page.html", context, None)
    return {group["label"]: group["buttons"] for group in context["header_buttons"]}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_links_lead_to_notebooks_of_the_repository(chapter):
    for button in buttons(f"book/{chapter}", ADDRESS)["launch"]:
        whole = unquote(button["url"])
        path = whole[whole.index("notebooks/") :]
        assert (ROOT / path).is_file(), "run: make plain"
        assert Path(path).stem == chapter
        assert "reader/looking" in whole


def test_links_are_those_of_the_services():
    path = "reader/looking/blob/main/a/b.ipynb"
    assert launch_links(ADDRESS, "main", "a/b.ipynb") == {
        "Colab": f"https://colab.research.google.com/github/{path}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src=https://github.com/{path}",
        "Binder": "https://mybinder.org/v2/gh/reader/looking/main?urlpath=lab/tree/a/b.ipynb",
    }


@pytest.mark.parametrize("address", ["", None])
def test_without_an_address_there_are_none(address):
    assert set(buttons(f"book/{CHAPTERS[0]}", address)) == {"download-buttons"}


def test_the_plain_notebook_is_downloaded_in_place_of_the_books_own():
    found = buttons(f"book/{CHAPTERS[0]}", "")["download-buttons"]
    assert [button.get("url", "") for button in found] == [
        f"../notebooks/{CHAPTERS[0]}.ipynb",
        "../notebooks/learning-where-to-look.zip",
        "",
    ]


def test_other_pages_keep_their_buttons():
    found = buttons("book/glossary", ADDRESS)
    assert [button["label"] for button in found["download-buttons"]] == [
        "download-source-button",
        "download-pdf-button",
    ]
    assert set(found) == {"download-buttons"}

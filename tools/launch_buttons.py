"""Sphinx extension: buttons on the chapters that download a plain notebook, or run it elsewhere.

The links need the address of the book's repository: `repository` in _config.yml. Without it there
are none.
"""

from urllib.parse import quote

from plain_notebooks import ARCHIVE, CHAPTER, FOLDER


def launch_links(address: str, branch: str, path: str) -> dict[str, str]:
    """Service -> link that opens a notebook of a GitHub repository there; none without address."""
    if not address:
        return {}
    name = address.rstrip("/").removesuffix(".git").split("github.com/")[-1]
    blob = f"github.com/{name}/blob/{branch}/{path}"
    return {
        "Colab": f"https://colab.research.google.com/{blob.replace('.com', '', 1)}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src=https://{blob}",
        "Binder": f"https://mybinder.org/v2/gh/{name}/{branch}?urlpath=lab/tree/{quote(path)}",
    }


def add_buttons(app, pagename, templatename, context, doctree) -> None:
    """Downloads of the plain notebook in place of the book's own, and links that open it."""
    match = CHAPTER.match(pagename)
    if not match or "header_buttons" not in context:
        return

    def link(text, url, icon):
        label = f"{text.lower().split()[0].strip('.')}-button"
        tip = {"tooltip": text, "label": label, "icon": f"fas {icon}"}
        return {"type": "link", "text": text, "url": url, **tip}

    here = context["pathto"](FOLDER, 1)
    path = f"{FOLDER}/{match[1]}.ipynb"
    options = app.config.html_theme_options
    branch = options.get("repository_branch") or "main"
    links = launch_links(options.get("repository_url", ""), branch, path)
    if links:
        buttons = [link(service, url, "fa-play") for service, url in links.items()]
        group = {"type": "group", "tooltip": "Run this chapter", "icon": "fas fa-rocket"}
        context["header_buttons"].insert(0, {**group, "buttons": buttons, "label": "launch"})
    for group in context["header_buttons"]:
        if group.get("label") == "download-buttons":
            own = {"download-notebook-button", "download-source-button"}
            rest = [button for button in group["buttons"] if button["label"] not in own]
            one = link("notebook (.ipynb)", f"{here}/{match[1]}.ipynb", "fa-code")
            every = link("all notebooks (.zip)", f"{here}/{ARCHIVE}", "fa-file-zipper")
            group["buttons"] = [one, every, *rest]


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", add_buttons, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""`make lab`: JupyterLab starts, shows the chapters, and opens a text as a notebook."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = "@jupyterlab/docmanager-extension:plugin"


@pytest.fixture(scope="module")
def get(tmp_path_factory):
    """A function that asks a running JupyterLab for a path; the one of `make lab`."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    runtime = tmp_path_factory.mktemp("runtime")
    # -o: the environment that runs this test is taken as it is.
    command = ["make", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.ready", "lab"]
    command += ["ARGS=--no-browser --port=0 --allow-root"]
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(runtime)}
    log = runtime / "log.txt"
    with log.open("w") as file:
        lab = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield lambda path: ask(server_of(lab, runtime, log), path)
    finally:
        os.killpg(lab.pid, signal.SIGTERM)
        lab.wait(timeout=30)


def server_of(lab, runtime, log, patience=120):
    """What the server notes about itself, once it is up."""
    for _ in range(patience * 10):
        assert lab.poll() is None, log.read_text()
        if found := list(runtime.glob("jpserver-*.json")):
            with contextlib.suppress(json.JSONDecodeError, urllib.error.URLError):
                server = json.loads(found[0].read_text())
                ask(server, "api")
                return server
        time.sleep(0.1)
    raise TimeoutError(log.read_text())


def ask(server, path):
    headers = {"Authorization": f"token {server['token']}"}
    request = urllib.request.Request(server["url"] + path, headers=headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_shows_the_chapters(get):
    shown = {entry["name"] for entry in get("api/contents/book")["content"]}
    assert {path.name for path in (ROOT / "book").glob("*.md")} <= shown


def test_a_text_opens_as_a_notebook_with_its_outputs(get):
    chapter = sorted((ROOT / "book").glob("0*.md"))[0]
    opened = get(f"api/contents/book/{chapter.name}?type=notebook")
    stored = json.loads(chapter.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert opened["type"] == "notebook"
    assert [cell["source"] for cell in opened["content"]["cells"]] == [
        "".join(cell["source"]) for cell in stored["cells"]
    ]
    assert any(cell.get("outputs") for cell in opened["content"]["cells"])


def test_a_double_click_opens_a_text_as_a_notebook(get):
    settings = get(f"lab/api/settings/{DOCUMENTS}")
    viewers = settings["schema"]["properties"]["defaultViewers"]["default"]
    assert viewers["markdown"] == "Jupytext Notebook"


def test_the_extensions_fit_this_jupyterlab():
    """What JupyterLab refuses for a conflict of versions is not loaded, and no one says so."""
    command = [sys.executable, "-m", "jupyter", "labextension", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for extension in ("jupyterlab-jupytext", "jupyterlab-myst"):
        (line,) = [line for line in (done.stdout + done.stderr).splitlines() if extension in line]
        assert "enabled" in line
        assert "OK" in line

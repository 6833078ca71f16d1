"""`make gpu`, as far as a machine without a GPU can tell."""

import json
import subprocess
import sys
from pathlib import Path

import gpu
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

# Nothing is there but what a machine for training has.
BARE = """
import sys
HIDDEN = {"jaxtyping", "beartype", "pytest", "matplotlib", "seaborn", "tqdm", "platformdirs",
          "torchvision", "tabulate", "hypothesis"}

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
sys.path.insert(0, "benchmarks")
import gpu
gpu.without_jaxtyping()
import bench, device_checks, json
device = device_checks.Device()
model = device_checks.kinds.build("digit")
images, labels = device_checks.batch(model, "cpu")
print(json.dumps([len(device_checks.CHECKS), float(model.objective(images, labels))]))
"""


def test_needs_only_what_a_machine_for_training_has():
    command = [sys.executable, "-W", "ignore", "-c", BARE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    checks, loss = json.loads(done.stdout)
    assert checks > 40
    assert loss > 0


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == "gpu: torch finds no GPU on this machine\n"


def test_writes_the_record_and_fails_with_its_checks(monkeypatch, tmp_path, capsys):
    import bench
    import device_checks

    def broken(device):
        raise RuntimeError("two devices")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    monkeypatch.setattr(bench, "main", lambda arguments: Path(arguments[-1]).write_text("{}"))
    record = tmp_path / "gpu.json"
    monkeypatch.setattr(device_checks, "CHECKS", {"works": lambda device: None})
    assert gpu.main(["--json", str(record)]) == 0
    assert record.read_text() == "{}"
    monkeypatch.setattr(device_checks, "CHECKS", {"works": print, "breaks": broken})
    assert gpu.main(["--json", str(record)]) == 1
    out = capsys.readouterr()
    assert "1 device checks pass, 1 fail\nbreaks\n" in out.out
    assert "two devices" in out.err


@pytest.mark.parametrize("name", ["device_checks", "kinds"])
def test_what_runs_there_asks_for_no_pytest(name):
    assert "import pytest" not in (ROOT / "tests" / f"{name}.py").read_text()

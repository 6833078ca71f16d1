"""The command line: each command does its work, and bad input ends with one line and code 2."""

import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
import tiny
import torch

from ramlib import cli, experiments
from ramlib.data import house_numbers
from ramlib.data.house_numbers import HouseNumbers
from ramlib.experiments import measure, records, tables, training, weights
from ramlib.models.reader import JoinedReaderConfig, ReaderConfig

TINY = replace(tiny.TINY, updates=3)


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    """A folder of its own, in which a tiny recipe is known and nothing ships."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr(records, "FOLDER", tmp_path / "records")
    monkeypatch.setitem(experiments.RECIPES, "tiny", TINY)
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.setattr(training, "VALIDATION_BATCHES", 1)
    monkeypatch.setattr(training, "VALIDATION_BATCH", 4)
    return tmp_path


def ramlib(*arguments):
    """Run a command as the shell would; returns the exit code."""
    try:
        return cli.main(list(arguments))
    except SystemExit as end:
        return end.code


def train(*arguments):
    return ramlib("train", "tiny", "--device", "cpu", "--quiet", *arguments)


class TestCommands:
    def test_trains_evaluates_and_ships_a_reader_of_house_numbers(self, monkeypatch, capsys):
        monkeypatch.setenv("RAMLIB_CACHE", "cache")
        house_numbers.load.cache_clear()
        reader = ReaderConfig(size=4, hidden=8, shrink=8, glimpses=1)
        recipe = replace(TINY, task=HouseNumbers(), model=reader, updates=1)
        monkeypatch.setitem(experiments.RECIPES, "tiny", recipe)
        assert train() == 0

        assert ramlib("evaluate", "tiny", "--run", "runs/tiny", "--images", "20") == 0
        shown = capsys.readouterr().out
        assert re.search(r"^digit_error +[\d.]+ %  \([\d.]+ to [\d.]+, n = \d+\)$", shown, re.M)

        assert ramlib("evaluate", "tiny", "--run", "runs/tiny", "--images", "30", "--ship") == 0
        record = records.read("tiny")
        report = measure.evaluate_numbers(weights.load("tiny"), recipe.task.batches("test", 30))
        assert record["metrics"]["error"] == report.error.as_dict()
        assert record["metrics"]["error"]["n"] == 30
        assert record["data"].startswith("synthetic twin of SVHN (the sample): 234 train")
        torch.manual_seed(measure.TEST_SEED)
        average = measure.evaluate_numbers(
            weights.load("tiny"), recipe.task.batches("test", 30), runs=10
        )
        assert record["metrics"]["average_error"] == average.error.as_dict()
        assert record["metrics"]["subset"]["n"] == 80  # of the sample

    def test_ships_two_readers_joined(self, workshop, monkeypatch, capsys):
        monkeypatch.setenv("RAMLIB_CACHE", "cache")
        house_numbers.load.cache_clear()
        reader = ReaderConfig(size=4, hidden=8, shrink=8, glimpses=1)
        forward = replace(TINY, task=HouseNumbers(), model=reader, updates=1)
        back = replace(
            forward, name="back", model=replace(reader, direction="right-to-left"), start="tiny"
        )
        both = replace(
            forward,
            name="both",
            model=JoinedReaderConfig(reader),
            updates=0,
            joins=("tiny", "back"),
        )
        for recipe in (forward, back, both):
            monkeypatch.setitem(experiments.RECIPES, recipe.name, recipe)
        assert train() == 0
        assert ramlib("train", "back", "--device", "cpu", "--quiet") == 0
        assert ramlib("evaluate", "both", "--run", "runs/both", "--images", "9") == 0
        assert ramlib("evaluate", "both", "--ship") == 2  # its parts do not ship yet
        for name in ("tiny", "back"):
            run = ("--run", f"runs/{name}", "--images", "9", "--ship")
            assert ramlib("evaluate", name, *run) == 0
        assert ramlib("evaluate", "both", "--images", "9", "--ship") == 0
        record = records.read("both")
        report = measure.evaluate_numbers(weights.load("both"), forward.task.batches("test", 9))
        assert record["metrics"]["error"] == report.error.as_dict()
        assert "average_error" in record["metrics"]
        assert record["wall_s"] == sum(records.read(name)["wall_s"] for name in ("tiny", "back"))
        parts = [records.read(name)["parameters"] for name in ("tiny", "back")]
        assert record["parameters"] == sum(parts)
        assert {path.stem for path in (workshop / "weights").iterdir()} == {"tiny", "back"}
        capsys.readouterr()
        assert ramlib("train", "both", "--device", "cpu", "--quiet") == 2
        assert "'both' joins tiny and back; train those" in capsys.readouterr().err

    def test_train_evaluate_and_ship_a_recipe(self, workshop, capsys):
        """From nothing to weights and a record that say the same."""
        assert train() == 0
        assert "ramlib evaluate tiny --run runs/tiny" in capsys.readouterr().out

        assert ramlib("evaluate", "tiny", "--run", "runs/tiny", "--images", "50") == 0
        shown = capsys.readouterr().out
        assert re.search(r"^error +[\d.]+ %  \([\d.]+ to [\d.]+, n = 50\)$", shown, re.M)

        ship = ("evaluate", "tiny", "--run", "runs/tiny", "--images", "60", "--ship")
        assert ramlib(*ship) == 0
        record = records.read("tiny")
        model = weights.load("tiny")
        report = measure.evaluate_digits(model, measure.canvases(TINY.task, 60))
        assert record["metrics"]["error"] == report.error.as_dict()
        assert record["metrics"]["missed"] == report.missed.as_dict()
        assert record["metrics"]["validation_error"]["n"] == 60
        assert record["metrics"]["subset"] == cli.count_subset(TINY, model)
        assert record["metrics"]["subset"]["n"] == 1000
        assert record["updates"] == 3
        assert record["images_seen"] == 12
        assert record["parameters"] == sum(p.numel() for p in model.parameters())
        assert (workshop / "records" / "tiny-curve.csv").read_text().startswith("step,")

        assert ramlib("list") == 0
        line = next(li for li in capsys.readouterr().out.splitlines() if li.startswith("tiny"))
        assert f"{report.error.value:.2f} % test error" in line

        assert ramlib("evaluate", "tiny", "--images", "50", "--passes", "2") == 0  # what ships

    def test_train_stops_after_its_time_and_says_how_to_go_on(self, workshop, capsys):
        assert train("--max-time", "0.0001s") == 0
        assert "stopped at update 1 of 3" in (shown := capsys.readouterr().out)
        assert "ramlib train tiny --resume" in shown
        assert not (workshop / "runs/tiny/weights.safetensors").exists()
        assert train("--resume") == 0
        assert (workshop / "runs/tiny/weights.safetensors").exists()

    def test_train_takes_seed_updates_batch_and_folder(self, workshop):
        more = ("--seed", "7", "--updates", "2", "--batch", "6", "--precision", "64-true")
        assert train("--runs", "elsewhere", *more) == 0
        state = torch.load(workshop / "elsewhere/tiny/last.ckpt", weights_only=True)
        kept = state["recipe"]
        assert (kept["seed"], kept["updates"], kept["batch"]) == (7, 2, 6)
        assert state["global_step"] == 2
        assert all(value.dtype == torch.float64 for value in state["state_dict"].values())

    def test_list_names_every_recipe(self, capsys):
        assert ramlib("list") == 0
        assert [li.split()[0] for li in capsys.readouterr().out.splitlines()] == [
            *experiments.RECIPES
        ]

    def test_table_prints_markdown(self, capsys):
        assert ramlib("table", "I") == 0
        assert capsys.readouterr().out.strip() == tables.markdown("I")

    def test_table_fills_the_readme_between_its_markers_and_nothing_else(self, workshop):
        readme = workshop / "README.md"
        before, after = "# Title\n\n<!-- results:begin -->", "<!-- results:end -->\n\nThe end.\n"
        readme.write_text(f"{before}\nold\n{after}", encoding="utf-8")
        for _ in range(2):  # the second time changes nothing
            assert ramlib("table", "--readme", str(readme)) == 0
            every = "\n\n".join(tables.markdown(number) for number in experiments.TABLES)
            assert readme.read_text(encoding="utf-8") == f"{before}\n{every}\n{after}"


class TestDuration:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("90s", 90), ("45m", 2700), ("2h", 7200), ("0.5h", 1800), ("01:30:05", 5405)],
    )
    def test_by_hand(self, text, seconds):
        assert cli.duration(text) == timedelta(seconds=seconds)


def unfinished(folder):
    (folder / "runs/tiny").mkdir(parents=True)


def damaged(folder):
    unfinished(folder)
    (folder / "runs/tiny/weights.safetensors").write_bytes(b"nonsense")


def checkpoint(folder):
    unfinished(folder)
    (folder / "runs/tiny/last.ckpt").write_bytes(b"nonsense")


def file(folder):
    (folder / "file").write_text("no markers")


BAD = [
    (None, "train digitt", "did you mean 'digit'"),
    (None, "evaluate digitt", "did you mean 'digit'"),
    (None, "train", "recipe"),
    (None, "", "command"),
    (None, "paint", "invalid choice"),
    (None, "table V", "invalid choice: 'V'"),
    (None, "train tiny --devices 0", "must be a whole number from 1 on, got '0'"),
    (None, "train tiny --devices 3 --device cpu", "a batch of 4 does not divide among 3 devices"),
    (None, "train tiny --updates 0", "must be a whole number from 1 on, got '0'"),
    (None, "train tiny --batch 2.5", "must be a whole number from 1 on, got '2.5'"),
    (None, "train tiny --seed=-1", "must be a whole number from 0 on, got '-1'"),
    (None, "train tiny --seed 99999999999", "seed must be in [0, 2**31)"),
    (None, "train tiny --max-time soon", "a duration is above 0 and reads like 90s"),
    (None, "train tiny --max-time 0s", "a duration is above 0"),
    (None, "train tiny --max-time=-5m", "a duration is above 0"),
    (None, "train tiny --max-time 1e300h", "a duration is above 0"),
    (None, "train tiny --max-time nans", "a duration is above 0"),
    (None, "train tiny --precision 16", "precision must be one of 32-true, 64-true, bf16-mixed"),
    (None, "train tiny --device tpu", "invalid choice: 'tpu'"),
    (file, "train tiny --device cpu --runs file", "cannot be written (Not a directory)"),
    (checkpoint, "train tiny --device cpu", "exists; resume it"),
    (checkpoint, "train tiny --device cpu --resume", "last.ckpt is damaged"),
    (None, "evaluate tiny", "no weights ship for 'tiny'"),
    (None, "evaluate tiny --images 0", "must be a whole number from 1 on, got '0'"),
    (None, "evaluate tiny --images many", "must be a whole number from 1 on, got 'many'"),
    (None, "evaluate tiny --passes=-2", "must be a whole number from 0 on, got '-2'"),
    (None, "evaluate tiny --split train", "invalid choice: 'train'"),
    (None, "evaluate tiny --ship", "--ship needs --run"),
    (unfinished, "evaluate tiny --run runs/tiny", "finish it with: ramlib train tiny --resume"),
    (unfinished, "evaluate tiny --run runs/tiny --ship", "runs/tiny holds no finished training"),
    (damaged, "evaluate tiny --run runs/tiny", "weights.safetensors is damaged"),
    (None, "table --readme nowhere.md", "nowhere.md"),
    (file, "table --readme file", "file has no <!-- results:begin -->"),
]


class TestBadInput:
    @pytest.mark.parametrize(("given", "line", "message"), BAD, ids=[line for _, line, _ in BAD])
    def test_ends_with_code_2_and_says_what_is_wrong(self, given, line, message, workshop, capsys):
        if given is not None:
            given(workshop)
        assert ramlib(*line.split()) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert message in shown.err.splitlines()[-1]
        assert "Traceback" not in shown.err

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_gpu_that_is_not_there_is_refused(self, capsys):
        assert ramlib("train", "tiny", "--device", "gpu") == 2
        assert "gpu" in capsys.readouterr().err

    def test_a_recipe_that_starts_from_weights_that_do_not_ship_says_which(
        self, monkeypatch, capsys
    ):
        monkeypatch.setitem(experiments.RECIPES, "tiny", replace(TINY, start="digit"))
        assert train() == 2
        assert "no weights ship for 'digit'" in capsys.readouterr().err

    def test_a_run_of_other_settings_is_not_shipped(self, workshop, capsys):
        assert train("--seed", "7") == 0
        assert ramlib("evaluate", "tiny", "--run", "runs/tiny", "--ship") == 2
        assert "seed=7 (now 0)" in capsys.readouterr().err
        assert not (workshop / "weights").exists()

    def test_a_shorter_run_is_not_shipped(self, workshop, capsys):
        assert train("--updates", "2") == 0
        assert ramlib("evaluate", "tiny", "--run", "runs/tiny", "--ship") == 2
        assert "stopped at update 2 of 3" in capsys.readouterr().err

    def test_from_the_shell_one_line_and_no_traceback(self):
        command = [sys.executable, "-m", "ramlib.cli", "train", "digitt"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("ramlib: get: no recipe is called 'digitt'; did you mean 'digit'?")

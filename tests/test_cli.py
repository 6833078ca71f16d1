"""The command line: each command does its work, and bad input ends with one line and code 2."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
import tiny
import torch
from safetensors.torch import load_file

from ramlib import cli, experiments
from ramlib.data import house_numbers
from ramlib.data.house_numbers import HouseNumbers
from ramlib.experiments import records, shipping, tables, training, weights
from ramlib.experiments.measure import measure
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
        assert capsys.readouterr().err == ""  # --quiet: no bar of the loader either

        assert ramlib("evaluate", "tiny", "--run", "runs/tiny", "--images", "20") == 0
        shown = capsys.readouterr().out
        assert re.search(r"^digit_error +[\d.]+ %  \([\d.]+ to [\d.]+, n = \d+\)$", shown, re.M)

        assert ramlib("evaluate", "tiny", "--run", "runs/tiny", "--images", "30", "--ship") == 0
        record = records.read("tiny")
        found = measure(recipe.task, weights.load("tiny"), "test", 30)
        assert record["metrics"]["error"] == found["error"].as_dict()
        assert record["metrics"]["error"]["n"] == 30
        assert record["data"].startswith("synthetic twin of SVHN (the sample): 234 train")
        torch.manual_seed(shipping.NOISE_SEED)
        average = measure(recipe.task, weights.load("tiny"), "test", 30, passes=10)
        assert record["metrics"]["average_error"] == average["error"].as_dict()
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
        found = measure(forward.task, weights.load("both"), "test", 9)
        assert record["metrics"]["error"] == found["error"].as_dict()
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
        found = measure(TINY.task, model, "test", 60)
        assert record["metrics"]["error"] == found["error"].as_dict()
        assert record["metrics"]["missed"] == found["missed"].as_dict()
        assert record["metrics"]["validation_error"]["n"] == 60
        assert record["metrics"]["subset"] == shipping.count_subset(TINY, model)
        assert record["metrics"]["subset"]["n"] == 1000
        assert record["updates"] == 3
        assert record["images_seen"] == 12
        assert record["parameters"] == sum(p.numel() for p in model.parameters())
        assert (workshop / "records" / "tiny-curve.csv").read_text().startswith("step,")

        assert ramlib("list") == 0
        line = next(li for li in capsys.readouterr().out.splitlines() if li.startswith("tiny"))
        assert f"{found['error'].value:.2f} % test error" in line

        assert ramlib("evaluate", "tiny", "--images", "50", "--passes", "2") == 0  # what ships

    def test_train_stops_after_its_time_and_says_how_to_go_on(self, workshop, capsys):
        options = ("--runs", "my runs", "--set", "rate=3e-4")
        assert train("--max-time", "0.0001s", *options) == 0
        shown = capsys.readouterr().out
        assert "stopped at update 1 of 3 of tiny" in shown
        typed = shlex.split(shown.strip().partition("go on with: ")[2])
        assert typed == [
            *("ramlib", "train", "tiny", "--device", "cpu", "--quiet"),
            *(*options, "--resume"),
        ]
        assert not (workshop / "my runs/tiny/weights.safetensors").exists()
        assert ramlib(*typed[1:]) == 0
        shown = capsys.readouterr().out
        assert "the beginning" not in shown
        assert (workshop / "my runs/tiny/weights.safetensors").exists()
        # What it says next can be typed, too.
        typed = shlex.split(shown.strip().partition("measure them with: ")[2])
        assert ramlib(*typed[1:], "--images", "20") == 0

    def test_train_without_a_checkpoint_to_resume_says_that_it_begins(self, capsys):
        assert train("--resume", "--updates", "1") == 0
        shown = capsys.readouterr().out
        assert "no checkpoint in runs/tiny: training starts from the beginning" in shown

    def test_train_takes_any_field_and_the_row_of_its_record_says_so(self, workshop, capsys):
        more = ("--set", "updates=1", "--precision", "64-true")
        assert train("--set", "model.glimpses=3", *more) == 0
        kept = torch.load(workshop / "runs/tiny/last.ckpt", weights_only=True)["recipe"]
        assert kept["model"]["glimpses"] == 3
        own = ("tiny", "--run", "runs/tiny", "--set=model.glimpses=3")
        assert ramlib("evaluate", *own, "--set=updates=1", "--images=30", "--record") == 0
        record = records.read("tiny", workshop / "runs/tiny")
        assert record["row"] == "Tiny, model.glimpses=3, updates=1"
        assert (record["model"]["glimpses"], record["updates"]) == (3, 1)
        assert record["precision"] == "64-true"  # what was used, not what the recipe says

    def test_train_trains_what_a_recipe_starts_from_or_begins_anew(
        self, workshop, monkeypatch, capsys
    ):
        first, second = replace(TINY, updates=1), replace(TINY, name="second", start="tiny")
        for recipe in (first, second):
            monkeypatch.setitem(experiments.RECIPES, recipe.name, recipe)
        command = ("train", "second", "--device=cpu", "--quiet")
        assert ramlib(*command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "starts from 'tiny'" in line
        assert "--with-starts" in line
        assert "--fresh" in line
        assert ramlib(*command, "--fresh", "--runs=fresh") == 0
        assert ramlib(*command, "--with-starts") == 0
        assert "first tiny, 1 updates" in capsys.readouterr().out
        own, anew, start = (
            load_file(workshop / folder / "weights.safetensors")
            for folder in ("runs/second", "fresh/second", "runs/tiny")
        )
        assert {name for name in own if torch.equal(own[name], start[name])} < set(own)
        assert any(not torch.equal(own[name], anew[name]) for name in own)
        assert ramlib("list") == 0
        assert "(starts from tiny)" in capsys.readouterr().out

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

    def test_table_takes_the_rows_of_own_trainings_of_its_task(self, workshop, capsys):
        error = {"value": 12.34, "low": 11.0, "high": 13.0, "n": 100}
        for name, row in (("digit", "My own, six glimpses"), ("pairs", "Of another task")):
            record = dict.fromkeys(records.FIELDS, 0) | {
                **{"recipe": name, "row": row, "metrics": {"error": error}},
                **{"model": {"glimpses": 6}, "task": experiments.get(name).settings()["task"]},
            }
            records.write(record, workshop / "runs" / name)
        assert ramlib("table", "I", "--runs", "runs") == 0
        *_, last = (li for li in capsys.readouterr().out.splitlines() if li.startswith("|"))
        assert re.match(r"\| My own, six glimpses +\| 12\.34 ", last)

    def test_evaluate_on_the_sample_where_the_data_is_not_there(self, monkeypatch, capsys):
        monkeypatch.delenv("RAMLIB_DATA", raising=False)
        reader = ReaderConfig(size=4, hidden=8, shrink=8, glimpses=1)
        recipe = replace(TINY, task=HouseNumbers("twin"), model=reader, updates=1)
        monkeypatch.setitem(experiments.RECIPES, "tiny", recipe)
        assert train("--data", "sample") == 0
        command = ("evaluate", "tiny", "--run", "runs/tiny", "--images", "9")
        assert ramlib(*command) == 2
        assert "--data sample" in capsys.readouterr().err
        assert ramlib(*command, "--data", "sample") == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first.startswith("measured on: synthetic twin of SVHN (the sample)")

    def test_every_argument_of_every_command_has_help(self):
        (commands,) = (a for a in cli.parser()._actions if hasattr(a, "_name_parser_map"))
        assert {*commands.choices} == {"list", "train", "evaluate", "trials", "table", "data"}
        for name, sub in commands.choices.items():
            assert sub.description, name
            assert all(action.help for action in sub._actions), name


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
    (None, "train tiny --devices 3 --device cpu", "a batch of 4 does not divide among 3 processes"),
    (None, "train tiny --set rate", "a change reads like rate=3e-4, got 'rate'"),
    (None, "train tiny --set model.looks=6", "RAMConfig has no field 'looks'; it has glimpses, "),
    (None, "train tiny --set rate.x=6", "float has no field 'x'"),
    (None, "train tiny --set model.glimpses=six", "glimpses must be of type int, as 2 is"),
    (None, "train tiny --set model.context=1", "context must be of type bool, as True is"),
    (None, "train tiny --set model.glimpses=0", "glimpses must be at least 1, got 0"),
    (None, "train tiny --data nowhere", "the images of 'tiny' do not come from a folder"),
    (None, "train tiny --runs ~nobody-here/x", "there is no such home folder"),
    (None, "evaluate tiny --record", "--record needs --run"),
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
    (
        unfinished,
        "evaluate tiny --run runs/tiny",
        "finish it with: ramlib train tiny --runs runs --resume",
    ),
    (unfinished, "evaluate tiny --run runs/tiny --ship", "runs/tiny holds no finished training"),
    (damaged, "evaluate tiny --run runs/tiny", "weights.safetensors is damaged"),
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
        assert "starts from 'digit', whose weights neither ship" in capsys.readouterr().err

    def test_a_run_of_other_settings_is_not_shipped(self, workshop, capsys):
        assert train("--seed", "7") == 0
        assert ramlib("evaluate", "tiny", "--run", "runs/tiny", "--ship") == 2
        assert "seed=7 (now 0)" in capsys.readouterr().err
        assert not (workshop / "weights").exists()

    def test_a_shorter_run_is_not_shipped(self, workshop, capsys):
        assert train("--updates", "2") == 0
        assert ramlib("evaluate", "tiny", "--run", "runs/tiny", "--ship") == 2
        assert "stopped at update 2 of 3" in capsys.readouterr().err

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_gpu_that_is_not_there_is_not_measured_on(self, capsys):
        assert train("--updates", "1") == 0
        assert ramlib("evaluate", "tiny", "--run", "runs/tiny", "--device", "cuda") == 2
        assert "--device cuda: there is none here; the best is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stop", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (training.Stopped(15, 7, True), 143, "SIGTERM stopped the training at update 7"),
    ],
)
def test_a_stop_anywhere_is_one_line_and_its_own_status(stop, status, message, monkeypatch, capsys):
    def interrupted():
        raise stop

    monkeypatch.setattr(records, "read_all", interrupted)
    assert ramlib("list") == status
    assert capsys.readouterr().err == f"ramlib: {message}\n"


class TestShell:
    """What only a process of its own can show."""

    def shell(self, line, **environment):
        code = f"import sys; from ramlib.cli import main; sys.exit(main({line.split()!r}))"
        return subprocess.run(
            ["bash", "-c", f'"$PYTHON" -c "{code}"' + environment.pop("AFTER", "")],
            env={**os.environ, "PYTHON": sys.executable, **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )

    def test_as_a_module_a_wrong_name_is_one_line_and_no_traceback(self):
        command = [sys.executable, "-m", "ramlib", "train", "digitt"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("ramlib: get: no recipe is called 'digitt'; did you mean 'digit'?")

    def test_a_reader_that_has_seen_enough_is_no_error(self):
        done = self.shell("table III", AFTER=" | head -n1; exit ${PIPESTATUS[0]}")
        assert (done.returncode, done.stderr) in ((0, ""), (141, ""))
        assert done.stdout.startswith("**Table III.**")

    @pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
    def test_a_terminal_without_a_paths_letters_shows_them_escaped(self, encoding, workshop):
        command = "data house-numbers --out файл --train 2 --test 1 --quiet"
        done = self.shell(command, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(r"\u0444\u0430\u0439\u043b")


def test_a_home_folder_is_meant_by_its_sign(workshop, monkeypatch):
    monkeypatch.setenv("HOME", str(workshop / "home"))
    assert train("--updates", "1", "--runs=~/runs") == 0
    assert (workshop / "home/runs/tiny/weights.safetensors").exists()
    assert not (workshop / "~").exists()


def test_the_commands_of_the_twin_expand_it_too(workshop, monkeypatch):
    monkeypatch.setenv("HOME", str(workshop / "home"))
    assert ramlib("data", "house-numbers", "--out=~/twin", "--train=2", "--test=1", "--quiet") == 0
    assert (workshop / "home/twin/train/1.png").exists()
    monkeypatch.setenv("RAMLIB_DATA", "~")
    assert HouseNumbers("twin").root == workshop / "home/twin"
    sizes = ("--train=12", "--test=12", "--quiet")
    assert ramlib("data", "birds", "--out=~/birds", *sizes) == 0
    assert (workshop / "home/birds/bounding_boxes.txt").exists()

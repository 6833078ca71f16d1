"""Training survives: killed and resumed, or shared out, it ends at the same weights."""

import math
import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from tiny import CHECKPOINT_EVERY, NOISY, TINY
from tolerances import assert_near

from ramlib import experiments
from ramlib.data.tensors import TensorTask
from ramlib.experiments import records, training, weights
from ramlib.experiments.training import warmed_cosine
from ramlib.tasks import Task

# One process imports everything; the ones that are to be killed are forked from it.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["ramlib.experiments.training"])


@pytest.fixture(autouse=True)
def _few_canvases(monkeypatch):
    monkeypatch.setattr(training, "VALIDATION_BATCHES", 2)
    monkeypatch.setattr(training, "VALIDATION_BATCH", 4)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A recipe's weights and learning curve after a training that nobody disturbed."""

    @cache
    def train(recipe):
        folder = tmp_path_factory.mktemp(recipe.name)
        module, _ = tiny.train(recipe, folder)
        return module.model.state_dict(), records.curve(folder)

    return train


def killed(target, *arguments):
    """Run `target` in a process, which must end by SIGKILL."""
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def checkpoint_of(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


def assert_same(state, expected):
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


class TestKilled:
    @pytest.mark.parametrize("recipe", [TINY, NOISY], ids=["plain", "dropout and grid noise"])
    def test_anywhere_and_resumed_ends_at_the_same_weights(self, recipe, uninterrupted, tmp_path):
        weights, curve = uninterrupted(recipe)
        chance = random.Random(recipe.seed)
        for step in (9, 20, 30):
            killed(tiny.train_until, recipe, tmp_path, step, chance.randrange(1, 8000))
            assert step - CHECKPOINT_EVERY < checkpoint_of(tmp_path)["global_step"] < recipe.updates
        module, finished = tiny.train(recipe, tmp_path, resume=True)
        assert finished
        assert_same(module.model.state_dict(), weights)
        columns = ["step", "loss", "gradient norm"]
        pd.testing.assert_frame_equal(records.curve(tmp_path)[columns], curve[columns])

    @pytest.mark.parametrize("moment", ["half of the file", "before the move"])
    def test_while_a_checkpoint_is_written_goes_on_from_the_one_before(
        self, moment, uninterrupted, tmp_path
    ):
        weights, _ = uninterrupted(TINY)
        killed(tiny.train_until_writing, TINY, tmp_path, moment)
        assert checkpoint_of(tmp_path)["global_step"] == CHECKPOINT_EVERY
        (left_over,) = tmp_path.glob(".last.ckpt.*")
        module, _ = tiny.train(TINY, tmp_path, resume=True)
        assert_same(module.model.state_dict(), weights)
        assert not left_over.exists()


class TestStopped:
    def test_after_its_time_and_resumed_ends_at_the_same_weights(self, uninterrupted, tmp_path):
        module, finished = tiny.train(TINY, tmp_path, max_time=timedelta(microseconds=1))
        assert not finished
        done = module.global_step
        assert 0 < done < TINY.updates
        assert checkpoint_of(tmp_path)["global_step"] == done
        # The time counts anew: the second run takes steps of its own, and then stops again.
        module, finished = tiny.train(
            TINY, tmp_path, resume=True, max_time=timedelta(microseconds=1)
        )
        assert not finished
        assert done < module.global_step < TINY.updates
        module, finished = tiny.train(TINY, tmp_path, resume=True)
        assert finished
        assert_same(module.model.state_dict(), uninterrupted(TINY)[0])

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_by_a_signal_and_resumed_ends_at_the_same_weights(
        self, number, uninterrupted, tmp_path
    ):
        process = PROCESSES.Process(target=tiny.train_until_told, args=(TINY, tmp_path, 20, number))
        process.start()
        process.join(240)
        assert process.exitcode == 128 + number
        assert checkpoint_of(tmp_path / "tiny")["global_step"] == 21
        said = (tmp_path / "said").read_text()
        again = f"ramlib train tiny --device=cpu --quiet --runs={tmp_path} --resume"
        assert said == f"stopped at update 21 of 40 of tiny; go on with: {again}\n"
        module, finished = tiny.train(TINY, tmp_path / "tiny", resume=True, checkpoint_every=500)
        assert finished
        assert_same(module.model.state_dict(), uninterrupted(TINY)[0])

    def test_at_once_by_a_second_signal(self, tmp_path):
        twice = (signal.SIGINT, signal.SIGINT)
        process = PROCESSES.Process(target=tiny.train_until_told, args=(TINY, tmp_path, 3, *twice))
        process.start()
        process.join(240)
        assert process.exitcode == -signal.SIGINT

    def test_in_python_it_is_a_keyboard_interrupt_and_handlers_are_put_back(
        self, tmp_path, monkeypatch
    ):
        before = signal.getsignal(signal.SIGINT)
        step = training.Training.training_step

        def interrupted(self, *arguments):
            os.kill(os.getpid(), signal.SIGINT)
            return step(self, *arguments)

        monkeypatch.setattr(training.Training, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt, match="SIGINT stopped the training at update 1"):
            tiny.train(TINY, tmp_path)
        assert signal.getsignal(signal.SIGINT) is before
        assert checkpoint_of(tmp_path)["global_step"] == 1

    def test_a_finished_training_resumed_stays_as_it_is(self, tmp_path):
        recipe = replace(TINY, updates=2)
        first, _ = tiny.train(recipe, tmp_path)
        weights = {name: value.clone() for name, value in first.model.state_dict().items()}
        again, finished = tiny.train(recipe, tmp_path, resume=True)
        assert finished
        assert again.global_step == 2
        assert_same(again.model.state_dict(), weights)

    def test_shorter_than_a_checkpoint_it_is_measured_at_its_end(self, tmp_path):
        training.train(replace(TINY, updates=3), tmp_path, accelerator="cpu", quiet=True)
        measured = records.curve(tmp_path).dropna(subset="validation error, %")
        assert measured.step.tolist() == [2]

    def test_wall_time_is_that_of_all_parts(self, tmp_path):
        recipe, seconds = replace(TINY, updates=2), []
        for _ in range(2):
            tiny.train(recipe, tmp_path, resume=True)
            seconds.append(checkpoint_of(tmp_path)["callbacks"]["Throughput"]["seconds"])
            recipe = replace(recipe, updates=4)
            state = checkpoint_of(tmp_path)
            del state["recipe"]  # else a longer recipe is refused
            torch.save(state, tmp_path / "last.ckpt")
        assert 0 < seconds[0] < seconds[1]


def by_hand(recipe, updates, processes):
    """The same training in a plain loop, each step on one batch joined from the processes' own."""
    model = recipe.build().double()
    policy = set(model.f_ext.parameters())
    groups = [
        {"params": [p for p in model.parameters() if p not in policy], "share": 1.0},
        {"params": list(policy), "share": recipe.policy_share},
    ]
    optimiser = torch.optim.Adam(groups)
    for step in range(updates):
        parts = [
            recipe.task.sample(
                recipe.batch // processes,
                split="train",
                generator=torch.Generator().manual_seed(
                    recipe.seed * 2**32 + step * processes + process
                ),
            )
            for process in range(processes)
        ]
        images = torch.cat([part.images for part in parts]).double()
        labels = torch.cat([part.labels for part in parts])
        loss = model.loss(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        norm = sum(p.grad.square().sum() for p in model.parameters()).sqrt()
        cosine = (1 + math.cos(math.pi * step / updates)) / 2
        rate = recipe.rate * min((step + 1) / recipe.warmup, cosine)
        for p in model.parameters():
            p.grad.mul_(min(1.0, recipe.clip / (norm.item() + 1e-6)))
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
        optimiser.step()
    return model, {name: optimiser.state[p] for name, p in model.named_parameters()}


def assert_trained_by_hand(state, recipe, updates, processes):
    """Weights, and Adam's running mean of the gradients, agree."""
    model, moments = by_hand(recipe, updates, processes)
    for name, value in model.state_dict().items():
        assert_near(state["state_dict"][f"model.{name}"], value)
    # Lightning's optimiser holds the policy's parameters after all the others.
    policy = {id(p) for p in model.f_ext.parameters()}
    names = sorted(moments, key=lambda name: id(model.get_parameter(name)) in policy)
    (optimiser,) = state["optimizer_states"]
    for index, name in enumerate(names):
        assert_near(optimiser["state"][index]["exp_avg"], moments[name]["exp_avg"])


class TestGradient:
    def test_one_process_takes_the_steps_of_a_plain_loop(self, tmp_path):
        tiny.train(replace(TINY, updates=3), tmp_path, precision="64-true")
        assert_trained_by_hand(checkpoint_of(tmp_path), TINY, 3, processes=1)

    @pytest.mark.parametrize("nodes", [1, 2])
    def test_two_processes_take_the_steps_of_one_on_the_joined_batch(self, nodes, tmp_path):
        """Both on one machine, or one on each of two, which torchrun starts."""
        command = [sys.executable]
        if nodes == 2:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            command += ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
            command += ["--master-addr=127.0.0.1", f"--master-port={port}"]
        script = [tiny.__file__, str(tmp_path), "3", str(2 // nodes), str(nodes)]
        machines = [
            subprocess.Popen(
                [*command, *([f"--node-rank={rank}"] if nodes == 2 else []), *script],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(nodes)
        ]
        for machine in machines:
            said, _ = machine.communicate(timeout=280)
            assert (machine.returncode, said) == (0, "")  # quiet, in both processes
        state = checkpoint_of(tmp_path)
        assert_trained_by_hand(state, TINY, 3, processes=2)
        assert state["used"]["processes"] == 2

    def test_policy_learns_at_its_share_of_the_rate(self):
        module = training.Training(TINY)
        rest, policy = module.configure_optimizers()["optimizer"].param_groups
        assert policy["params"] == list(module.model.f_ext.parameters())
        assert len(rest["params"]) + len(policy["params"]) == len(list(module.parameters()))
        assert policy["initial_lr"] == pytest.approx(0.2 * rest["initial_lr"])


def test_what_is_compiled_is_the_loss(tmp_path, monkeypatch):
    compiled = []

    def compile_(function):
        compiled.append(function)
        return lambda *batch: 2 * function(*batch)

    monkeypatch.setattr(torch, "compile", compile_)
    short = replace(TINY, updates=1)
    plain, _ = tiny.train(short, tmp_path / "plain")
    assert compiled == []
    module, _ = tiny.train(short, tmp_path / "compiled", compiled=True)
    assert compiled == [module.model.learn]
    loss, doubled = (one.trainer.logged_metrics["loss"] for one in (plain, module))
    assert doubled == pytest.approx(2 * loss)


@pytest.mark.usefixtures("as_installed")
def test_numbers_of_numpy_and_own_tensors_can_be_resumed(tmp_path):
    task = TensorTask(torch.rand(40, 1, 30, 30), torch.arange(40) % 10)
    recipe = replace(TINY, task=task, rate=np.float64(1e-3), seed=np.int64(1), updates=np.int64(2))
    tiny.train(recipe, tmp_path, max_time=timedelta(microseconds=1))
    module, finished = tiny.train(recipe, tmp_path, resume=True)
    assert finished
    assert module.global_step == 2


class TestRate:
    def test_by_hand(self):
        """Four steps of warm-up, ten in all: the warm-up's quarters, then the cosine."""
        shares = [warmed_cosine(step, 4, 10) for step in (0, 1, 2, 3, 5, 9, 10)]
        expected = [0.25, 0.5, 0.75, 0.5 + math.cos(0.3 * math.pi) / 2, 0.5, 0.02447, 0]
        assert shares == pytest.approx(expected, abs=1e-5)

    def test_without_a_warm_up_it_starts_at_the_whole_rate(self):
        assert warmed_cosine(0, 0, 10) == 1

    def test_only_falls_after_the_warm_up(self):
        shares = [warmed_cosine(step, 10, 100) for step in range(101)]
        top = shares.index(max(shares))
        assert shares[: top + 1] == sorted(shares[: top + 1])
        assert shares[top:] == sorted(shares[top:], reverse=True)


class TestWhatIsSeen:
    def test_progress_bar_shows_loss_validation_error_and_images_per_second(self, tmp_path, capsys):
        tiny.train(replace(TINY, updates=12), tmp_path, quiet=False, checkpoint_every=5)
        shown = capsys.readouterr().out
        assert re.search(r"tiny: .*12/12", shown)
        for name in ("loss=", "validation error, %=", "images/s="):
            assert name in shown
        assert "v_num" not in shown

    def test_quiet_prints_nothing(self, tmp_path, capfd):
        tiny.train(replace(TINY, updates=1), tmp_path)
        assert capfd.readouterr() == ("", "")

    def test_curve_has_a_row_for_every_logged_step(self, uninterrupted):
        _, curve = uninterrupted(TINY)
        assert curve.step.tolist() == [6, 13, 20, 27, 34]  # steps count from 0
        assert set(curve) == {
            "step", "loss", "validation error, %", "gradient norm", "images/s"
        }  # fmt: skip
        assert curve.notna().all(axis=None)
        assert curve["validation error, %"].between(0, 100).all()


@pytest.mark.parametrize("precision", training.PRECISIONS)
def test_every_precision_trains(precision, tmp_path):
    module, finished = tiny.train(replace(TINY, updates=1), tmp_path, precision=precision)
    assert finished
    assert all(value.isfinite().all() for value in module.state_dict().values())


class TestBadInput:
    def refused(self, error, message, recipe=TINY, folder=None, **options):
        with pytest.raises(error, match=re.escape(message)):
            tiny.train(recipe, folder, **options)

    def test_a_checkpoint_is_not_overwritten(self, tmp_path):
        (tmp_path / "last.ckpt").write_bytes(b"precious")
        message = f"train: {tmp_path}/last.ckpt exists; resume it, or choose another folder"
        self.refused(FileExistsError, message, folder=tmp_path)
        assert (tmp_path / "last.ckpt").read_bytes() == b"precious"

    @pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04"])
    def test_a_damaged_checkpoint_is_named_with_its_cure(self, content, tmp_path):
        (tmp_path / "last.ckpt").write_bytes(content)
        with pytest.raises(ValueError, match=r"last\.ckpt is damaged .* delete it"):
            tiny.train(TINY, tmp_path, resume=True)

    def test_a_checkpoint_of_another_recipe_is_not_resumed(self, tmp_path):
        tiny.train(replace(TINY, updates=1), tmp_path)
        other = replace(NOISY, updates=1, row="A name changes nothing")
        message = (
            "model.alpha=0.0 (now 0.1), model.dropout=0.0 (now 0.3), "
            "model.recurrent_dropout=0.0 (now 0.3), seed=0 (now 3); finish it as it was begun"
        )
        self.refused(ValueError, message, other, tmp_path, resume=True)

    def test_a_whole_file_is_not_called_damaged(self, tmp_path):
        torch.save({"global_step": 3, "recipe": {"folder": Path("x")}}, tmp_path / "last.ckpt")
        with pytest.raises(ValueError, match="holds more than plain values") as error:
            tiny.train(TINY, tmp_path, resume=True)
        assert not re.search("damaged|delete", str(error.value))

    def test_what_was_used_is_kept_and_another_precision_is_not_resumed(self, tmp_path):
        recipe = replace(TINY, updates=1)
        tiny.train(recipe, tmp_path, precision="64-true")
        used = {"precision": "64-true", "processes": 1, "machine": records.machine()}
        assert checkpoint_of(tmp_path)["used"] == used
        message = "was made with precision=64-true (now 32-true)"
        self.refused(ValueError, message, recipe, tmp_path, resume=True)
        _, finished = tiny.train(recipe, tmp_path, resume=True, precision="64-true")
        assert finished

    def test_a_recipe_without_its_start_says_what_comes_first(self, tmp_path, monkeypatch):
        chain = [replace(TINY, name=name, start=start) for name, start in (("a", None), ("b", "a"))]
        for recipe in chain:
            monkeypatch.setitem(experiments.RECIPES, recipe.name, recipe)
        last = replace(TINY, name="c", start="b")
        assert training.lacking(last, tmp_path) == chain
        self.refused(FileNotFoundError, "starts from 'b', whose weights", last, tmp_path / "c")
        weights.save_weights(chain[1].build(), tmp_path / "b/weights.safetensors")
        assert training.lacking(last, tmp_path) == []

    @pytest.mark.usefixtures("as_installed")
    def test_a_task_that_lacks_something_is_told_what(self, tmp_path):
        class Bare:
            image_shape, classes = TINY.task.image_shape, 10

            def settings(self):
                return {}

        class Tuples(Bare, Task):
            def sample(self, count, *, split="train", generator):
                return tuple(TINY.task.sample(count, split=split, generator=generator))[:2]

        message = "the task Bare has no sample and no judge; derive it from ramlib.tasks.Task"
        self.refused(ValueError, message, replace(TINY, task=Bare()), tmp_path)
        message = "Tuples hands out batches of type tuple; a batch has images and labels"
        self.refused(TypeError, message, replace(TINY, task=Tuples()), tmp_path)

    def test_slurm_without_srun_is_one_line_with_the_cure(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SLURM_NTASKS", "2")
        with pytest.raises(ValueError, match=r"train: .*ntasks.*unset SLURM_NTASKS") as error:
            tiny.train(TINY, tmp_path)
        assert "\n" not in str(error.value)

    def test_a_folder_below_a_file_is_named(self, tmp_path):
        (tmp_path / "file").touch()
        message = f"train: folder {tmp_path}/file/run cannot be written (Not a directory)"
        self.refused(NotADirectoryError, message, folder=tmp_path / "file" / "run")

    def test_a_folder_on_a_read_only_disk_is_named(self, tmp_path, monkeypatch):
        def no_file(dir):  # also for tests that run as root, who may write everywhere
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(training.tempfile, "TemporaryFile", no_file)
        message = f"train: folder {tmp_path} cannot be written (Permission denied)"
        self.refused(PermissionError, message, folder=tmp_path)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"devices": 3}, "train: a batch of 4 does not divide among 3 processes"),
            ({"nodes": 3}, "train: a batch of 4 does not divide among 3 processes"),
            ({"devices": 0}, "train: devices must be at least 1, got 0"),
            ({"nodes": 0}, "train: nodes must be at least 1, got 0"),
            ({"checkpoint_every": 0}, "train: checkpoint_every must be at least 1, got 0"),
            (
                {"precision": "16-mixed"},
                "train: precision must be one of 32-true, 64-true, bf16-mixed, got '16-mixed'",
            ),
        ],
    )
    def test_refuses_and_says_why(self, options, message, tmp_path):
        self.refused(ValueError, message, folder=tmp_path, **options)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_refuses_a_gpu_that_is_not_there(self, tmp_path):
        with pytest.raises(ValueError, match=r"train: .*gpu"):
            training.train(TINY, tmp_path, accelerator="gpu", quiet=True)
        assert not Path(tmp_path / "last.ckpt").exists()

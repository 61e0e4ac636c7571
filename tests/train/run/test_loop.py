"""A run can be killed, stopped, starved of disk and of sense, and goes on or says why not."""

import errno
import itertools
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from colorcli.errors import DeviceError, OutputError, TrainingError, UsageError, WeightsError
from colorcli.train.recipe import AveragesSection, StageSection
from colorcli.train.run.averages import Averages
from colorcli.train.run.checkpoint import Checkpoint, Place
from colorcli.train.run.loop import SMOOTHING, rate_at, train
from colorcli.train.run.prefetch import Prefetched
from tests.train.runs import Told, curve, lend_drawings, silently, tensors, write_recipe

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORCLI_RUNS", str(folder))
        return silently(write_recipe(folder))


@pytest.fixture
def recipe(tmp_path, monkeypatch, whole):
    """A recipe whose run finds the drawings of the whole one."""
    monkeypatch.setenv("COLORCLI_RUNS", str(tmp_path))
    lend_drawings(whole / "drawings", tmp_path)
    return write_recipe(tmp_path)


# --- stopped and resumed ---------------------------------------------------------------------------------------------


def test_a_run_killed_at_any_moment_goes_on_as_if_it_had_never_stopped(recipe, tmp_path, whole):
    killed_at("autoencoder: step 5 ", recipe)   # one step after a checkpoint
    assert Checkpoint(tmp_path / "tiny" / "1-autoencoder").step() == 4
    run = silently(recipe)
    for stage, step in (("1-autoencoder", 6), ("2-sketch", 2)):
        expected, found = tensors(whole, stage, step), tensors(run, stage, step)
        assert expected.keys() == found.keys()
        assert any(name.startswith("moment.") for name in found) and any(name.startswith("average.") for name in found)
        assert [name for name in found if not torch.equal(found[name], expected[name])] == []
        assert curve(run, stage) == curve(whole, stage)


def killed_at(line: str, recipe: Path) -> None:
    """Run a recipe in a process of its own, and kill it as soon as it tells a line."""
    command = [sys.executable, "-m", "tests.train.runs", str(recipe)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    told = []
    for text in process.stdout:
        told.append(text)
        if text.startswith(line):
            process.kill()
            break
    assert process.wait() == -signal.SIGKILL, told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_the_step_with_a_checkpoint(recipe, tmp_path, number):
    class HandedOnError(Exception):
        pass

    def handed_on(*_):
        raise HandedOnError

    before = signal.signal(number, handed_on)
    try:
        told = Told(lambda step: os.kill(os.getpid(), number) if step == 3 else None)
        with pytest.raises(HandedOnError):
            train(recipe, print, device="cpu", progress=told)
    finally:
        signal.signal(number, before)
    # It comes after the third step and is seen after the fourth at the latest.
    assert Checkpoint(tmp_path / "tiny" / "1-autoencoder").step() in (3, 4)


def test_a_run_whose_time_is_over_has_a_checkpoint_of_its_last_step(recipe, tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("colorcli.train.run.loop.time.monotonic", lambda: 1.0 * next(clock))   # a second a look
    train(recipe, lambda _: None, device="cpu", minutes=0.1)
    step = Checkpoint(tmp_path / "tiny" / "1-autoencoder").step()
    assert 0 < step < 6
    assert curve(tmp_path / "tiny", "1-autoencoder")[-1]["step"] == step
    told = Told()
    train(recipe, print, device="cpu", minutes=0.05, changes=("seed=4",), progress=told)
    assert [line for line in told.lines if "goes on with seed 4 instead of 3" in line]


def test_running_means_begin_anew_when_something_else_is_minimized(recipe, tmp_path):
    folder = tmp_path / "tiny" / "1-autoencoder"

    def mean(*changes: str) -> float:
        silently(recipe, ("stages.autoencoder.cooling=0", *changes))
        return Checkpoint(folder).place().told["loss"]

    before = mean("stages.autoencoder.steps=2")
    shutil.copytree(folder, tmp_path / "kept")
    on = mean("stages.autoencoder.steps=3")
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "kept", folder)
    anew = mean("stages.autoencoder.steps=3", "stages.autoencoder.rate=2.0e-3")   # the loss before the step is the same
    assert on == pytest.approx(SMOOTHING * before + (1 - SMOOTHING) * anew, rel=1e-4)


def test_a_second_run_in_the_same_folder_is_refused(recipe, tmp_path):
    with FileLock(tmp_path / "tiny" / ".lock"), pytest.raises(UsageError, match="another process"):
        silently(recipe)


# --- a full disk -----------------------------------------------------------------------------------------------------


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(recipe, tmp_path, monkeypatch):
    folder, failures = tmp_path / "tiny" / "1-autoencoder", []

    def sometimes_full(tensors, path, metadata):
        if "step-4" in str(path):
            failures.append(Checkpoint(folder).step())
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        save_file(tensors, path, metadata)

    monkeypatch.setattr("colorcli.train.tensor_file.save_file", sometimes_full)
    told = Told()
    train(recipe, print, device="cpu", only="autoencoder", progress=told)
    assert failures == [2]   # the one before was there, and the run went on
    (warning,) = [line for line in told.lines if line.startswith("note: ")]
    assert "step-4.safetensors" in warning and "full" in warning and "step 2 stays" in warning
    assert Checkpoint(folder).step() == 6
    assert [path.name for path in folder.glob("*step*")] == ["step-6.safetensors"]


def test_the_last_checkpoint_has_to_be_written(recipe, tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("colorcli.train.tensor_file.save_file", full)
    with pytest.raises(OutputError, match=r"step-6\.safetensors.*there is none yet"):
        silently(recipe)
    assert list((tmp_path / "tiny" / "1-autoencoder").glob("*step*")) == []


def test_a_write_that_the_system_cuts_off_leaves_the_checkpoint_before(tmp_path):
    checkpoint, net = Checkpoint(tmp_path / "1-sketch"), nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(net.parameters())
    checkpoint.save(Place(1), {"net": net}, {}, optimizer)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))   # no file may be larger
    try:
        with pytest.raises(OutputError, match=r"step-2\.safetensors"):
            checkpoint.save(Place(2), {"net": net}, {}, optimizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (checkpoint.step(), [path.name for path in checkpoint.folder.glob("*step*")]) == (1, ["step-1.safetensors"])


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_the_newest_checkpoints_are_kept_and_one_that_is_damaged_says_what_to_do(tmp_path):
    checkpoint, net = Checkpoint(tmp_path / "1-sketch", keep=2), nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    for step in (5, 10, 15):
        checkpoint.save(Place(step), {"net": net}, {}, optimizer)
    assert sorted(path.name for path in checkpoint.folder.glob("step-*")) == [
        "step-10.safetensors", "step-15.safetensors"]
    checkpoint.file(15).write_bytes(b"cut off")
    with pytest.raises(WeightsError, match=r"step-15\.safetensors is damaged") as failure:
        checkpoint.restore({"net": net}, optimizer)
    assert "step 10" in (failure.value.hint or "")
    checkpoint.file(15).unlink()   # as the hint says
    assert checkpoint.step() == 10


def test_a_checkpoint_of_an_older_colorcli_is_read(tmp_path):
    net, other = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(net.parameters())
    moments = {"step": torch.tensor(7.0), "exp_avg": torch.ones(1, 2), "exp_avg_sq": torch.full((1, 2), 2.0)}
    save_file({
        "weights.net.weight": other.weight.detach(), "weights.net.bias": other.bias.detach(),
        "average.net.weight": torch.zeros(1, 2), "average.net.bias": torch.zeros(1),
        **{f"moment.0.{name}": value for name, value in moments.items()},   # counted, not named
    }, tmp_path / "step-7.safetensors")
    (tmp_path / "state.json").write_text('{"step": 7}')
    checkpoint = Checkpoint(tmp_path)
    averages = checkpoint.restore({"net": net}, optimizer)
    assert checkpoint.place() == Place(7)
    assert torch.equal(net.weight, other.weight) and torch.equal(averages["net.weight"], torch.zeros(1, 2))
    assert torch.equal(optimizer.state[net.weight]["exp_avg_sq"], moments["exp_avg_sq"])
    assert net.bias not in optimizer.state


def test_a_checkpoint_of_other_networks_is_refused(tmp_path):
    checkpoint, net = Checkpoint(tmp_path), nn.Linear(2, 2)
    checkpoint.save(Place(1), {"net": net}, {}, torch.optim.AdamW(net.parameters()))
    wider = nn.Linear(3, 2)
    with pytest.raises(WeightsError, match=r"net\.weight \(2, 3\)"):
        checkpoint.restore({"net": wider}, torch.optim.AdamW(wider.parameters()))


def test_the_curve_goes_back_to_where_the_checkpoint_is(tmp_path):
    checkpoint = Checkpoint(tmp_path)
    for step in (1, 2, 3):
        checkpoint.note({"step": step, "loss": 1.0})
    with (tmp_path / "curve.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')   # a kill in the middle of a line
    checkpoint.rewind(Place(2, line={"step": 2, "loss": 1.0}))
    assert [line["step"] for line in checkpoint.curve()] == [1, 2]
    checkpoint.rewind(Place(5, line={"step": 5, "loss": 0.5}))   # killed between checkpoint and line
    assert [line["step"] for line in checkpoint.curve()] == [1, 2, 5]


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_learned(recipe, tmp_path):
    changes = ("stages.autoencoder.rate=1.0e+30", "stages.autoencoder.warmup=0", "checkpoint_every=1")
    with pytest.raises(TrainingError, match=r"autoencoder broke down at step 2.*step-1\.safetensors") as failure:
        silently(recipe, changes)
    assert failure.value.exit_code == 8 and "rate" in (failure.value.hint or "")
    assert Checkpoint(tmp_path / "tiny" / "1-autoencoder").step() == 1


def test_half_precision_needs_a_gpu(recipe):
    with pytest.raises(DeviceError, match="fp16"):
        silently(recipe, ("precision=fp16",))


# --- what is told and shown ------------------------------------------------------------------------------------------


def test_each_line_of_the_curve_has_the_losses_and_validation_comes_when_it_is_due(whole):
    lines = curve(whole, "1-autoencoder")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "check_error" in line] == [4, 6]
    assert all(0 < line["error"] < 2 and line["gradient"] > 0 for line in lines)   # of pictures in -1..1


def test_a_run_shows_previews_and_writes_for_tensorboard(recipe, whole):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    changes = ("stages.autoencoder.steps=1", "stages.sketch.steps=1", "previews.every=1", "previews.pictures=1",
               "tensorboard=true", "validate_every=0")
    run = silently(recipe, changes)
    sheets = sorted(path.name for path in (run / "previews").iterdir())
    assert sheets == ["1-autoencoder-000001.png", "2-sketch-000001.png"]
    board = event_accumulator.EventAccumulator(str(run / "tensorboard" / "2-sketch"))
    board.Reload()
    (point,) = board.Scalars("train/rate")
    assert (point.step, point.value) == (1, pytest.approx(1e-3))


# --- pieces ----------------------------------------------------------------------------------------------------------


def test_the_rate_rises_stays_and_falls_to_a_tenth():
    stage = StageSection(name="sketch", steps=1000, batch=2, rate=2.0, warmup=10, cooling=0.4)
    assert [rate_at(stage, step) for step in (0, 4, 9, 600)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert rate_at(stage, 800) == pytest.approx(2.0 * 0.55)   # the middle of the half cosine, between 1 and 0.1
    assert rate_at(stage, 999) == pytest.approx(0.2, rel=1e-3)
    # Between two steps the rate never jumps: no more than the steepest slope of half a cosine over 400 steps.
    cooling = [rate_at(stage, step) for step in range(600, 1000)]
    assert max(a - b for a, b in itertools.pairwise(cooling)) < 2.0 * 0.45 * math.pi / 400 * 1.01
    constant = StageSection(name="xl-base", steps=1000, batch=2, rate=1e-5)
    assert {rate_at(constant, step) for step in range(1000)} == {1e-5}   # as published


def test_averages_follow_the_weights_and_only_those_they_are_for():
    weight, other = torch.zeros(1), torch.zeros(1)
    averages = Averages(AveragesSection(decay=0.9, of="unet"), {"unet.a": weight, "projection.b": other}, {})
    weight += 1
    averages.follow(0)   # decay 1/10: by the warm-up of the published averages
    assert averages.tensors["unet.a"] == pytest.approx(0.9)
    averages.follow(10**6)
    assert averages.tensors["unet.a"] == pytest.approx(0.9 * 0.9 + 0.1)
    assert list(averages.tensors) == ["unet.a"]
    with averages.shown():
        assert weight == pytest.approx(0.91)
    assert (weight, averages.tensors["unet.a"]) == (1, pytest.approx(0.91))


def test_batches_made_ahead_are_the_same_and_are_not_more_than_asked_for():
    made = []

    def make(turn):
        made.append(turn)
        return turn * turn

    with Prefetched(range(100), make, ahead=2) as batches:
        assert [next(batches) for _ in range(3)] == [0, 1, 4]
    assert len(made) <= 3 + 2 + 1   # read, waiting, in the maker's hand
    with Prefetched(range(4), make, ahead=0) as batches:
        assert list(batches) == [0, 1, 4, 9]
    with Prefetched(range(4), lambda turn: 1 // turn, ahead=2) as batches, pytest.raises(ZeroDivisionError):
        next(batches)

"""Several processes learn what one learns that sees all of their batches."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.train.runs import curve, lend_drawings, silently, tensors, write_recipe

ROOT = Path(__file__).parents[3]
RECIPE = """\
name: tiny
model: mini
ema: {decay: 0.9}
drawings: {characters: 4, poses: 2, validation_characters: 2}
stages:
  - {name: sketch, steps: 3, batch: 2, rate: 1.0e-3}
  - {name: colorizer, steps: 1, batch: 2, rate: 1.0e-3}   # it has networks in common with the stage before
checkpoint_every: 2
curve_every: 1
validate_every: 0
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process that sees two batches in each step."""
    folder = tmp_path_factory.mktemp("alone")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORCLI_RUNS", str(folder))
        yield silently(write_recipe(folder, RECIPE), ("accumulation=2",))
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def together(tmp_path_factory, alone):
    """Two processes that see one batch each, as torchrun starts them; and what each of them printed."""
    folder = tmp_path_factory.mktemp("together")
    lend_drawings(alone / "drawings", folder)
    recipe = write_recipe(folder, RECIPE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"COLORCLI_RUNS": str(folder), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen([sys.executable, "-m", "colorcli", "train", str(recipe), "--device", "cpu"], cwd=ROOT,
                         env={**os.environ, **group, "RANK": rank, "LOCAL_RANK": rank},
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in ("0", "1")
    ]
    told = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    return folder / "tiny", told


def test_two_processes_have_the_gradients_of_one_that_sees_both_batches(alone, together):
    run, _ = together
    expected, found = curve(alone, "1-sketch"), curve(run, "1-sketch")
    assert [line["step"] for line in found] == [1, 2, 3]
    for name in ("loss", "accuracy", "gradient"):
        assert [line[name] for line in found] == pytest.approx([line[name] for line in expected], rel=1e-3, abs=2e-4)


def test_two_processes_have_the_weights_of_one_that_sees_both_batches(alone, together):
    run, _ = together
    expected, found = tensors(alone, "1-sketch", 3), tensors(run, "1-sketch", 3)
    assert expected.keys() == found.keys()

    def apart(one: dict[str, Tensor], other: dict[str, Tensor], kind: str) -> float:
        return max(float((one[name] - other[name]).abs().mean()) for name in one if name.startswith(kind))

    start = {name: torch.zeros_like(value) for name, value in expected.items()}
    # Sums in another order differ in the last bits; the step of AdamW makes at most a little more of it.
    assert apart(expected, found, "weights.") < 1e-5
    assert apart(expected, found, "moment.") < 1e-5 * max(1.0, apart(expected, start, "moment."))


def test_a_stage_with_networks_of_the_stage_before_learns_the_same_too(alone, together):
    run, _ = together
    (expected,), (found,) = curve(alone, "2-colorizer"), curve(run, "2-colorizer")
    for name in ("loss", "diffusion", "gradient"):
        assert found[name] == pytest.approx(expected[name], rel=1e-3, abs=2e-4)


def test_only_the_first_process_speaks_and_writes(together):
    run, (first, second) = together
    assert "sketch: step 3 " in first
    assert second == ""
    assert sorted(path.name for path in (run / "1-sketch").iterdir()) == [
        "curve.jsonl", "state.json", "step-3.safetensors"]
    assert (run / "model" / "weights.json").is_file()

"""`colorcli bench`: a large model without weights, shrunk, through the command; what is refused; what the file says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate import init_empty_weights
from torch import nn

from colorcli.cli.bench import COLUMNS, row_of
from colorcli.cli.main import main
from colorcli.speed import random_model
from colorcli.variants import VARIANTS
from tests import tiny_xl


@pytest.fixture
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """xl and xlv2, each part as narrow as a test can run it."""

    def hollow(adapter: bool) -> dict[str, nn.Module]:
        with init_empty_weights(include_buffers=False):
            parts = tiny_xl.components(adapter=adapter)
        return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}

    for name, adapter in (("xl", False), ("xlv2", True)):
        monkeypatch.setitem(random_model.NETWORKS, name, lambda adapter=adapter: hollow(adapter))
        monkeypatch.setitem(VARIANTS, name, replace(VARIANTS[name], min_side=64))


def bench(tmp_path: Path, *options: str) -> dict[str, Any]:
    file = tmp_path / "bench.json"
    assert main(["bench", "--device", "cpu", "--json", str(file), *options]) == 0
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_a_large_model_without_weights_is_compared_with_the_plain_loop(
    shrunk: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = bench(
        tmp_path, "--compare", "--random-weights", "--model=xlv2", "--size=96x64", "--steps=2", "--guidance=3",
        "--rounds=1", "--memory=full", "--set=sampling.sampler=euler",
    )  # fmt: skip
    assert found["random_weights"] and found["steps"] == 2 and found["guidance"] == 3
    (size,) = found["sizes"]
    assert size["canvas"] == "96x64"
    # The stock network with two full rows is another program: to paint the same it has to mean the same.
    ours = size["ways"]["ours"]
    assert ours["equivalence"]["max_difference"] < 1e-4
    assert size["without_guidance"]["max_difference"] > 0.01   # and the picture is none that is the same in any case
    background = size["ways"]["ours, with a background"]
    assert background["like"] == "ours, background projected in each call"
    assert background["equivalence"]["max_difference"] < 1e-5
    assert size["flops_per_frame"]["ours"] < size["flops_per_frame"]["plain"]
    shown = capsys.readouterr().out
    assert "times plain" in shown and "with random weights" in shown


def test_when_time_is_up_the_plain_loop_and_ours_are_known(shrunk: None, tmp_path: Path) -> None:
    found = bench(
        tmp_path, "--compare", "--random-weights", "--model=xl", "--size=96x64", "--steps=1", "--minutes=0",
        "--precision=bf16", "--set=sampling.sampler=euler",
    )  # fmt: skip
    ways = found["sizes"][0]["ways"]
    assert ways["ours"]["ratio"] and ways["plain"]["ratio"]["median"] == 1
    assert ways["plain in fp32"] == {"problem": "no time was left"}
    assert found["sizes"][0]["rounds"] == 1


def test_without_a_comparison_the_stages_are_timed(shrunk: None, tmp_path: Path) -> None:
    (size,) = bench(
        tmp_path, "--random-weights", "--model=xl", "--size=96x64", "--frames=1", "--steps=1", "--guidance=1",
        "--set=sampling.sampler=euler", "--set=canvas.size=[96,64]",
    )["sizes"]  # fmt: skip
    assert set(size["seconds"]) == {"read", "prepare", "color", "finish", "write"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--random-weights", "knows xl and xlv2, not mini"),
        ("--compare --model v2", "not v2"),
        ("--size 10x10", "no frame size"),
        ("--json nowhere/bench.json", "the folder of --json nowhere/bench.json is not there"),
        ("--random-weights --model xl --device cpu --precision fp16", "fp16 does not run on the cpu"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    options: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a model is loaded."""
    assert main(["bench", *options.split()]) == 2
    assert words in capsys.readouterr().err


def test_every_row_of_the_table_has_all_columns() -> None:
    numbers = {"median": 1.0, "low": 1.0, "high": 1.0}
    timed = {"seconds_per_frame": numbers, "ratio": numbers, "share_of_matmul": 0.5, "memory_bytes": 2**30}
    near = {"like": "plain", "equivalence": {"max_difference": 1e-6, "delta_e_p99": 0.001}}
    for way in ({"problem": "memory is used up"}, {"memory_bytes": None}, timed, timed | near):
        assert len(row_of("ours", way)) == len(COLUMNS)

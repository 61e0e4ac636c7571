"""What doctor says of the models: whether they run here, on which canvas, and with what set."""

import re
from pathlib import Path

import pytest

from colorcli.cli.doctor import GIB, _free_bytes, driver_version, how_it_runs
from colorcli.model.memory import SIZES, choose_precision, choose_profile, fits


@pytest.mark.parametrize(("model", "card", "profile"), [
    ("xl", 7.4, "8g"), ("xlv2", 7.4, "8g"), ("xlv2", 11.2, "12g"), ("xl", 15.5, "24g"), ("xlv2", 46, "full"),
])
def test_a_common_card_runs_the_large_models_at_their_own_size(model: str, card: float, profile: str) -> None:
    said = how_it_runs(model, "cuda", int(card * GIB), 1024, 512)
    assert said.startswith("canvas 1024x1024: on cuda in fp16") and f"memory {profile}" in said and "slow" not in said


def test_what_is_asked_for_is_what_makes_it_fit() -> None:
    for free in range(2, 24):
        said = how_it_runs("xl", "cpu", free * GIB, 1024, 512)
        if said.startswith("not"):
            continue
        side = int(re.match(r"canvas (\d+)x", said)[1])  # type: ignore[index]
        asked = re.search(r"--precision (\w+)", said)
        precision = choose_precision(asked[1] if asked else "auto", "cpu", "xl")
        profile = choose_profile("auto", "cpu", free * GIB, "xl", (side, side), precision)
        assert fits(profile, free * GIB, "xl", (side, side)), said
        assert (f"canvas.area={side * side}" in said) == (side != 1024)


def test_a_machine_that_is_too_small_is_told_how_much_is_missing() -> None:
    said = how_it_runs("xlv2", "cpu", 4 * GIB, 1024, 512)
    assert said.startswith("not on this machine: needs ") and "4.0 are free" in said
    needed = float(re.search(r"needs ([\d.]+) GiB", said)[1])  # type: ignore[index]
    assert needed > 2 * sum(SIZES["xlv2"].parameters.values()) / GIB


def test_the_driver_is_read_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "version"
    monkeypatch.setattr("colorcli.cli.doctor.NVIDIA_DRIVER", told)
    assert driver_version() is None
    told.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC\n")
    assert driver_version() == "550.54.14"


def test_room_for_models_is_that_of_the_disk_they_would_lie_on(tmp_path: Path) -> None:
    assert _free_bytes(tmp_path / "not" / "yet" / "there") == pytest.approx(_free_bytes(tmp_path), rel=0.01)

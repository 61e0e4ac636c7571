"""Every phase finds its parts on the device, and nothing moves while it runs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from colorcli.model.memory import (
    GIB,
    PHASES,
    PRECISIONS,
    PROFILES,
    RUNTIME,
    MemoryProfile,
    activations,
    choose_profile,
    part_bytes,
)
from colorcli.model.residency import Residency


def residency(profile: MemoryProfile, parameters: Any) -> tuple[Residency, list[tuple[str, bool]]]:
    """A residency over empty networks of given sizes, and the list into which it writes its moves."""
    moves: list[tuple[str, bool]] = []
    components: dict[str, nn.Module] = {}
    names: dict[int, str] = {}
    with torch.device("meta"):
        for name, count in parameters.items():
            if name == "context":
                continue
            module = nn.Module()
            module.weight = nn.Parameter(torch.empty(count, dtype=torch.uint8), requires_grad=False)
            names[id(module.weight)] = name
            if name == "unet" and "context" in parameters:
                layer = nn.Linear(1, parameters["context"], bias=False)
                layer.weight = nn.Parameter(layer.weight.data.to(torch.uint8), requires_grad=False)
                module.block = nn.ModuleDict({"attn2": nn.ModuleDict({"to_k": layer})})
                names[id(layer.weight)] = "context"
            components[name] = module

    def watch(tensors: Any, device: torch.device | None) -> None:
        moves.append((names[id(tensors[0])], device is not None))

    return Residency(components, "cuda", profile, watch), moves


PARTS = dict.fromkeys(("unet", "context", "vae", "sketch_encoder", "image_encoder", "tagger", "projection"), GIB)


def test_with_room_for_all_everything_goes_there_once_and_stays():
    watched, moves = residency(PROFILES["full"], PARTS)
    assert watched.there == PARTS.keys()
    moves.clear()
    for phase in PHASES:
        with watched.phase(phase):
            assert watched.there == PARTS.keys()
    assert moves == []


def test_where_it_fits_nothing_moves_between_frames():
    profile = choose_profile("auto", "cuda", 12 * GIB, "xl", (1024, 1024), PRECISIONS["fp16"])
    watched, moves = residency(profile, part_bytes(profile, "xl"))
    for _ in range(3):
        moves.clear()
        for phase in ("read frame", "denoise", "decode"):
            with watched.phase(phase, activations(profile, "xl", phase, (1024, 1024))):
                pass
    assert moves == []


def test_a_phase_has_its_parts_and_the_others_make_room_for_them():
    tight = replace(PROFILES["8g"], budget=RUNTIME + 3 * GIB)
    watched, _ = residency(tight, PARTS)
    assert watched.there == set()
    with watched.phase("read key"):
        assert watched.there == {"image_encoder", "tagger", "projection"}
    with watched.phase("project"):
        assert "context" in watched.there
    with watched.phase("denoise"):
        assert "unet" in watched.there and len(watched.there) <= 3
    with watched.phase("decode", activations=2 * GIB):
        assert watched.there == {"vae"}


def test_what_was_used_longest_ago_makes_room_first():
    watched, moves = residency(replace(PROFILES["8g"], budget=RUNTIME + 3 * GIB), PARTS)
    for phase in ("project", "denoise", "decode"):
        with watched.phase(phase):
            pass
    moves.clear()
    with watched.phase("read frame"):
        pass
    assert moves == [("context", False), ("sketch_encoder", True)]


def test_nothing_moves_inside_a_phase():
    watched, moves = residency(replace(PROFILES["8g"], budget=0), PARTS)
    with watched.phase("denoise"):
        moves.clear()
        with pytest.raises(AssertionError, match="begins inside"), watched.phase("decode"):
            pass
        watched.clear()
        assert moves == [] and watched.there == {"unet"}
    watched.clear()
    assert moves == [("unet", False)] and watched.there == set()


def test_a_part_of_which_only_some_fits_is_taken_away_again():
    gone: list[bool] = []

    def half(tensors: Any, device: torch.device | None) -> None:
        gone.append(device is None)
        if device is not None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    full = Residency({"unet": nn.Linear(3, 3)}, "cpu", replace(PROFILES["8g"], budget=0), half)
    with pytest.raises(torch.OutOfMemoryError), full.phase("denoise"):
        pass
    full.clear()
    assert gone == [False, True] and full.there == set()


def test_a_part_that_no_phase_knows_is_there_in_all_of_them():
    watched, _ = residency(replace(PROFILES["8g"], budget=0), {**PARTS, "newcomer": 5})
    for phase in PHASES:
        with watched.phase(phase):
            assert "newcomer" in watched.there


def test_weights_come_home_as_they_left():
    """On the CPU nothing is copied, so the tensors themselves are looked at."""
    parts = {"unet": nn.Linear(3, 3), "vae": nn.BatchNorm2d(2)}
    before = {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in parts.items()}
    places_ = {id(tensor): tensor.data_ptr() for part in parts.values() for tensor in part.parameters()}
    moved = Residency(parts, "cpu", replace(PROFILES["8g"], budget=0))
    for phase in ("denoise", "decode", "denoise"):
        with moved.phase(phase):
            pass
    moved.clear()
    for name, part in parts.items():
        assert all(torch.equal(value, before[name][key]) for key, value in part.state_dict().items())
        assert all(tensor.data_ptr() == places_[id(tensor)] for tensor in part.parameters())

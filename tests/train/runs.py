"""Small training runs of mini, whose drawings are drawn once for all tests."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from colorcli.train.run.loop import train
from colorcli.train.run.progress import Lines

RECIPE = """\
name: tiny
model: mini
seed: 3
accumulation: 2
optimizer: {betas: [0.9, 0.99], clip: 1.0}
ema: {decay: 0.9}
drawings: {characters: 8, poses: 2, validation_characters: 8}
stages:
  - {name: autoencoder, steps: 6, batch: 2, rate: 1.0e-3, warmup: 2, cooling: 0.5}
  - {name: sketch, steps: 2, batch: 2, rate: 1.0e-3}
checkpoint_every: 2
curve_every: 1
validate_every: 4
"""


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """Write a recipe beside the runs it makes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path


def lend_drawings(drawn: Path, folder: Path) -> None:
    """Let a run in a folder find the drawings that another one has drawn."""
    (folder / "tiny").mkdir(parents=True, exist_ok=True)
    (folder / "tiny" / "drawings").symlink_to(drawn)


def silently(recipe: Path, changes: tuple[str, ...] = ()) -> Path:
    """Run a recipe and hear nothing of it."""
    return train(recipe, lambda _: None, device="cpu", changes=changes)


def curve(run: Path, stage: str) -> list[dict[str, float]]:
    """Read a curve without the times, which no two runs have in common."""
    lines = [json.loads(line) for line in (run / stage / "curve.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds_per_step"} for line in lines]


def tensors(run: Path, stage: str, step: int) -> dict[str, Tensor]:
    """Read all tensors of a checkpoint: weights, averages, moments."""
    return load_file(run / stage / f"step-{step}.safetensors")


class Told(Lines):
    """Keeps what is told, and calls `at` after each step."""

    def __init__(self, at: Any = lambda step: None) -> None:
        self.lines: list[str] = []
        super().__init__(self.lines.append)
        self._at = at

    def step(self, news: Any) -> None:
        self._at(news.step)


if __name__ == "__main__":   # as a process of its own: runs.py RECIPE, every line at once
    import sys

    import torch

    from colorcli import console

    torch.set_num_threads(1)
    train(Path(sys.argv[1]), console.say, device="cpu", changes=tuple(sys.argv[2:]))

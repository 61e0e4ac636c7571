"""What a training run does: the drawings, the stages and their budgets, read from a YAML recipe."""

import os
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from colorcli.errors import PresetError

StageName = Literal["autoencoder", "tagger", "sketch", "colorizer", "matcher"]


class Section(BaseModel):
    """A frozen part of a recipe; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DrawingsSection(Section):
    """The generated characters that are trained on."""

    characters: int = Field(2000, ge=2, description="count of characters")
    poses: int = Field(3, ge=2, description="drawings of each character")
    validation_characters: int = Field(48, ge=2, description="characters of families never trained on")


class PairsSection(Section):
    """The generated characters whose regions the matcher learns to find in their key."""

    characters: int = Field(2000, ge=2, description="count of characters, none of which the networks learned from")
    frames: int = Field(4, ge=1, description="drawings of each character beside its key")
    validation_characters: int = Field(60, ge=2, description="characters of families never trained on")


class StageSection(Section):
    """One stage of the run."""

    name: StageName
    steps: int = Field(ge=1, description="optimizer steps")
    batch: int = Field(ge=2, description="drawings in a step")
    rate: float = Field(gt=0, description="learning rate of AdamW")
    warmup: int = Field(50, ge=0, description="steps over which the rate rises")


class Recipe(Section):
    """A training run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    license: str = Field("Apache-2.0", description="SPDX id that the weights are given")
    seed: int = 1
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: matrix products in half the bits, where fast")
    drawings: DrawingsSection = DrawingsSection()
    pairs: PairsSection = PairsSection()
    stages: tuple[StageSection, ...]
    checkpoint_every: int = Field(50, ge=1, description="steps between two checkpoints")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; raises PresetError naming the file and the key that is wrong."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PresetError(f"{path} cannot be read: {error.strerror}", hint="give the path of a recipe") from error
    except yaml.YAMLError as error:
        raise PresetError(f"{path} is not valid YAML: {error}", hint="see recipes/mini.yaml") from error
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PresetError(f"{path}: {where}: {first['msg']}", hint="see recipes/mini.yaml") from error


def runs_folder() -> Path:
    """Give the folder that holds all training runs: $COLORCLI_RUNS, or ~/.cache/colorcli/runs."""
    return Path(os.environ.get("COLORCLI_RUNS") or Path.home() / ".cache" / "colorcli" / "runs")

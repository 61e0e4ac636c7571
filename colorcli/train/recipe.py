"""What a training run does: the model, the data, the stages and their budgets, read from a YAML recipe. No torch."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from colorcli.errors import PresetError, UsageError
from colorcli.settings import NodeReader, allowed_values, parse_yaml, read_yaml, shown
from colorcli.train.sections import (
    AblationSection,
    DiffusionSection,
    DistillSection,
    DropSection,
    GramSection,
    LoraSection,
    Section,
    SheetsSection,
)

StageName = Literal[
    "autoencoder", "tagger", "sketch", "colorizer", "matcher", "distill",  # mini, from nothing
    "xl-base", "xl-refine", "v2-background", "v2-style", "switch",         # the published systems
    "lora",                                                                # one show's model sheets
]
# Stages whose networks only mini has.
MINI_ONLY = frozenset({"autoencoder", "tagger", "sketch", "colorizer", "matcher", "distill"})
# Stages that go on from a trained model: where one is the first, mini is the shipped one and not begun from nothing.
GO_ON = frozenset(get_args(StageName)) - {"autoencoder", "tagger", "sketch", "colorizer", "matcher"}
# Keys that hold paths: in a recipe they are seen from the recipe's folder, in --set from where one stands.
PATHS = ("model", "start_from", "pictures.folder", "pictures.validation_folder", "sheets.folder")
EXAMPLE = "recipes/mini.yaml is an example"


class DrawingsSection(Section):
    """The generated characters that are trained on."""

    characters: int = Field(2000, ge=2, description="count of characters")
    poses: int = Field(3, ge=2, description="drawings of each character")
    side: int = Field(320, ge=96, description="canvases have about the area of a square of this side, pixels")
    background: Literal["plain", "flat", "busy"] | None = Field(
        None, description="what is behind every character; unset: by lot, mostly blank paper"
    )
    validation_characters: int = Field(48, ge=2, description="characters of families never trained on")
    same_pose: float = Field(
        0.15, ge=0, le=1, description="published stages: drawings that are their own reference, published is 1"
    )


class PairsSection(Section):
    """The generated characters whose regions the matcher learns to find in their key."""

    characters: int = Field(2000, ge=2, description="count of characters, none of which the networks learned from")
    frames: int = Field(4, ge=1, description="drawings of each character beside its key")
    validation_characters: int = Field(60, ge=2, description="characters of families never trained on")


class PicturesSection(Section):
    """A studio's own pictures, in the published layout: color/, sketch/, mask/ and an index."""

    folder: Path = Field(description="holds color/, sketch/, mask/")
    validation_folder: Path | None = Field(None, description="the same, never trained on; unset: no validation")
    like: Literal["xl", "v2", "v1-768", "v1-512"] | None = Field(
        None, description="whose training decides on sizes, filters and what is done at random; unset: by the stage"
    )
    side: int | None = Field(None, ge=64, description="of the square canvas, pixels; unset: as published")
    reference_side: int | None = Field(None, ge=32, description="of the square reference, pixels; unset: by the canvas")
    reference: Literal["self", "listed", "every", "archive"] = Field(
        "self", description="the picture itself; a listed one by lot; every listed one; any of the same archive"
    )
    min_score: float | None = Field(None, ge=0, description="pictures scored lower are left out; unset: as published")
    min_side: int | None = Field(None, ge=1, description="so are pictures with a shorter side; unset: as published")
    flat_background: float = Field(0.0, ge=0, le=1, description="pictures with references that get one plain color")
    flip: float | None = Field(None, ge=0, le=1, description="pictures that are mirrored; unset: as published")
    segment: int = Field(1, ge=1, description="pictures of one archive that come together; batches are multiples of it")
    readers: int = Field(4, ge=1, le=64, description="threads that read and decode")


class OptimizerSection(Section):
    """AdamW; the published trainers keep the defaults of the library and shorten no gradient."""

    betas: tuple[float, float] = Field((0.9, 0.999), description="of the running means")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    clip: float | None = Field(None, gt=0, description="gradients longer than this are shortened to it; unset: none")


class AveragesSection(Section):
    """Running averages of the weights (EMA), which are what is validated, shown and exported."""

    decay: float = Field(0.9999, gt=0, lt=1, description="at step n it is min(decay, (1 + n) / (10 + n))")
    of: Literal["all", "unet"] = Field("all", description="unet: the weights of other networks are not averaged")


class PreviewsSection(Section):
    """Validation drawings colored in between, as pictures in the run's folder."""

    every: int = Field(0, ge=0, description="steps between two previews, 0: none")
    pictures: int = Field(4, ge=1, description="drawings that are colored")


class StageSection(Section):
    """One stage of the run."""

    name: StageName
    steps: int = Field(ge=1, description="optimizer steps")
    batch: int = Field(ge=1, description="drawings in a micro-batch: a step sees batch x accumulation x processes")
    rate: float = Field(gt=0, description="learning rate of AdamW")
    scaled_rate: bool = Field(
        False, description="the rate is that of one picture: times batch, accumulation and processes; published: off"
    )
    warmup: int = Field(0, ge=0, description="steps over which the rate rises")
    cooling: float = Field(0.0, ge=0, le=1, description="last share of the steps, over which the rate falls to a tenth")
    gram: GramSection = GramSection()
    diffusion: DiffusionSection = DiffusionSection()
    drop: DropSection = DropSection()
    ablation: AblationSection = AblationSection()
    lora: LoraSection = LoraSection()
    distill: DistillSection = DistillSection()


class Recipe(Section):
    """A training run."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="of the run's folder and of the model it makes")
    model: str = Field("mini", description="name or folder of the model to begin with; the stages of mini: none")
    start_from: Path | None = Field(None, description="model folder whose weights replace those of `model`")
    license: str | None = Field(
        None, description="SPDX id that the weights are given; unset: that of the model they began with"
    )
    seed: int = Field(1, ge=0, description="of everything that is drawn at random")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of matrix products and convolutions; trained weights are always kept in fp32"
    )
    accumulation: int = Field(1, ge=1, description="micro-batches whose gradients make one step")
    checkpointing: bool = Field(False, description="compute activations twice instead of keeping them in memory")
    optimizer: OptimizerSection = OptimizerSection()
    ema: AveragesSection | None = Field(None, description="running averages; unset: none")
    drawings: DrawingsSection = DrawingsSection()
    pairs: PairsSection = PairsSection()
    pictures: PicturesSection | None = Field(None, description="unset: published stages learn from drawings")
    sheets: SheetsSection | None = Field(None, description="the pictures of a show, for the stage lora")
    stages: tuple[StageSection, ...] = Field(min_length=1, description="one after the other")
    checkpoint_every: int = Field(50, ge=1, description="steps between two checkpoints")
    keep: int = Field(1, ge=1, description="newest checkpoints of a stage that stay")
    curve_every: int = Field(50, ge=1, description="steps between two lines of the curve")
    validate_every: int = Field(200, ge=0, description="steps between two validations, 0: at the end of a stage only")
    previews: PreviewsSection = PreviewsSection()
    tensorboard: bool = Field(False, description="write the curve for TensorBoard too")

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        from_nothing = [stage.name for stage in self.stages if stage.name in MINI_ONLY]
        if self.model != "mini" and from_nothing:
            raise ValueError(f"the stage {from_nothing[0]} is one of mini, but model is {self.model}")
        names = [stage.name for stage in self.stages]
        if "lora" in names and len(names) > 1:
            raise ValueError("the stage lora makes a file of its own and no model, so it is the only one of its recipe")
        if "lora" in names and self.sheets is None:
            raise ValueError("the stage lora learns from a show's pictures, so the recipe needs sheets: {folder: ...}")
        return self


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe, with changes such as "drawings.poses=4" or "stages.sketch.steps=100" laid over it.

    Raises PresetError naming the file, the line and the key that is wrong, UsageError for a change that is none.
    """
    node = read_yaml(path)
    values = NodeReader(str(path)).value(node) if node is not None else None
    if not isinstance(values, dict):
        raise PresetError(f"{path} holds {shown(values)}, but a recipe holds keys such as `stages:`", hint=EXAMPLE)
    for key in PATHS:
        _make_absolute(values, key, path.parent)
    for change in changes:
        _apply(values, change)
    try:
        return Recipe.model_validate(values)
    except ValidationError as failure:
        mistake = failure.errors()[0]
        message, hint = _in_words(mistake["loc"], values, mistake["type"], mistake["msg"])
        raise PresetError(f"{_where(path, node, mistake['loc'])}: {message}", hint=hint) from None


def _apply(values: dict[str, Any], change: str) -> None:
    """Lay KEY=VALUE over the values of a recipe; a stage is found by its name."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {change} is not of the form key=value", hint="for example --set seed=2")
    node = parse_yaml(text, f"--set {change}")
    value = NodeReader(f"--set {change}", one_line=True).value(node) if node is not None else None
    *groups, last = key.split(".")
    place: Any = values
    for depth, group in enumerate(groups, 1):
        if isinstance(place, tuple):
            place = next((row for row in place if isinstance(row, dict) and row.get("name") == group), None)
        elif not isinstance(place.get(group), dict | tuple):
            place[group] = {}   # a group that the file leaves at its defaults
            place = place[group]
        else:
            place = place[group]
        if place is None:
            names = [str(row.get("name")) for row in values.get("stages", ()) if isinstance(row, dict)]
            raise UsageError(f"--set {change}: there is no {'.'.join(groups[:depth])}",
                             hint=f"the stages are {', '.join(names)}")
    if isinstance(place, tuple):
        raise UsageError(f"--set {change}: {'.'.join(groups)} is a list",
                         hint=f"name one of it: {'.'.join(groups)}.NAME.KEY=VALUE")
    place[last] = value
    if key in PATHS:
        _make_absolute(values, key, Path.cwd())


def _make_absolute(values: dict[str, Any], key: str, folder: Path) -> None:
    """Make the path under a dotted key absolute, as seen from a folder; the name of a model stays as it is."""
    *groups, last = key.split(".")
    place: Any = values
    for group in groups:
        place = place.get(group) if isinstance(place, dict) else None
    if isinstance(place, dict) and isinstance(place.get(last), str):
        text = place[last]
        if last != "model" or text.startswith((".", "~", "/")):
            place[last] = str((folder / Path(text).expanduser()).resolve())


def _where(path: Path, node: yaml.Node | None, place: Sequence[int | str]) -> str:
    """Give file and line of the innermost node that is there on the way to a place in a recipe."""
    for step in place:
        if isinstance(node, yaml.MappingNode):
            below = {str(key.value): child for key, child in node.value}.get(str(step))
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            below = node.value[step]
        else:
            below = None
        if below is None:
            break
        node = below
    return f"{path}:{node.start_mark.line + 1}" if node is not None and place else str(path)


def _in_words(place: Sequence[int | str], values: Any, kind: str, message: str) -> tuple[str, str]:
    """Say what is wrong at a place in a recipe, and what to do: the nearest key, or what a value may be."""
    section: type[Section] | None = Recipe
    holder: type[Section] | None = None   # of the last key
    names: list[str] = []
    for step in place:
        values = values[step] if isinstance(values, tuple) and isinstance(step, int) and step < len(values) \
            else values.get(step) if isinstance(values, dict) else None
        if isinstance(step, int):   # stages go by their names, as in --set
            names.append(str(values.get("name", step)) if isinstance(values, dict) else str(step))
        else:
            names.append(step)
            holder, section = section, _section_under(section, step)
    name, last = ".".join(names), str(place[-1]) if place else ""
    if kind == "extra_forbidden" and holder is not None:
        near = difflib.get_close_matches(last, holder.model_fields, n=1)
        return f"{name} is no setting", f"did you mean {near[0]}?" if near else (
            f"there are {', '.join(holder.model_fields)}")
    if kind == "value_error" or holder is None or last not in holder.model_fields:
        return f"{name}: {message}".removeprefix(": ").replace("Value error, ", ""), EXAMPLE
    hint = f"{last}: {holder.model_fields[last].description}"
    if kind == "missing":
        return f"{name} is missing", hint
    allowed = allowed_values(holder.model_json_schema()["properties"][last])
    near = difflib.get_close_matches(str(values), allowed.removeprefix("one of ").split(", "), n=1)
    return f"{name} is {shown(values)}, but it must be {allowed}", f"did you mean {near[0]}?" if near else hint


def _section_under(section: type[Section] | None, key: str) -> type[Section] | None:
    """Give the kind of section that a key of a section holds, alone, optional or as a list; None if it holds none."""
    field = section.model_fields.get(key) if section is not None else None
    if field is None:
        return None
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def runs_folder() -> Path:
    """Give the folder that holds all training runs: $COLORCLI_RUNS, or ~/.cache/colorcli/runs."""
    return Path(os.environ.get("COLORCLI_RUNS") or Path.home() / ".cache" / "colorcli" / "runs")

"""What a run would do: counted without reading weights, for `colorcli train --dry-run`."""

import importlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from colorcli.errors import WeightsError
from colorcli.model.build import Components, build_components
from colorcli.model.weights import DIFFUSERS_INDEX, weights_folder
from colorcli.train.drawings import PARTS, TAGS
from colorcli.train.recipe import GO_ON, Recipe, runs_folder
from colorcli.train.run.checkpoint import Checkpoint
from colorcli.train.run.sources import data_in_words, drawing_bytes, require_data
from colorcli.train.run.start import license_of, ready_for
from colorcli.train.stages import STAGES, trained_modules
from colorcli.variants import MINI

LIBRARIES = ("diffusers", "transformers")
WEIGHT, MOMENTS, HALF = 4, 8, 2   # bytes of a weight, of both moments of the optimizer, and in half precision


@dataclass(frozen=True)
class StagePlan:
    """One stage, before it is trained."""

    name: str
    folder: Path
    done: int                    # steps
    steps: int
    batch: int                   # drawings in a step, of one process
    trained: dict[str, int]      # path of a network or a part of one -> count of its parameters
    frozen: dict[str, int]       # the others, the parts left out of them
    checkpoint_bytes: int        # of all checkpoints that are kept, and of one more while it is written


@dataclass(frozen=True)
class RunPlan:
    """A run, before it begins."""

    name: str
    folder: Path
    license: str
    precision: str
    stages: tuple[StagePlan, ...]
    data: tuple[str, ...]        # in words
    needed_bytes: int            # that the run will still write
    free_bytes: int              # on the disk of the run's folder


def plan_run(recipe: Recipe, only: str | None = None) -> RunPlan:
    """Count what a recipe trains, and what it writes. Raises WeightsError or PresetError as the run itself would."""
    folder = runs_folder() / recipe.name
    require_data(recipe)
    components = empty_components(recipe)
    stages = []
    for position, options in enumerate(recipe.stages):
        with torch.device("meta"):
            ready_for(components, options, recipe.seed)
        if only not in (None, options.name):
            continue
        checkpoint = Checkpoint(folder / f"{position + 1}-{options.name}", recipe.keep)
        trained = {path: _count(module.parameters())
                   for path, module in trained_modules(components, options.name).items()}
        frozen = {name: _count(module.parameters()) - sum(
            count for path, count in trained.items() if path.split(".")[0] == name
        ) for name, module in components.modules()}
        averages = WEIGHT if recipe.ema else 0
        size = sum(trained.values()) * (WEIGHT + MOMENTS + averages) * (recipe.keep + 1)
        stages.append(StagePlan(
            options.name, checkpoint.folder, checkpoint.step(), options.steps, options.batch * recipe.accumulation,
            trained, {name: count for name, count in frozen.items() if count}, size,
        ))
    kinds = list(dict.fromkeys(STAGES[stage.name].data for stage in stages))
    model = sum(_count(module.parameters()) for _, module in components.modules()) * HALF
    there = sum(path.stat().st_size for stage in stages for path in stage.folder.glob("step-*.safetensors"))
    needed = sum(stage.checkpoint_bytes for stage in stages) + 2 * model + drawing_bytes(recipe, folder, kinds)
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    return RunPlan(
        recipe.name, folder, license_of(recipe), recipe.precision, tuple(stages),
        tuple(line for kind in kinds for line in data_in_words(recipe, folder, kind)),
        max(0, needed - there), shutil.disk_usage(existing).free,
    )


def empty_components(recipe: Recipe) -> Components:
    """Build the networks that a recipe begins with, without memory for their weights. Raises WeightsError."""
    if recipe.model == "mini" and recipe.stages[0].name not in GO_ON:
        with torch.device("meta"):
            return build_components(MINI, len(PARTS), len(TAGS))
    folder = weights_folder(recipe.model)
    try:
        index = json.loads((folder / DIFFUSERS_INDEX).read_text(encoding="utf-8"))
        parts = {field.name: _empty_part(folder / field.name, index.get(field.name)) for field in fields(Components)}
        return Components(**parts)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as failure:
        raise WeightsError(f"{folder} is no whole model: {failure}", hint="see `colorcli models verify`") from failure


def _empty_part(folder: Path, kind: Any) -> Any:
    """Build one part of a model from its settings alone; None if the index has no such part."""
    if not isinstance(kind, list) or None in kind:
        return None
    library, name = kind
    if library not in LIBRARIES and not library.startswith("colorcli."):
        raise ValueError(f"{folder.name} is made of {library}, which is not among {', '.join(LIBRARIES)}, colorcli")
    found: Any = getattr(importlib.import_module(library), name)
    if not issubclass(found, nn.Module):
        return found.from_pretrained(folder)   # a schedule or a vocabulary: small
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        if hasattr(found, "config_class"):
            return found(found.config_class.from_dict(config))
        return found.from_config(config)


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)

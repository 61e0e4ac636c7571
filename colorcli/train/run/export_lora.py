"""From a training run to a LoRA file that a preset names."""

import json
from pathlib import Path

import torch

from colorcli.model.build import Components
from colorcli.model.lora_file import ALPHA, BASE, BASE_SHA256, LICENSE, RANK, RECIPE
from colorcli.model.weights import find_weights, require_whole
from colorcli.train.objectives.lora import NAME, LearningLayers
from colorcli.train.recipe import Recipe
from colorcli.train.run.start import base_of, license_of
from colorcli.train.tensor_file import write_tensors

STORED = torch.float16


def export_lora(components: Components, file: Path, recipe: Recipe) -> int:
    """Write the changes that a recipe has taught as one file, whole or not at all; gives its size in bytes.

    Its metadata say which weights they change, what they were made by, and their license. Raises OutputError.
    """
    layers = components.beside[NAME]
    assert isinstance(layers, LearningLayers)
    options, base = recipe.stages[0].lora, require_whole(find_weights(base_of(recipe)))
    tensors = {name: half.to("cpu", STORED).contiguous() for name, half in layers.tensors().items()}
    made_by = {"name": recipe.name, **recipe.stages[0].model_dump(mode="json", exclude_defaults=True)}
    write_tensors(file, tensors, {
        "format": "pt", BASE: base.model, BASE_SHA256: base.digest, RANK: str(options.rank),
        ALPHA: str(options.alpha or options.rank), LICENSE: license_of(recipe), RECIPE: json.dumps(made_by),
    })
    return file.stat().st_size

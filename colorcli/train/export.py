"""From a training run to a model folder that the product loads."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from colorcli.errors import WeightsError
from colorcli.loading import load_pipeline, quiet_libraries
from colorcli.model.build import Components
from colorcli.model.weights import write_list
from colorcli.pipeline import ColorizePipeline

LARGEST_BYTES = 40_000_000  # of a model that ships in the package


def give_weights(components: Components, folder: Path) -> None:
    """Give the networks the weights of a model folder. Raises WeightsError if it is none, or of other sizes."""
    given = load_pipeline(str(folder.resolve()), "cpu").components
    for name, module in components.modules():
        try:
            module.load_state_dict(given[name].state_dict())
        except RuntimeError as error:
            raise WeightsError(
                f"{folder} does not fit: {error}", hint="start from a model of the same sizes"
            ) from error


def export_model(components: Components, folder: Path, name: str, license: str) -> int:
    """Write a model in the diffusers layout with half-precision weights and their hashes; gives its size in bytes.

    The networks are loaded as float32 again: half precision is for the size of the package only.
    """
    pipeline = ColorizePipeline(**{field.name: getattr(components, field.name) for field in fields(Components)})
    if folder.exists():
        shutil.rmtree(folder)  # a file of an older layout would be listed as a part of the model
    with quiet_libraries():
        pipeline.save_pretrained(folder)
    for path in sorted(folder.rglob("*.safetensors")):
        tensors = {
            key: value.half() if value.dtype == torch.float32 else value for key, value in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)  # the folder it was trained in
        path.write_text(json.dumps(config, indent=2) + "\n")
    written = write_list(folder, name, license)
    assert written.total_bytes <= LARGEST_BYTES, f"{written.total_bytes} bytes are too many for the package"
    return written.total_bytes

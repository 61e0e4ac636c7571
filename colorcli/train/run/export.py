"""From a training run to a model folder that the product loads."""

import errno
import json
import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from colorcli.errors import OutputError
from colorcli.loading import quiet_libraries
from colorcli.model.build import Components
from colorcli.model.single_file import SUFFIX, read_header
from colorcli.model.weights import WeightsFile, read_list, weights_folder, write_list
from colorcli.pipeline import ColorizePipeline
from colorcli.train.recipe import Recipe
from colorcli.train.run.start import license_of
from colorcli.train.stages import STAGES

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


def export_model(components: Components, folder: Path, recipe: Recipe) -> int:
    """Write a model in the diffusers layout with its weights' hashes and license; gives its size in bytes.

    Networks that a recipe made from nothing are stored in half precision, trained ones of other models as they were
    stored there; what was not trained is copied bit for bit. The folder is there whole or not at all.
    Raises OutputError if it cannot be written.
    """
    partial, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    try:
        for left in (partial, old):
            if left.exists():
                shutil.rmtree(left)
        partial.mkdir(parents=True)
        family, copied = _write_parts(components, partial, recipe)
        source = {"recipe": recipe.name, "model": recipe.model, "stages": [stage.name for stage in recipe.stages]}
        written = write_list(partial, family, license_of(recipe), source=source, hashed=copied)
        if folder.exists():
            folder.rename(old)   # a file of an older layout would be listed as a part of the model
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as failure:
        shutil.rmtree(partial, ignore_errors=True)
        full = getattr(failure, "errno", 0) == errno.ENOSPC or f"os error {errno.ENOSPC}" in str(failure)
        reason = f"the disk of {folder.parent} is full" if full else str(failure)
        raise OutputError(f"the model cannot be written to {folder}: {reason}",
                          hint="make room and run the same command again: the checkpoints are there") from failure
    return written.total_bytes


def _write_parts(components: Components, folder: Path, recipe: Recipe) -> tuple[str, dict[str, WeightsFile]]:
    """Write or copy every part; gives the family of the model, and the files whose hash is known."""
    source = None if recipe.model == "mini" else weights_folder(recipe.model)
    trained = {path.split(".")[0] for stage in recipe.stages for path in STAGES[stage.name].trains}
    if recipe.start_from:
        trained |= {name for name, _ in components.modules()}   # none has to be as it was in the source
    known: dict[str, WeightsFile] = {}
    listed = read_list(source).files if source is not None else {}
    parts = {field.name: getattr(components, field.name) for field in fields(Components)}
    with quiet_libraries():
        pipeline = ColorizePipeline(**parts)
        pipeline.save_config(folder)   # model_index.json
        for name, part in parts.items():
            if part is None:
                continue
            if source is not None and name not in trained and (source / name).is_dir():
                shutil.copytree(source / name, folder / name, copy_function=_link_or_copy)
                known |= {file: entry for file, entry in listed.items() if file.startswith(f"{name}/")}
            elif isinstance(part, nn.Module):
                _write_network(part, folder / name, _stored_dtype(source, name))
            else:
                part.save_pretrained(folder / name)
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)  # the folder it was trained in
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return pipeline.variant.name, {name: entry for name, entry in known.items() if name.endswith(SUFFIX)}


def _write_network(network: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Write a network with its floats in one type, without a second copy of it on its device."""
    tensors = {name: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous()
               for name, value in network.state_dict().items()}
    saved: Any = network
    if hasattr(network, "save_config"):   # one of diffusers, whose save_pretrained takes no tensors
        saved.save_config(folder)
        file = folder / "diffusion_pytorch_model.safetensors"
    else:
        saved.config.save_pretrained(folder)
        file = folder / "model.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    # It makes its files for their owner alone, whatever the umask says, and a farm has many users.
    file.chmod((folder / "config.json").stat().st_mode)


def _stored_dtype(source: Path | None, part: str) -> torch.dtype:
    """Give the type of a part's floats in the model it comes from; of the whole model for a new part, or half."""
    if source is None:
        return torch.float16
    for files in (sorted((source / part).glob(f"*{SUFFIX}")), sorted(source.rglob(f"*{SUFFIX}"))):
        types = {entry.dtype for file in files for entry in read_header(file).values()} & DTYPES.keys()
        if types:
            return DTYPES[max(types, key=lambda name: (name == "F32", name))]
    return torch.float16


def _link_or_copy(source: str, target: str) -> str:
    """Give large files a second name instead of a second place on the disk: nobody writes into them."""
    if source.endswith(SUFFIX):
        try:
            os.link(Path(source).resolve(), target)
            return target
        except OSError:   # another disk
            pass
    return str(shutil.copy2(source, target))

"""Loading: from a model's name, folder or single file to a pipeline that lies on a device."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from colorcli.errors import DeviceError, WeightsError
from colorcli.model.backend import choose_backend
from colorcli.model.compiled import compile_pays
from colorcli.model.machine import memory_bytes, more_room, out_of_memory
from colorcli.model.memory import Precision, choose_precision, choose_profile, free_bytes, stored_as
from colorcli.model.openvino_export import TORCH, check_export, find_engine
from colorcli.model.openvino_networks import open_openvino
from colorcli.model.published_file import read_published
from colorcli.model.single_file import SUFFIX, read_header
from colorcli.model.weights import family_of, find_weights, require_whole, towers_for
from colorcli.pipeline import ColorizePipeline
from colorcli.presets import LoraSettings
from colorcli.variants import VARIANTS

MOST_SIDE_BY_SIDE = 16   # each takes some 50 MB on mini's own canvas


def load_pipeline(
    model: str,
    device: str = "auto",
    attention: str = "auto",
    precision: str = "auto",
    memory: str = "auto",
    canvas_area: int | None = None,
    loras: Sequence[LoraSettings] = (),
    compiled: str = "auto",
    rows: float = 0,
    engine: str = TORCH,
) -> ColorizePipeline:
    """Load a model by name, folder or single file onto a device: "auto" (a GPU if there is one), "cpu", "cuda:1".

    attention: "sdpa", "xformers", or "auto": xformers where it is installed and the device is a CUDA one.
    precision: "fp32", "fp16", "bf16", or "auto", see `choose_precision`. memory: a name of `PROFILES` or "auto", see
    `choose_profile`; it is chosen for canvases of `canvas_area` pixels, None: of the model's own size.
    loras: files that change its networks, `preset.lora`. compiled: "on", "off", or "auto": if it pays for `rows` of the
    network (frames times steps times branches of guidance), see `compile_pays`.
    engine: "torch", "openvino", or the folder of an export: then the device is the CPU, and the precision fp32.
    Raises WeightsError if the weights are missing or cut off, DeviceError if there is no such device.
    """
    found = find_weights(model)
    if found.is_dir():
        require_whole(found)   # a single file is checked while it is read
    export = find_engine(engine)
    if engine != TORCH:
        device, precision, memory, compiled = "cpu", "fp32", "full", "off"
        if export is not None:
            check_export(export, require_whole(found), len(loras))
    chosen = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if chosen.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"there is no device {chosen} here", hint="--device cpu, or see `colorcli doctor`")
    family = family_of(model)
    area = canvas_area or (VARIANTS[family].canvas_area if family in VARIANTS else 1024 * 1024)
    side = round(area**0.5)
    numbers = choose_precision(precision, chosen, family)
    _require_room(found, numbers)
    profile = choose_profile(memory, chosen, free_bytes(chosen), family, (side, side), numbers)
    try:
        with quiet_libraries():
            if found.is_dir():
                pipeline = ColorizePipeline.from_pretrained(found, dtype=stored_as(profile))
            else:
                components = read_published(found, towers=towers_for(found), dtype=stored_as(profile))
                pipeline = ColorizePipeline(**components)
        if loras:
            pipeline = pipeline.with_loras(loras, found)   # before parts begin to move, or to be kept in 8 bits
        readers = (
            pipeline.unet, pipeline.reference_net, pipeline.background_encoder, pipeline.style_encoder,
        )  # fmt: skip
        networks = [part for part in readers if part is not None]
        pipeline.attention = choose_backend(attention, chosen, networks, numbers.compute)
        pays = compile_pays(family, chosen, rows, area)
        pipeline = pipeline.keep_within(profile, chosen)
        pipeline.compile_network(compiled == "on" or (compiled == "auto" and pays))
        with quiet_libraries():
            return pipeline if engine == TORCH else pipeline.use_engine(open_openvino(pipeline, export))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"{found} cannot be loaded: {error}", hint="see `colorcli models verify`") from error
    except RuntimeError as error:
        if out_of_memory(error):
            hint = f"{more_room(chosen, profile.name)}, or see `colorcli doctor`"
            raise DeviceError(f"there is no room for the model on {chosen}: {error}", hint=hint) from error
        raise DeviceError(f"the model cannot be put on {chosen}: {error}", hint="see `colorcli doctor`") from error


def share_processor(pipeline: ColorizePipeline) -> ColorizePipeline:
    """Color as many frames at the same time as there are cores, each on one thread; for a process that does only this.

    Only where a small model runs on the CPU: its layers are too small to be shared among threads well. (One that is
    compiled colors frames one after the other.) torch takes one thread for everything in this process from then on, so
    that a frame has the same bits with any count of cores.
    """
    if pipeline.device.type == "cpu" and pipeline.variant.has_match and pipeline.unet.regions is None:
        pipeline.side_by_side = min(torch.get_num_threads(), MOST_SIDE_BY_SIDE)
        torch.set_num_threads(1)
    return pipeline


def _require_room(found: Path, precision: Precision) -> None:
    """Check that the weights fit into the computer's memory, through which they go to any device.

    Linux ends a program that takes too much without a word. Raises DeviceError.
    """
    files = [found] if found.is_file() else sorted(found.rglob(f"*{SUFFIX}"))
    values = sum(math.prod(entry.shape) for file in files for entry in read_header(file).values())
    needed, free = values * precision.compute.itemsize, memory_bytes()[0]
    if free is not None and needed > free:
        halved = "--precision bf16 takes half, or " if precision.compute == torch.float32 else ""
        raise DeviceError(f"the weights of {found.name} take {needed / 1e9:.1f} GB in {precision.name}, and this "
                          f"computer has {free / 1e9:.1f} GB of memory free", hint=f"{halved}close other programs")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep bars and remarks of diffusers and transformers off the terminal, where a farm reads our own lines."""
    told = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, level in zip((diffusers_logging, transformers_logging), told, strict=True):
            library.enable_progress_bar()
            library.set_verbosity(level)

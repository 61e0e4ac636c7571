"""A LoRA file looked at from outside: which layers it changes, what it was trained on, whether it fits. No torch.

It is a .safetensors file with two halves for each changed layer, named as diffusers and peft name them
(`unet.<layer>.lora_A.weight`, `.lora_B.weight`) or as kohya's scripts do (`lora_unet_<layer>.lora_down.weight`,
`.lora_up.weight`, `.alpha`). One that colorcli trained says in its metadata which model it changes, and whose it is.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from colorcli.errors import ColorcliError, WeightsError
from colorcli.files import file_digest, parse_json
from colorcli.model.single_file import SUFFIX, Header, read_header, read_metadata
from colorcli.model.weights import family_of, find_weights, require_whole
from colorcli.presets import LoraSettings, Preset

NOT_STATED = "not stated"
DIGEST_SHOWN = 12  # letters of a hash that a person compares

# What colorcli writes into the metadata of a file.
BASE, BASE_SHA256, RANK, ALPHA, LICENSE, RECIPE = (
    f"colorcli.{name}" for name in ("base", "base_sha256", "rank", "alpha", "license", "recipe")
)

DIFFUSERS_METADATA = "lora_adapter_metadata"

Half = Literal["down", "up", "alpha"]

_HALVES: Mapping[str, Half] = {
    ".lora_A.weight": "down", ".lora_B.weight": "up",
    ".lora_A.default.weight": "down", ".lora_B.default.weight": "up",
    ".lora_down.weight": "down", ".lora_up.weight": "up",
    ".lora.down.weight": "down", ".lora.up.weight": "up",
    ".alpha": "alpha",
}  # fmt: skip
_OTHER_KINDS = {
    ".hada_": "a LoHa file", ".lokr_": "a LoKr file", ".oft_": "an OFT file", "dora_scale": "a DoRA file",
    "lora_magnitude_vector": "a DoRA file", ".diff": "a file of whole changes, not of low-rank ones",
}  # fmt: skip
_TEXT = ("lora_te", "text_encoder.", "text_encoder_2.", "te1_", "te2_")  # towers for words: nothing here has them
NETWORKS = ("unet", "projection", "matcher")  # that a LoRA may change


@dataclass(frozen=True)
class LayerNames:
    """The tensors of a file that change one layer."""

    down: str               # (rank, in), or (rank, in, k, k) of a convolution
    up: str                 # (out, rank), or (out, rank, 1, 1)
    alpha: str | None = None


@dataclass(frozen=True)
class LoraFile:
    """What a file says of itself."""

    path: Path
    layers: Mapping[str, LayerNames]    # layer as the file names it, without what stands before the network's name
    header: Header
    metadata: Mapping[str, str]
    text_layers: int = 0                # of a text encoder; they change nothing here
    alpha: float | None = None          # of layers without one of their own; None: their rank, so that the scale is 1

    @property
    def base(self) -> str | None:
        """The family of the model that it was trained on; None: the file does not say."""
        return self.metadata.get(BASE) or None

    @property
    def base_sha256(self) -> str | None:
        """The hash of the weights that it was trained on; None: the file does not say."""
        return self.metadata.get(BASE_SHA256) or None

    @property
    def license(self) -> str:
        """The license that the file states, else "not stated"."""
        return (self.metadata.get(LICENSE) or self.metadata.get("license") or "").strip() or NOT_STATED

    @property
    def rank(self) -> int:
        """Width of the bottleneck; of the widest, if they differ."""
        return max(self.header[names.down].shape[0] for names in self.layers.values())

    def sha256(self) -> str:
        """SHA-256 of the file, hex."""
        return file_digest(self.path)


def read_lora_file(path: Path) -> LoraFile:
    """Read which layers a file changes, without reading their numbers.

    Raises WeightsError if it is not there, is damaged, is a pickle, or holds something else than a LoRA.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, not a LoRA file", hint=f"name the {SUFFIX} file in it")
    if not path.is_file():
        raise WeightsError(f"there is no file {path}", hint="a path in a preset is meant from the preset's folder")
    header, found, others = read_header(path), dict[str, dict[Half, str]](), list[str]()
    text_layers = 0
    for name in header:
        ending = next((ending for ending in _HALVES if name.endswith(ending)), None)
        if ending is None:
            others.append(name)
        elif name.startswith(_TEXT):
            text_layers += _HALVES[ending] == "up"
        else:
            found.setdefault(_bare(name.removesuffix(ending)), {})[_HALVES[ending]] = name
    _refuse_others(path, others, any(found.values()) or bool(text_layers))
    layers = {}
    for layer, halves in found.items():
        if "down" not in halves or "up" not in halves:
            raise WeightsError(f"{path.name} is damaged: it has only one half of {layer}", hint="copy it again")
        down, up = header[halves["down"]].shape, header[halves["up"]].shape
        if len(down) not in (2, 4) or len(up) not in (2, 4) or not down[0] or down[0] != up[1]:
            raise WeightsError(f"{path.name} is damaged: the halves of {layer} are {_sides(down)} and {_sides(up)}, "
                               "which do not fit together", hint="copy it again")
        layers[layer] = LayerNames(halves["down"], halves["up"], halves.get("alpha"))
    if not layers:
        raise WeightsError(f"{path.name} changes only a text encoder, which has no say in coloring",
                           hint="take it out of lora")
    metadata = read_metadata(path)
    return LoraFile(path, layers, header, metadata, text_layers, _alpha_in(path, metadata))


def check_loras(preset: Preset) -> list[LoraFile]:
    """Look at the LoRA files that a preset names, and whether they belong to its model; in order.

    Raises WeightsError naming the entry of the preset.
    """
    files = []
    model = find_weights(preset.model) if preset.lora else Path()
    for number, chosen in enumerate(preset.lora, 1):
        try:
            files.append(open_lora(chosen, model))
        except ColorcliError as error:
            raise WeightsError(f"lora, entry {number}: {error.message}", hint=error.hint) from None
    return files


def open_lora(chosen: LoraSettings, model: Path) -> LoraFile:
    """Look at a LoRA file, and whether it belongs to a model, which is a folder or a single file.

    Raises WeightsError if it is no LoRA, or says that it was trained on other weights, or changes layers that the model
    has not. (What a single file or one with published names changes is seen when it is put into effect.)
    """
    file = read_lora_file(Path(chosen.file))
    name, family = file.path.name, family_of(str(model)) if file.base is not None else None
    if file.base != family:
        raise WeightsError(f"{name} was trained on {file.base}, but the model is {family}",
                           hint=f"use it with --model {file.base}, or take it out of lora")
    if file.base_sha256 is not None and not chosen.any_base:
        digest = require_whole(model).digest
        if file.base_sha256 != digest:
            raise WeightsError(
                f"{name} was trained on weights with the hash {file.base_sha256[:DIGEST_SHOWN]}, but those of {model} "
                f"have {digest[:DIGEST_SHOWN]}",
                hint="train it again on these; or write any_base: true beside the file, and look at the frames",
            )
    if model.is_dir():
        targets_of(file, _shapes_in(model))
    return file


def targets_of(
    file: LoraFile, shapes: Mapping[str, tuple[int, ...]], published: Mapping[str, str] | None = None
) -> dict[str, LayerNames]:
    """Find the weights that a file changes: "unet.<layer>.weight" -> the tensors of the change.

    shapes: of the weights of the networks, by such names. published: other names of theirs, as they stand in published
    files; None: none is known, and a layer that is named so is passed over.
    Raises WeightsError if a layer is not there, or has another shape.
    """
    known = {name.removesuffix(".weight"): name for name in shapes if name.endswith(".weight")}
    known |= {name.removeprefix("unet."): weight for name, weight in list(known.items()) if name.startswith("unet.")}
    known |= {name.replace(".", "_"): weight for name, weight in list(known.items())}
    for name, other in (published or {}).items():
        bare = other.removesuffix(".weight").removeprefix("unet.")
        known |= {bare: name, bare.replace(".", "_"): name}
    targets = {}
    for layer, names in file.layers.items():
        if layer not in known:
            if published is None and re.match(r"(unet[._])?(input_blocks|middle_block|output_blocks)[._]", layer):
                continue
            raise WeightsError(f"{file.path.name} changes the layer {layer}, which this model has not",
                               hint="it was made for another model: take it out of lora, or choose its model")
        weight = known[layer]
        down, up, shape = file.header[names.down].shape, file.header[names.up].shape, shapes[weight]
        if _without_ones((up[0], *down[1:])) != _without_ones(shape):
            raise WeightsError(
                f"{file.path.name} changes {layer} from {down[1]} to {up[0]} channels, but in this model it is "
                f"{_sides(shape[::-1])}", hint="it was made for another model: take it out of lora, or choose its model"
            )
        targets[weight] = names
    return targets


def _alpha_in(path: Path, metadata: Mapping[str, str]) -> float | None:
    """Read the alpha that diffusers keeps beside the tensors. Raises WeightsError for scales that are not applied."""
    try:
        said = parse_json(metadata.get(DIFFUSERS_METADATA) or "{}")
        alpha = said.get("unet.lora_alpha", said.get("lora_alpha"))
        if any(said.get(f"{start}{name}") for start in ("unet.", "") for name in ("use_rslora", "alpha_pattern")):
            raise WeightsError(f"{path.name} scales its layers by a rule of its own (rsLoRA or alpha_pattern), which "
                               "colorcli does not apply", hint="train it with one alpha for all layers")
        return None if alpha is None else float(alpha)
    except (ValueError, TypeError, AttributeError):
        raise WeightsError(f"{path.name} is damaged: its {DIFFUSERS_METADATA} cannot be read",
                           hint="copy it again") from None


def _bare(layer: str) -> str:
    """Take away what stands before the name of a layer."""
    for start in ("base_model.model.", "lora_unet_", "diffusion_model."):
        layer = layer.removeprefix(start)
    return layer


def _refuse_others(path: Path, others: Iterable[str], is_lora: bool) -> None:
    """Raise WeightsError for tensors that are no halves of low-rank changes."""
    for name in others:
        kind = next((kind for mark, kind in _OTHER_KINDS.items() if mark in name), None)
        if kind is not None:
            raise WeightsError(f"{path.name} is {kind} ({name}), and colorcli applies plain LoRA",
                               hint="extract a plain LoRA from it, or train one with this method")
        if is_lora:
            raise WeightsError(f"{path.name} holds {name}, which is no part of a LoRA", hint="copy it again")
    if not is_lora:
        raise WeightsError(f"{path.name} is no LoRA file: no tensor in it is the half of a low-rank change",
                           hint="a whole model is chosen with --model")


def _shapes_in(model: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights in a model folder that a LoRA may change."""
    return {
        f"{network}.{name}": entry.shape
        for network in NETWORKS for file in sorted((model / network).glob(f"*{SUFFIX}"))
        for name, entry in read_header(file).items()
    }


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a 1x1 convolution as that of the linear layer which it is."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _sides(shape: Iterable[int]) -> str:
    return "x".join(str(side) for side in shape)

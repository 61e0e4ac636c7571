"""The networks whose features FID compares, and the clean way to bring a picture to their size.

Without a file of the user's it is the tagger of the judge. What is measured carries the network's name, since numbers
of two networks have nothing to do with each other.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from colorcli.errors import UsageError, WeightsError
from colorcli.files import file_digest
from colorcli.loading import quiet_libraries
from colorcli.model.onnx_file import read_onnx_file
from colorcli.model.onnx_networks import open_session
from colorcli.model.preprocess import CLIP_MEAN, CLIP_STD
from colorcli.train.evaluation.scores.judge import Judge

Float = NDArray[np.float32]

INCEPTION_SIDE = 299
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# What a network wants its pixels to be -> from 0..255 (B, 3, S, S) to that.
VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "0..255": lambda levels: levels,
    "0..1": lambda levels: levels / 255,
    "-1..1": lambda levels: levels / 127.5 - 1,
    "imagenet": lambda levels: _standard(levels / 255, IMAGENET_MEAN, IMAGENET_STD),
    "clip": lambda levels: _standard(levels / 255, CLIP_MEAN, CLIP_STD),
}


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that turns pictures into features."""

    name: str                            # as the column says it
    sha256: str
    side: int                            # it sees squares of so many pixels
    values: str                          # what its pixels are
    read: Callable[[Tensor], Tensor]     # (B, 3, side, side) in 0..255 -> (B, D)

    def features(self, picture: Float) -> Tensor:
        """Give the features (D,) of a picture (H, W, 3) in 0..1. Raises WeightsError."""
        with torch.inference_mode():
            try:
                found = self.read(torch.from_numpy(clean_square(picture, self.side)).permute(2, 0, 1)[None])
            except Exception as error:  # whatever a network of the user's raises
                raise WeightsError(f"{self.name} fails on a picture of {self.side}x{self.side}: {_line(error)}",
                                   hint="--feature-size and --feature-values say what it was trained on") from error
        features = _vector(found)
        if features is None:
            raise WeightsError(f"{self.name} gives {_shape(found)}, and features are one row of numbers a picture",
                               hint="take the network without its last layers, or export it so")
        if not torch.isfinite(features).all():
            raise WeightsError(f"{self.name} gives values that are no numbers (NaN)",
                               hint="a network in half precision can overflow: export it in float32")
        return features


def clean_square(picture: Float, side: int) -> Float:
    """Squash a picture (H, W, 3) in 0..1 to a square (side, side, 3) in 0..255, antialiased.

    Parmar, Zhang and Zhu 2022 (arXiv:2104.11222): Pillow's bicubic filter on each channel of the 8-bit picture, in
    float and without rounding, cut at 0 and 255.
    """
    levels = np.rint(np.clip(picture, 0, 1) * np.float32(255)).astype(np.float32)
    planes = [
        np.asarray(Image.fromarray(levels[:, :, channel]).resize((side, side), Image.Resampling.BICUBIC))
        for channel in range(3)
    ]
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.float32)


def tagger_features(judge: Judge) -> FeatureNetwork:
    """The features of the judge's own tagger: its tokens, averaged. Raises WeightsError if it has none."""
    tower = judge.tagger
    if tower is None:
        raise WeightsError(f"the judge {judge.name} has no tagger to take features from",
                           hint="leave --judge out, or give a network with --features")
    to_unit = VALUES["-1..1"]

    def read(levels: Tensor) -> Tensor:
        return torch.as_tensor(tower(to_unit(levels).flip(1))).mean(1)  # towers of this kind take BGR

    return FeatureNetwork(f"{judge.name} tagger features", judge.sha256, tower.config["image_size"], "-1..1", read)


def open_features(path: Path, side: int | None = None, values: str | None = None) -> FeatureNetwork:
    """Open a feature network of the user's: an ONNX file, or a transformers folder with safetensors.

    side: of the square that it sees; values: a key of VALUES. Both are asked for only where the file does not tell.
    Raises WeightsError, UsageError, MissingExtraError.
    """
    if values is not None and values not in VALUES:
        raise UsageError(f"--feature-values {values} is nothing that pixels can be", hint=", ".join(VALUES))
    if not path.exists():
        raise WeightsError(f"there is no feature network {path}", hint="check the path given to --features")
    kind = "folder" if path.is_dir() else path.suffix.lower()
    if kind == ".safetensors":
        if not (path.parent / "config.json").is_file():
            raise WeightsError(f"{path} is weights alone: no config.json beside it says which network they are of",
                               hint="keep it in its transformers folder, or take an ONNX file")
        path, kind = path.parent, "folder"
    if kind not in OPENERS:
        # A file of torch may hold code that is run when it is opened or asked.
        raise WeightsError(f"{path.name} is no feature network that can be read",
                           hint="ONNX (torch.onnx.export makes one), or a transformers folder with safetensors")
    return OPENERS[kind](path, side, values)


# --- kinds of files ------------------------------------------------------------------------------------------------


def _open_onnx(path: Path, side: int | None, values: str | None) -> FeatureNetwork:
    file = read_onnx_file(path)
    session = open_session(path, "cpu")
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise WeightsError(f"{path} does not take one picture of 1x3xHxW", hint="export the network so")
    own = inputs[0].shape[2]
    name, output = inputs[0].name, session.get_outputs()[0].name

    def read(levels: Tensor) -> Tensor:
        return torch.from_numpy(session.run([output], {name: levels.numpy()})[0])

    chosen = own if isinstance(own, int) else side or INCEPTION_SIDE
    return _named(path, chosen, _said(path, values), read, file.sha256())


def _open_folder(path: Path, side: int | None, values: str | None) -> FeatureNetwork:
    if not list(path.glob("*.safetensors")):
        raise WeightsError(f"{path} holds no .safetensors", hint="only safetensors are read: save the network in them")
    from transformers import AutoModel

    try:
        with quiet_libraries():
            network: Any = AutoModel.from_pretrained(
                path, local_files_only=True, use_safetensors=True, trust_remote_code=False
            ).float().eval()
        known = _preprocessing(path)
    except Exception as error:  # the library has a kind of its own for every file that it reads
        hint = "copy it again, with its config.json"
        raise WeightsError(f"{path} cannot be loaded: {_line(error)}", hint=hint) from error
    own = known.get("side") or getattr(network.config, "image_size", None)
    own = own[0] if isinstance(own, (list, tuple)) else own
    says = "mean" in known and values is None
    name = "its own" if says else _said(path, values)

    def read(levels: Tensor) -> Tensor:
        pixels = _standard(levels / 255, known["mean"], known["std"]) if says else VALUES[name](levels)
        if hasattr(network, "get_image_features"):
            found = network.get_image_features(pixel_values=pixels)
        else:
            found = network(pixel_values=pixels)
        for field in ("image_embeds", "pooler_output"):
            if getattr(found, field, None) is not None:
                return torch.as_tensor(getattr(found, field))
        return torch.as_tensor(found if isinstance(found, Tensor) else found.last_hidden_state.mean(1))

    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")):
        digest.update(file_digest(file).encode())
    sha256 = digest.hexdigest()
    return FeatureNetwork(f"{path.resolve().name} {sha256[:8]}", sha256, side or own or INCEPTION_SIDE, name, read)


OPENERS: dict[str, Callable[[Path, int | None, str | None], FeatureNetwork]] = {
    ".onnx": _open_onnx,
    "folder": _open_folder,
}


def _preprocessing(folder: Path) -> Mapping[str, Any]:
    """What the folder's preprocessor_config.json says: side, mean, std; nothing where there is none."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return {}
    said = json.loads(file.read_text(encoding="utf-8"))
    size = said.get("crop_size") or said.get("size")
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    found: dict[str, Any] = {"side": size}
    if said.get("do_normalize", True) and "image_mean" in said:
        found |= {"mean": tuple(said["image_mean"]), "std": tuple(said["image_std"])}
    return found


def _said(path: Path, values: str | None) -> str:
    """What the pixels of a network are, where only the user can know. Raises UsageError."""
    if values is None:
        raise UsageError(f"{path.name} does not say what its pixels are",
                         hint=f"say it with --feature-values: {', '.join(VALUES)}")
    return values


def _named(
    path: Path, side: int, values: str, network: Callable[[Tensor], Any], sha256: str | None = None
) -> FeatureNetwork:
    digest = sha256 or file_digest(path)
    to_values = VALUES[values]
    return FeatureNetwork(
        f"{path.name} {digest[:8]}", digest, side, values, lambda levels: network(to_values(levels))
    )


def _standard(unit: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Take mean and deviation out of pixels (B, 3, S, S) in 0..1."""
    center, spread = (unit.new_tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return (unit - center) / spread


def _vector(found: Any) -> Tensor | None:
    """The features (D,) in what a network gave for one picture: a row, or a map, which is averaged; None if none."""
    while isinstance(found, (list, tuple)) and found:
        found = found[0]
    if isinstance(found, dict) and found:
        found = next(iter(found.values()))
    if not isinstance(found, Tensor) or found.dim() not in (1, 2, 4) or (found.dim() > 1 and len(found) != 1):
        return None
    row = found[0] if found.dim() > 1 else found
    row = row.mean((1, 2)) if row.dim() == 3 else row
    return row.float() if row.numel() > 1 else None


def _shape(found: Any) -> str:
    return "x".join(map(str, found.shape)) if isinstance(found, Tensor) else f"a {type(found).__name__}"


def _line(error: Exception) -> str:
    """The first line of what a library says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]

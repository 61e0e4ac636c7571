"""A model that looks at pictures and says what it sees: tags, parts, embeddings. It is never the one that is measured.

One judge for all evaluations that are to be compared: by default the shipped mini, whatever model colors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.modeling_utils import ModelMixin
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from colorcli.errors import WeightsError
from colorcli.finish.difference import ciede2000, lab_of
from colorcli.loading import quiet_libraries
from colorcli.model.parts import TokenPartHead
from colorcli.model.preprocess import clip_pixels, tagger_pixels
from colorcli.model.reference import TaggerTower, clip_tokens
from colorcli.model.weights import require_whole, weights_folder
from colorcli.train.drawings import TAGS

Float = NDArray[np.float32]

PRESENT_ABOVE = 0.5   # probability over which a tag counts as seen
LEAST_CELLS = 2       # fewer cells than this say nothing of a part's color
LEAST_BACKGROUND = 4  # tokens that must lie outside of the character
FLAT_BELOW = 2 / 255  # a pixel no further from the median of its background has its color
PAINTED_SHARE = 0.02  # of the background's pixels: with fewer of another color it is flat
EDGE_SHARE = 0.006    # width of a character's soft edge, as a share of the longer side
CHARACTER_SHARE = 0.02  # of a cell: more of it is no cell of the background
COLOR_WORDS = frozenset((
    "aqua", "beige", "black", "blonde", "blue", "brown", "colored", "colorful", "cyan", "dark", "gold", "golden",
    "gradient", "gray", "green", "grey", "indigo", "lavender", "light", "magenta", "maroon", "multicolored", "navy",
    "orange", "pale", "pink", "purple", "rainbow", "red", "silver", "skin", "tan", "teal", "turquoise", "violet",
    "white", "yellow",
))  # fmt: skip
LOOK_TAGS = frozenset(("shaded", "busy background"))   # neither of a shape nor of a color


@dataclass(frozen=True)
class Judge:
    """The towers of one model; those that it lacks are None. They lie on the CPU, in float32."""

    name: str
    sha256: str
    tagger: TaggerTower | None
    token_head: TokenPartHead | None
    image_encoder: CLIPVisionModelWithProjection | None
    tags: tuple[str, ...] = TAGS

    def embedding(self, picture: Float) -> Tensor:
        """Give the image embedding (D,) of a picture (H, W, 3) in 0..1: CLIP's class token, projected."""
        tower = self._tower("image_encoder", self.image_encoder)
        with torch.inference_mode():
            return clip_tokens(tower, clip_pixels(_pixels(picture), tower.config.image_size))[0, 0]

    def tokens(self, picture: Float) -> Tensor:
        """Give the tagger's tokens (N, C) of a picture (H, W, 3) in 0..1, rows first."""
        tower = self._tower("tagger", self.tagger)
        with torch.inference_mode():
            return torch.as_tensor(tower(tagger_pixels(_pixels(picture), tower.config["image_size"]))[0])

    def seen_tags(self, tokens: Tensor) -> frozenset[str]:
        """Name the tags that are in a picture, from its tokens (N, C)."""
        head = self._tower("token_head", self.token_head)
        with torch.inference_mode():
            present = head.tag_logits(tokens[None])[0].sigmoid() > PRESENT_ABOVE
        return frozenset(tag for tag, seen in zip(self.tags, present.tolist(), strict=False) if seen)

    def part_colors(self, picture: Float, tokens: Tensor) -> dict[int, Float]:
        """Give the median color (3,) of every part of the body that is seen in a picture (H, W, 3), by its number."""
        head = self._tower("token_head", self.token_head)
        with torch.inference_mode():
            parts = head.part_logits(tokens[None])[0].argmax(0).numpy()  # (rows, columns)
        cells = cv2.resize(picture, parts.shape[::-1], interpolation=cv2.INTER_AREA)
        found = {part: cells[parts == part] for part in np.unique(parts) if part != 0}
        return {
            int(part): np.median(colors, axis=0).astype(np.float32)
            for part, colors in found.items() if len(colors) >= LEAST_CELLS
        }

    def require(self, *parts: str) -> None:
        """Raise WeightsError if one of these parts is missing."""
        for part in parts:
            self._tower(part, getattr(self, part))

    def _tower(self, part: str, network: Any) -> Any:
        if network is None:
            raise WeightsError(f"the judge {self.name} has no {part}", hint="leave --judge out: mini has all of them")
        return network


def load_judge(model: str = "mini") -> Judge:
    """Load the towers of a model by its name or folder. Raises WeightsError if it cannot be read."""
    folder = weights_folder(model)
    sha256 = require_whole(folder).digest
    kinds: Mapping[str, Any] = {
        "tagger": TaggerTower, "token_head": TokenPartHead, "image_encoder": CLIPVisionModelWithProjection,
    }
    try:
        with quiet_libraries():
            found: dict[str, Any] = {part: _load(kind, folder / part) for part, kind in kinds.items()}
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        hint = "see `colorcli models verify`"
        raise WeightsError(f"the judge {model} cannot be loaded: {error}", hint=hint) from error
    return Judge(model if "/" not in model else folder.resolve().name, sha256, **found)


def _load(kind: Any, folder: Path) -> ModelMixin | None:
    if not (folder / "config.json").is_file():
        return None
    network: Any = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True).float().eval()
    return network.requires_grad_(False)


# --- what is said of two pictures ----------------------------------------------------------------------------------


def cosine(one: Tensor, two: Tensor) -> float:
    """The cosine between two vectors (D,)."""
    return float(F.cosine_similarity(one.double(), two.double(), dim=0))


def tag_f1(one: frozenset[str], two: frozenset[str]) -> float:
    """F1 of two sets of tags, 0..1: twice what they share over all they hold; 1 if both are empty."""
    held = len(one) + len(two)
    return 2 * len(one & two) / held if held else 1.0


def color_tags(tags: Sequence[str] | frozenset[str]) -> frozenset[str]:
    """Those tags that name a color, such as "red hair"."""
    return frozenset(tag for tag in tags if COLOR_WORDS & set(tag.replace("_", " ").split()))


def shape_tags(tags: Sequence[str] | frozenset[str]) -> frozenset[str]:
    """Those tags that line art shows as well: all but those of color and of the manner of painting."""
    return frozenset(tags) - color_tags(tags) - LOOK_TAGS


def part_color_distance(one: Mapping[int, Float], two: Mapping[int, Float]) -> float | None:
    """Mean CIEDE2000 between the colors of the parts that two pictures share; None if they share none."""
    shared = sorted(set(one) & set(two))
    if not shared:
        return None
    colors = (np.stack([found[part] for part in shared]) for found in (one, two))
    return float(ciede2000(*(lab_of(color) for color in colors)).mean())


def background_similarity(judge: Judge, made: Float, made_mask: Float, key: Float, key_mask: Float) -> float | None:
    """Cosine between the mean tokens of two backgrounds; None if the key's is flat, or either is too small.

    made, key: (H, W, 3) in 0..1; their masks (H, W), 1 in the character.
    """
    if _is_flat(key, key_mask):
        return None
    found = [_background_tokens(judge, *pair) for pair in ((made, made_mask), (key, key_mask))]
    if any(len(tokens) < LEAST_BACKGROUND for tokens in found):
        return None
    one, two = (tokens.mean(0) for tokens in found)
    return cosine(one, two)


def _is_flat(picture: Float, mask: Float) -> bool:
    """Tell whether nothing is painted outside of the character, whose soft edge does not count."""
    reach = max(3, round(EDGE_SHARE * max(mask.shape)))
    grown = cv2.dilate(mask, np.ones((2 * reach + 1,) * 2, np.uint8))
    outside = picture[grown < CHARACTER_SHARE]
    if not len(outside):
        return True
    painted = np.abs(outside - np.median(outside, axis=0)).max(axis=1) > FLAT_BELOW
    return float(painted.mean()) < PAINTED_SHARE


def _background_tokens(judge: Judge, picture: Float, mask: Float) -> Tensor:
    """The tokens (n, C) of the cells that lie outside of the character, which is painted white."""
    cover = mask[:, :, None]
    tokens = judge.tokens((picture * (1 - cover) + cover).astype(np.float32))
    side = round(len(tokens) ** 0.5)
    shares = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
    return tokens[torch.from_numpy(np.ascontiguousarray(shares.reshape(-1) <= CHARACTER_SHARE))]


def _pixels(picture: Float) -> Tensor:
    """(H, W, 3) in 0..1 to (1, 3, H, W) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(picture, np.float32)).permute(2, 0, 1)[None] * 2 - 1

"""What is measured on one frame, metric by metric; and the instruments that look at it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from colorcli.prepare.canvas import to_canvas
from colorcli.prepare.frame import PreparedFrame
from colorcli.train.evaluation.scores.table import JUDGED, WITH_EXTRA

if TYPE_CHECKING:
    from torch import Tensor

    from colorcli.train.evaluation.scores.features import FeatureNetwork
    from colorcli.train.evaluation.scores.judge import Judge

Float = NDArray[np.float32]
Scores = dict[str, float | None]   # by the key of a column; None: there is nothing to measure


@dataclass(frozen=True)
class Instruments:
    """The networks that look at pictures, each loaded when it is first needed."""

    judge_name: str = "mini"
    features_file: Path | None = None    # a network of the user's for FID; None: the judge's tagger
    feature_size: int | None = None      # pixels, where its file does not tell
    feature_values: str | None = None    # what its pixels are, a key of `features.VALUES`
    clip_file: Path | None = None        # a CLIP of the user's for image similarity; None: the judge's tower

    @cached_property
    def judge(self) -> "Judge":
        """The model that reads tags, parts and embeddings. Raises WeightsError."""
        from colorcli.train.evaluation.scores.judge import load_judge

        return load_judge(self.judge_name)

    @cached_property
    def network(self) -> "FeatureNetwork":
        """The network whose features FID compares. Raises WeightsError, UsageError, MissingExtraError."""
        from colorcli.train.evaluation.scores.features import open_features, tagger_features

        if self.features_file is None:
            return tagger_features(self.judge)
        return open_features(self.features_file, self.feature_size, self.feature_values)

    @cached_property
    def clip(self) -> "FeatureNetwork | None":
        """The user's CLIP, if there is one. Raises as `network` does."""
        from colorcli.train.evaluation.scores.features import open_features

        return None if self.clip_file is None else open_features(self.clip_file)

    @property
    def similarity_by(self) -> str:
        """The name of the network that image similarity is measured with."""
        return self.judge_tower_name if self.clip is None else self.clip.name

    @property
    def judge_tower_name(self) -> str:
        """The name of the judge's tower."""
        return f"{self.judge.name} CLIP-type tower"

    def embedding(self, picture: Float) -> "Tensor":
        """Give the image embedding (D,) of a picture (H, W, 3) in 0..1."""
        return self.judge.embedding(picture) if self.clip is None else self.clip.features(picture)

    def asks_judge(self, metrics: tuple[str, ...]) -> bool:
        """Whether the judge looks at pictures for some metrics."""
        alone = {"similarity"} if self.clip_file is not None else set()
        return bool(JUDGED.keys() & set(metrics) - alone) or ("fid" in metrics and self.features_file is None)

    def check(self, metrics: tuple[str, ...]) -> None:
        """Load what some metrics need, so that what is missing is told before anything is colored."""
        if WITH_EXTRA & set(metrics):
            from colorcli.train.evaluation.scores.pixels import torchmetrics_functional

            torchmetrics_functional()
        if self.asks_judge(metrics):
            for metric in metrics:
                if metric != "similarity" or self.clip_file is None:
                    self.judge.require(*JUDGED.get(metric, ()))
        if "similarity" in metrics:
            _ = self.similarity_by
        if "fid" in metrics:
            _ = self.network


@dataclass(frozen=True)
class Look:
    """A picture as the judge sees it; each reading is made once."""

    color: Float               # (H, W, 3) in 0..1, over white
    mask: Float                # (H, W) 1 = character
    by: Instruments

    @cached_property
    def embedding(self) -> "Tensor":
        """Its image embedding, (D,)."""
        return self.by.embedding(self.color)

    @cached_property
    def tokens(self) -> "Tensor":
        """The tagger's tokens, (N, C)."""
        return self.by.judge.tokens(self.color)

    @cached_property
    def tags(self) -> frozenset[str]:
        """The tags that are seen."""
        return self.by.judge.seen_tags(self.tokens)

    @cached_property
    def part_colors(self) -> dict[int, Float]:
        """The color of every part that is seen."""
        return self.by.judge.part_colors(self.color, self.tokens)


@dataclass(frozen=True)
class Seen:
    """A finished frame beside all it is measured against."""

    made: Look                 # what the user gets, over white
    truth: Look
    key: Look
    layer: Float               # (h, w, 3) the model's own picture, on its canvas
    frame: PreparedFrame

    @property
    def of_truth(self) -> "Seen":
        """The truth in the place of what was made: how a picture without a fault would be measured."""
        return replace(self, made=self.truth, layer=to_canvas(self.truth.color, self.frame.canvas, 1))


def measure_psnr(seen: Seen) -> Scores:
    """Peak signal-to-noise ratio against the truth."""
    from colorcli.train.evaluation.scores.pixels import psnr

    return {"psnr": psnr(seen.made.color, seen.truth.color)}


def measure_ms_ssim(seen: Seen) -> Scores:
    """Multi-scale structural similarity with the truth."""
    from colorcli.train.evaluation.scores.pixels import ms_ssim

    return {"ms_ssim": ms_ssim(seen.made.color, seen.truth.color)}


def measure_similarity(seen: Seen) -> Scores:
    """Image similarity with the key."""
    from colorcli.train.evaluation.scores.judge import cosine

    return {"image_similarity": cosine(seen.made.embedding, seen.key.embedding)}


def measure_tags(seen: Seen) -> Scores:
    """What the tagger reads: against the key, and of shapes against the truth."""
    from colorcli.train.evaluation.scores.judge import color_tags, part_color_distance, shape_tags, tag_f1

    knows_colors = bool(color_tags(seen.made.by.judge.tags))
    return {
        "tag_agreement": tag_f1(seen.made.tags, seen.key.tags),
        "tag_geometry": tag_f1(shape_tags(seen.made.tags), shape_tags(seen.truth.tags)),
        "tag_colors": tag_f1(color_tags(seen.made.tags), color_tags(seen.key.tags)) if knows_colors else None,
        "part_colors": part_color_distance(seen.made.part_colors, seen.key.part_colors),
    }


def measure_lines(seen: Seen) -> Scores:
    """The lines of the model's own picture against those it was given."""
    from colorcli.train.evaluation.scores.lines import found_lines, line_agreement

    found = line_agreement(seen.frame.ink_canvas, found_lines(seen.layer))
    return {"line_agreement": found.f1, "line_precision": found.precision, "line_recall": found.recall}


def measure_background(seen: Seen) -> Scores:
    """The background beside the key's."""
    from colorcli.train.evaluation.scores.judge import background_similarity

    made, key = seen.made, seen.key
    return {"background_similarity": background_similarity(made.by.judge, made.color, made.mask, key.color, key.mask)}


# The word of `--metrics` -> what is measured on every frame for itself. Regions, flicker, drift and FID need more.
FRAME_SCORES: Mapping[str, Callable[[Seen], Scores]] = {
    "psnr": measure_psnr,
    "ms-ssim": measure_ms_ssim,
    "similarity": measure_similarity,
    "tags": measure_tags,
    "lines": measure_lines,
    "background": measure_background,
}
# Those of them whose numbers say little without the same of the truth.
YARDSTICKS = ("similarity", "tags", "lines", "background")

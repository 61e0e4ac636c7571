"""What `evaluate` can measure, as one table: names, directions and definitions. No torch here."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from colorcli.errors import UsageError


@dataclass(frozen=True)
class Column:
    """One number that is measured."""

    key: str                       # its name in JSON
    title: str                     # over its column, short
    better: Literal["higher", "lower", "neither"]
    definition: str                # what it is, for somebody who reads the table
    digits: int = 3                # behind the point
    of: Literal["row", "set"] = "row"   # set: of all pictures together, there is none of a single row

    @property
    def in_words(self) -> str:
        """What it is and which way is better, for the head of a line."""
        return self.title if self.better == "neither" else f"{self.title}, {self.better} is better"


# The word of `--metrics` -> the columns that it brings.
METRICS: dict[str, tuple[Column, ...]] = {
    "regions": (
        Column("accuracy", "right", "higher", "share of the closed regions (40 pixels and more) whose median color is "
               "within CIEDE2000 8 of the truth, pooled over the frames"),
        Column("area_accuracy", "by area", "higher", "the same, each region counted by its area"),
        Column("painted_key", "painted key", "neither", "baseline: the accuracy of painting each region with the key's "
               "median color at the same place"),
        Column("copied_key", "copied key", "neither", "baseline: the accuracy of copying the key's pixels"),
    ),
    "flicker": (
        Column("flicker", "flicker", "lower", "mean CIEDE2000 between neighboring frames where the truth does not "
               "change", 2),
        Column("levels", "levels", "lower", "mean absolute change between neighboring frames where the truth does not "
               "change, in 8-bit levels", 2),
    ),
    "seconds": (
        Column("seconds_per_frame", "s/frame", "lower", "seconds a frame: read, prepare, color, finish, and write if "
               "the frames are kept", 2),
        Column("network_share", "in network", "neither", "share of these seconds inside the network", 2),
    ),
    "psnr": (
        Column("psnr", "PSNR", "higher", "peak signal-to-noise ratio in dB of the finished frame over white against "
               "the truth, 8-bit values; the same picture counts 100. Pale, near-average pictures score well", 2),
    ),
    "ms-ssim": (
        Column("ms_ssim", "MS-SSIM", "higher", "multi-scale structural similarity (Wang et al. 2003) of the finished "
               "frame over white and the truth; none where a side is under 176 pixels"),
    ),
    "fid": (
        Column("fid", "FID", "lower", "Fréchet distance of Gaussians fitted to the features of the finished frames and "
               "of the true pictures, resized as arXiv 2104.11222 says. Biased on small sets: compare only sets of "
               "one count and one feature network", 2, "set"),
        Column("kid", "KID", "lower", "unbiased squared maximum mean discrepancy of the same features, polynomial "
               "kernel of degree 3 (arXiv 1801.01401); it may fall below 0", 4, "set"),
    ),
    "similarity": (
        Column("image_similarity", "image sim.", "higher", "cosine between the image embeddings of the finished frame "
               "and of the key by a CLIP-type tower: the judge's or the one given with --clip"),
    ),
    "tags": (
        Column("tag_agreement", "tags", "higher", "F1 of the tags that the judge's tagger reads in the finished frame "
               "against those it reads in the key, over all tags"),
        Column("tag_geometry", "shape tags", "higher", "F1 of the tags of shape and pose against those of the truth: "
               "these have to come from the drawing"),
        Column("tag_colors", "color tags", "higher", "F1 of the tags that name a color against those of the key; none "
               "where the tagger knows no such tags"),
        Column("part_colors", "part colors", "lower", "mean CIEDE2000 between the median colors of one part (hair, "
               "iris, top ...) in the finished frame and in the key, parts as the judge's tagger reads them", 2),
    ),
    "lines": (
        Column("line_agreement", "lines", "higher", "F1 of the two that follow: lines found in the model's own picture "
               "before the frame's lines are laid over it, against the lines given, on the model's canvas"),
        Column("line_precision", "precision", "higher", "share of the lines found that lie within 2 canvas pixels of a "
               "given line"),
        Column("line_recall", "recall", "higher", "share of the given lines that lie within 2 canvas pixels of a line "
               "found"),
    ),
    "drift": (
        Column("drift", "drift", "lower", "geometry drift: one drawing and one noise, colored with several keys; the "
               "variance over the keys of every entry of the token Gram matrix (cosines between all pairs of the "
               "tagger's tokens of the model's own picture), averaged over entries, times 1000", 2),
        Column("line_drift", "line drift", "lower", "1 minus the mean F1 between the lines found in the pictures of "
               "any two of these keys"),
    ),
    "background": (
        Column("background_similarity", "background", "higher", "cosine between the mean tagger tokens of the "
               "finished frame's and the key's background, characters painted white and their cells left out; none "
               "where the key has a flat background"),
    ),
}
DEFAULT = ("regions", "flicker", "seconds")
OF_SETS = ("fid", "psnr", "ms-ssim", "similarity", "seconds")   # the default for training sets: those of the papers
ALIASES = {"msssim": "ms-ssim", "ms_ssim": "ms-ssim", "clip": "similarity", "kid": "fid", "accuracy": "regions"}
# A judge model looks at the pictures -> the parts of it that do.
JUDGED = {
    "similarity": ("image_encoder",), "tags": ("tagger", "token_head"), "drift": ("tagger",), "background": ("tagger",),
}
WITH_EXTRA = frozenset({"fid", "psnr", "ms-ssim"})   # torchmetrics measures them
NOT_SHOWN = ("network_share",)   # in JSON and in the report only


def metrics_named(text: str | None, default: tuple[str, ...] = DEFAULT) -> tuple[str, ...]:
    """Read `--metrics`: words of METRICS with commas between, `all`, or `default`; None is the default.

    Raises UsageError for a word that is none.
    """
    words = [word.strip().lower() for word in (text or "default").split(",") if word.strip()]
    chosen: list[str] = []
    for word in words or ["default"]:
        name = ALIASES.get(word, word)
        if name not in (*METRICS, "all", "default"):
            raise UsageError(f"--metrics {word} is no metric", hint=f"{', '.join(METRICS)}, or all")
        chosen += {"all": list(METRICS), "default": list(default)}.get(name, [name])
    return tuple(name for name in METRICS if name in chosen)


def columns_of(metrics: Iterable[str]) -> list[Column]:
    """Every column of some metrics, in the order of the table."""
    wanted = set(metrics)
    return [column for name, columns in METRICS.items() if name in wanted for column in columns]


COLUMNS: dict[str, Column] = {column.key: column for column in columns_of(METRICS)}


def column_of(key: str) -> Column:
    """The column of a score: one of a set has its feature network behind it, "fid (mini tagger features)"."""
    name, bracket, network = key.partition(" (")
    column = COLUMNS.get(name)
    if column is None:
        return Column(key, key, "neither", "not known to this colorcli")
    return replace(column, key=key, title=column.title + bracket + network)


def in_words(key: str, value: float | None) -> str:
    """A score as a cell of a table shows it."""
    return "-" if value is None else f"{value:.{column_of(key).digits}f}"

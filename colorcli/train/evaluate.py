"""Measure a model on shots whose true colors are known, along the same path that a user's shot takes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.errors import FrameError, KeyImageError, ShotError
from colorcli.finish.finish import finish_frame
from colorcli.images import Picture, over_paper, read_picture, write_picture
from colorcli.prepare.frame import prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import Preset
from colorcli.review.metrics import (
    Score,
    character_paper,
    copied_key_score,
    flicker,
    painted_key_score,
    pooled,
    region_score,
    true_regions,
)
from colorcli.shot.engine import Colorizer, model_entry, variant_of
from colorcli.variants import Variant

Float = NDArray[np.float32]

PICTURES = {".png", ".tif", ".tiff", ".tga", ".jpg", ".jpeg", ".exr"}


@dataclass(frozen=True)
class KnownShot:
    """A shot with its truth: a folder with `line/`, `color/` of the same file names, and `key.png`."""

    name: str
    lines: tuple[Path, ...]
    colors: tuple[Path, ...]
    key: Path


@dataclass(frozen=True)
class EvaluationRow:
    """How one shot came out with one key. Accuracies are shares in 0..1, pooled over the regions of all frames."""

    shot: str
    key: str                    # name of the shot whose key it is
    frames: int
    regions: int                # of all frames together
    accuracy: float             # regions whose median color is right
    area_accuracy: float        # the same, by area
    painted_key: float          # accuracy of painting each region with the key's median color at the same place
    copied_key: float           # accuracy of copying the key's pixels
    flicker: float              # mean CIEDE2000 between neighboring frames where the truth does not change
    seconds_per_frame: float    # read, prepare, color, finish, and write if a folder is given
    network_share: float        # share of that time inside the network

    def as_dict(self) -> dict[str, Any]:
        """The row as plain values, for JSON."""
        return asdict(self)


def find_known_shots(data: Path) -> list[KnownShot]:
    """Find the shots with known colors in a folder, by name. A folder that is itself one counts as well.

    Raises ShotError if there are none, if a drawing has no truth, or if a key is missing.
    """
    if not data.is_dir():
        raise ShotError(f"there is no folder {data}", hint="give the folder that holds the shots with known colors")
    inner = sorted(path for path in data.iterdir() if (path / "line").is_dir())
    folders = [data] if (data / "line").is_dir() else inner
    if not folders:
        raise ShotError(f"{data} holds no shot with known colors", hint="each needs line/, color/ and key.png")
    return [_known_shot(folder) for folder in folders]


def evaluate_shots(
    data: Path,
    preset: Preset,
    *,
    cross: bool = False,
    out: Path | None = None,
    colorizer: Colorizer | None = None,
    variant: Variant | None = None,
    on_row: Callable[[EvaluationRow], None] | None = None,
) -> list[EvaluationRow]:
    """Color every shot in `data` with its own key, with `cross` also with every other shot's, and measure.

    colorizer, variant: given together, or the model of the preset is loaded. out: a folder for the colored frames,
    `out/SHOT--KEY/`. on_row: called with each row as soon as it is there.
    Raises ShotError, FrameError, KeyImageError or WeightsError for what cannot be read.
    """
    shots = find_known_shots(data)
    if variant is None:
        variant = variant_of(model_entry(preset.model), preset.model)
    if colorizer is None:
        from colorcli.loading import load_pipeline  # torch comes in here, and nowhere else

        colorizer = load_pipeline(preset.model)
    rows = []
    for shot in shots:
        for owner in shots:
            if owner.name == shot.name or cross:
                rows.append(_evaluate(shot, owner, preset, variant, colorizer, out))
                if on_row is not None:
                    on_row(rows[-1])
    return rows


def mean_row(rows: Sequence[EvaluationRow]) -> EvaluationRow:
    """Sum several rows up: sums of counts, plain means of the rest."""
    assert rows, "nothing to sum up"
    summed = {name: sum(getattr(row, name) for row in rows) for name in ("frames", "regions")}
    means = {
        name: float(np.mean([getattr(row, name) for row in rows]))
        for name in asdict(rows[0])
        if name not in ("shot", "key", *summed)
    }
    return EvaluationRow(shot="mean", key="", **summed, **means)  # type: ignore[arg-type]


def _known_shot(folder: Path) -> KnownShot:
    lines = sorted(path for path in (folder / "line").iterdir() if path.suffix.lower() in PICTURES)
    if not lines:
        raise ShotError(f"{folder / 'line'} holds no frames", hint="take the shot out of the folder, or fill it")
    colors = [folder / "color" / path.name for path in lines]
    for path in colors:
        if not path.exists():
            raise ShotError(f"{path} is missing, but line/{path.name} is there", hint="every drawing needs its truth")
    key = folder / "key.png"
    if not key.exists():
        raise ShotError(f"{folder} has no key.png", hint="copy the color frame there that is to be the key")
    return KnownShot(folder.name, tuple(lines), tuple(colors), key)


def _evaluate(
    shot: KnownShot, owner: KnownShot, preset: Preset, variant: Variant, colorizer: Colorizer, out: Path | None
) -> EvaluationRow:
    """Color one shot with one key. The truth is read only after a frame is finished."""
    try:
        key_picture = read_picture(owner.key)
    except FrameError as error:
        raise KeyImageError(f"the key cannot be used: {error.message}", hint=error.hint) from error
    folder = None if out is None else out / f"{shot.name}--{owner.name}"
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    key = prepare_key(key_picture, preset, variant)
    reference = colorizer.encode_reference(key, preset)
    scores: list[Score] = []
    painted: list[Score] = []
    copied: list[Score] = []
    jumps: list[float] = []
    seconds = network = 0.0
    before: tuple[Float, NDArray[np.bool_], Float] | None = None
    for line_path, color_path in zip(shot.lines, shot.colors, strict=True):
        clock = time.perf_counter()
        picture = read_picture(line_path)
        frame = prepare_frame(picture, preset, variant)
        inside = time.perf_counter()
        layer = colorizer.color([frame], reference, preset)[0]
        network += time.perf_counter() - inside
        color, alpha = finish_frame(layer, frame, key, preset)
        if folder is not None:
            write_picture(folder / line_path.with_suffix(".png").name, color, alpha, picture.format)
        seconds += time.perf_counter() - clock

        truth = read_picture(color_path)
        if truth.size != picture.size:
            raise FrameError(f"{color_path} is {truth.size}, but its drawing is {picture.size}",
                             hint="line/ and color/ have to fit pixel for pixel")
        seen, true_color = over_paper(Picture(color, alpha, picture.format, 4)), over_paper(truth)
        regions = true_regions(picture, truth)
        fitting_key = _at_size(key_picture, picture.size)
        scores.append(region_score(regions, seen))
        painted.append(painted_key_score(regions, fitting_key))
        copied.append(copied_key_score(regions, fitting_key))
        paper = character_paper(picture)
        if before is not None and before[0].shape == seen.shape:
            jumps.append(flicker(before[0], seen, before[1], paper, before[2], true_color))
        before = seen, paper, true_color
    score = pooled(scores)
    return EvaluationRow(
        shot=shot.name,
        key=owner.name,
        frames=len(shot.lines),
        regions=score.regions,
        accuracy=score.accuracy,
        area_accuracy=score.area_accuracy,
        painted_key=pooled(painted).accuracy,
        copied_key=pooled(copied).accuracy,
        flicker=float(np.mean(jumps)) if jumps else 0.0,
        seconds_per_frame=seconds / len(shot.lines),
        network_share=network / seconds if seconds else 0.0,
    )


def _at_size(picture: Picture, size: tuple[int, int]) -> Picture:
    """Scale a key to the size of the frames, where the baselines lay one on the other."""
    if picture.size == size:
        return picture
    color = cv2.resize(picture.color, size, interpolation=cv2.INTER_AREA)
    alpha = None if picture.alpha is None else cv2.resize(picture.alpha, size, interpolation=cv2.INTER_AREA)
    return replace(picture, color=color, alpha=alpha)

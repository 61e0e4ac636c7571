"""What the model will see of a shot, as pictures for a person to look at before the render."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colorcli.errors import FrameError, KeyImageError
from colorcli.images import PixelFormat, over_paper, read_picture, write_picture
from colorcli.model.onnx_networks import open_networks
from colorcli.model.weights import find_weights, read_list, require_whole
from colorcli.prepare.canvas import Canvas, to_canvas
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.prepare.networks import Networks
from colorcli.presets import Preset
from colorcli.shot.engine import variant_of
from colorcli.shot.frames import OUTPUT_MARKS
from colorcli.shot.keys import read_key, read_mask
from colorcli.shot.manifest import ModelEntry, write_atomically
from colorcli.shot.plan import FrameJob, ShotPlan, make_out_folder
from colorcli.variants import VARIANTS

Float = NDArray[np.float32]
Similarity = Callable[[PreparedKey, Preset], Sequence[Float | None]]   # see `ColorizePipeline.similarity`

PREVIEW_FORMAT = PixelFormat("png", "uint8")
PREVIEW_SCHEMA = "colorcli/prepare/1"
LIST_NAME = OUTPUT_MARKS[1]
OVERVIEW_ROWS = 12     # frames on the overview; of a longer shot every n-th
OVERVIEW_SIDE = 256    # longest side of a picture on the overview, in pixels
GAP = 8                # pixels between the pictures
OUTSIDE = np.float32(0.55)  # the overview dims what lies outside the character to this
HEAT_COLORS = np.array(     # of 0, 1/4, 1/2, 3/4 and 1, from the other way round to in full
    [(0.0, 0.0, 0.5), (0.0, 0.5, 1.0), (0.5, 1.0, 0.5), (1.0, 0.5, 0.0), (0.6, 0.0, 0.0)], np.float32
)
HEAT_COVERS = np.float32(0.7)   # of the key below it


@dataclass(frozen=True)
class Preview:
    """What was written."""

    pictures: tuple[Path, ...]
    failed: tuple[tuple[FrameJob, FrameError], ...]  # frames that cannot be prepared, with the reason


def write_preview(
    plan: ShotPlan,
    preset: Preset,
    out: Path | None = None,
    networks: Networks | None = None,
    similarity: Similarity | None = None,
) -> Preview:
    """Write line art and mask of every frame as the model sees them, the key likewise, and one overview.

    out: folder of the pictures; None: the plan's own. Names: walk.0001.lines.png, walk.0001.mask.png, key.color.png,
    key.bleached.png, key.mask.png, key.lines.png, overview.png, and prepare.json with the numbers; and of a picture
    that `background.image` names background.color.png and background.mask.png, at its own size. All others are at
    canvas size: line art is black on white, a mask is white where the character is.
    networks: those that the preset names, made once for several plans; None: they are opened here.
    similarity: shows which parts of the key the preset's `manipulate` reaches, with a loaded model: of each entry that
    has a control key.manipulate.1.png (red: changed in full, dark blue: led the other way), at the key's own size.
    Raises KeyImageError, OutputError, WeightsError (the model is not known, a network cannot be used),
    MissingExtraError; frames that fail are listed.
    """
    out = plan.out if out is None else out
    variant = VARIANTS.get(preset.model) or variant_of(_named(preset.model), preset.model)
    networks = networks or open_networks(preset)
    make_out_folder(out)
    shot_key = read_key(plan)
    try:
        key = prepare_key(
            shot_key.picture, preset, variant, shot_key.masks, networks, shot_key.background, shot_key.background_masks,
        )
    except FrameError as error:
        raise KeyImageError(f"the key cannot be used: {error.message}", hint=error.hint) from error
    pictures = _write_key(out, key)
    if similarity is not None:
        for number, shown in enumerate(similarity(key, preset), 1):
            if shown is not None:
                pictures.append(_write(out / f"key.manipulate.{number}.png", _heated(over_paper(key.picture), shown)))
    rows = [[_small(picture) for picture in (key.color_canvas, 1 - key.ink_canvas, key.bleached_canvas)]]
    notes: dict[str, Any] = {"key": _note(key.canvas, key.ink_canvas, key.mask_canvas)}
    failed: list[tuple[FrameJob, FrameError]] = []
    stems = Counter(job.name for job in plan.jobs)
    on_overview = _shown_on_overview(len(plan.jobs))
    for place, job in enumerate(plan.jobs):
        try:
            picture = read_picture(job.source, plan.request.max_pixels)
            masks = [read_mask(read_picture(path, plan.request.max_pixels)) for path in job.masks]
            frame = prepare_frame(picture, preset, variant, masks, networks)
        except FrameError as error:
            failed.append((job, error))
            continue
        # hello.png and hello.tga are two frames.
        name = job.name if stems[job.name] == 1 else job.source.name
        pictures += [
            _write(out / f"{name}.lines.png", 1 - frame.ink_canvas),
            _write(out / f"{name}.mask.png", frame.mask_canvas),
        ]
        notes[name] = _note(frame.canvas, frame.ink_canvas, frame.mask_canvas)
        if place in on_overview:
            rows.append([_small(image) for image in _as_seen(frame)])
    pictures.append(_write(out / "overview.png", _sheet(rows)))
    content = {"schema": PREVIEW_SCHEMA, "shot": plan.name, "model": variant.name, "frames": notes}
    write_atomically(out / LIST_NAME, (json.dumps(content, indent=2) + "\n").encode())
    return Preview(tuple(pictures), tuple(failed))


def _named(model: str) -> ModelEntry:
    """What a folder of weights says of itself; the hash is not needed here."""
    found = find_weights(model)
    listed = read_list(found) if found.is_dir() else require_whole(found)
    return ModelEntry(name=listed.model, sha256="", license=listed.license)


def _write_key(out: Path, key: PreparedKey) -> list[Path]:
    behind = key.background
    pictures = [("color", behind.color), ("mask", behind.mask)] if behind is not None else []
    return [
        *(_write(out / f"background.{what}.png", picture) for what, picture in pictures),
        _write(out / "key.color.png", key.color_canvas),
        _write(out / "key.bleached.png", key.bleached_canvas),
        _write(out / "key.mask.png", key.mask_canvas),
        _write(out / "key.lines.png", 1 - key.ink_canvas),
    ]


def _heated(picture: Float, heat: Float) -> Float:
    """Lay a map (H, W), 0..1, in colors over a picture (H, W, 3)."""
    colors = HEAT_COLORS[np.rint(heat * (len(HEAT_COLORS) - 1)).astype(int)]
    shown: Float = HEAT_COVERS * colors + (1 - HEAT_COVERS) * picture
    return shown


def _write(path: Path, image: Float) -> Path:
    """image: (h, w) gray or (h, w, 3), 0..1."""
    write_picture(path, np.clip(image, 0, 1).astype(np.float32), None, PREVIEW_FORMAT)
    return path


def _note(canvas: Canvas, ink: Float, mask: Float) -> dict[str, Any]:
    """The numbers behind the pictures."""
    return {
        "source": canvas.source,
        "crop": canvas.crop,
        "canvas": canvas.size,
        "window": canvas.window,
        "ink": round(float(ink.mean()), 5),
        "character": round(float(mask.mean()), 5),
    }


def _as_seen(frame: PreparedFrame) -> list[Float]:
    """A row of the overview: the drawing on the canvas, its lines, and the lines with all but the character dimmed."""
    drawing = to_canvas(over_paper(frame.picture), frame.canvas, 1)
    lines = 1 - frame.ink_canvas
    return [drawing, lines, lines * (OUTSIDE + (1 - OUTSIDE) * frame.mask_canvas)]


def _shown_on_overview(count: int) -> set[int]:
    """Places of the frames that are shown: all of a short shot, else evenly spread with first and last."""
    if count <= OVERVIEW_ROWS:
        return set(range(count))
    return {round(row * (count - 1) / (OVERVIEW_ROWS - 1)) for row in range(OVERVIEW_ROWS)}


def _small(image: Float) -> Float:
    """The picture at a whole fraction of its size, (h, w, 3); every pixel is the mean of a block."""
    color = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    block = max(1, -(-max(color.shape[:2]) // OVERVIEW_SIDE))
    height, width = color.shape[0] // block, color.shape[1] // block
    blocks = color[: height * block, : width * block].reshape(height, block, width, block, 3)
    small: Float = blocks.mean(axis=(1, 3), dtype=np.float32)
    return small


def _sheet(rows: Sequence[Sequence[Float]]) -> Float:
    """Pictures in rows and columns on gray."""
    columns = max(len(row) for row in rows)
    widths = [max(row[column].shape[1] for row in rows if column < len(row)) for column in range(columns)]
    heights = [max(image.shape[0] for image in row) for row in rows]
    sheet = np.full((sum(heights) + GAP * (len(rows) + 1), sum(widths) + GAP * (columns + 1), 3), 0.5, np.float32)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for image, width in zip(row, widths, strict=False):
            sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
            left += width + GAP
        top += height + GAP
    return sheet

"""What a model can do so far: a few validation drawings, colored along the same path that a user's shot takes."""

from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.finish.finish import finish_frame
from colorcli.images import FORMATS, over_paper, read_picture, write_picture
from colorcli.loading import quiet_libraries
from colorcli.model.build import Components
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.frame import prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import default_preset
from colorcli.train.data.validation import write_validation_shots

HEIGHT = 270  # of a picture in the sheet, in pixels


def draw_previews(components: Components, folder: Path, path: Path, count: int) -> None:
    """Color `count` validation drawings and write a sheet: a row for each, with key, drawing, colored and true picture.

    folder: where the drawings are kept between previews. Raises OutputError or FrameError.
    """
    shots = folder / "preview-shots"
    if len(list(shots.glob("*/key.png"))) != count:
        write_validation_shots(shots, count, frames=1)
    with quiet_libraries():
        pipeline = ColorizePipeline(**{field.name: getattr(components, field.name) for field in fields(Components)})
    preset = default_preset(pipeline.variant)
    rows = []
    for shot in sorted(path for path in shots.iterdir() if path.is_dir()):
        key_picture = read_picture(shot / "key.png")
        line, truth = (read_picture(next((shot / part).iterdir())) for part in ("line", "color"))
        key, frame = prepare_key(key_picture, preset, pipeline.variant), prepare_frame(line, preset, pipeline.variant)
        layer = pipeline.color([frame], pipeline.encode_reference(key, preset), preset)[0]
        color, alpha = finish_frame(layer, frame, key, preset)
        colored = color if alpha is None else over_paper(type(line)(color, alpha, line.format, 4))
        rows.append(np.hstack([_small(image) for image in (over_paper(key_picture), over_paper(line), colored,
                                                           over_paper(truth))]))
    width = max(row.shape[1] for row in rows)
    sheet = np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=1.0) for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, sheet, None, FORMATS["png8"])


def _small(image: NDArray[np.float32]) -> NDArray[np.float32]:
    size = (max(1, round(image.shape[1] * HEIGHT / image.shape[0])), HEIGHT)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)

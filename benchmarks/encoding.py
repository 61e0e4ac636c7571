"""Files: the time that a 1024x1024 frame takes to write and to read: `python -m benchmarks.encoding`.

Three pictures: a colored drawing, the same with the noise of a scan, smooth shades. Every file is read again, and must
hold the same pixels. Processor time counts here, since files are written by threads beside the network.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenImageIO as oiio
import PIL.Image
from numpy.typing import NDArray

from benchmarks.machine import interleaved, load, machine, report
from benchmarks.shots import CHARACTER
from colorcli.images import FORMATS, decode_srgb, read_picture, write_picture
from colorcli.train.drawings import design_character, draw

SIDE = 1024
NOISE = 0.01          # deviation, of 0..1
EXR_WAYS = ("none", "rle", "zips", "zip", "piz")   # without loss

Bytes = NDArray[np.uint8]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    report(measure(options.rounds), options.json)


def measure(rounds: int) -> dict[str, Any]:
    """Time every encoder on every picture."""
    before, pictures = machine(), drawn_noisy_smooth()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="colorcli-bench-") as name:
        folder = Path(name)
        for kind, pixels in pictures.items():
            result[kind] = {
                "png": table(png_writers(pixels), folder, ".png", pixels, rounds),
                "exr": table(exr_writers(pixels), folder, ".exr", pixels, rounds),
                "read_png": reading(folder / "png ours.png", rounds),
            }
    return {"benchmark": "encoding", "machine": before, "load_after": load(), "rounds": rounds, "pictures": result}


def drawn_noisy_smooth() -> dict[str, Bytes]:
    """Make the pictures, (SIDE, SIDE, 3)."""
    drawing = draw(design_character(CHARACTER), 1, (SIDE, SIDE), view="front", background="plain", framing="full")
    scan = drawing.color / 255 + np.random.default_rng(0).normal(0, NOISE, (SIDE, SIDE, 3))
    ramp = np.linspace(0, 1, SIDE)
    shades = np.stack(np.broadcast_arrays(ramp[None] * ramp[:, None], ramp[None], ramp[:, None]), axis=-1)
    return {
        "drawn": np.asarray(drawing.color, np.uint8),
        **{name: np.asarray(np.round(255 * np.clip(values, 0, 1)), np.uint8)
           for name, values in (("noisy", scan), ("smooth", shades))},
    }


def png_writers(pixels: Bytes) -> dict[str, Callable[[Path], object]]:
    """Ways to write a PNG; the first is the baseline."""
    unit = np.asarray(pixels / 255, np.float32)
    return {
        "Pillow": lambda file: PIL.Image.fromarray(pixels).save(file),
        "Pillow, level 1": lambda file: PIL.Image.fromarray(pixels).save(file, compress_level=1),
        "OpenCV": lambda file: cv2.imwrite(str(file), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)),
        "OpenImageIO": lambda file: write_with_oiio(file, pixels),
        "ours": lambda file: write_picture(file, unit, None, FORMATS["png8"]),
    }


def exr_writers(pixels: Bytes) -> dict[str, Callable[[Path], object]]:
    """Ways to write a half EXR; the first is the baseline."""
    unit = np.asarray(pixels / 255, np.float32)
    linear = np.asarray(decode_srgb(unit), np.float16)
    return {way: partial(write_with_oiio, pixels=linear, compression=way) for way in EXR_WAYS} | {
        "ours": lambda file: write_picture(file, unit, None, FORMATS["exr-half"])
    }


def write_with_oiio(file: Path, pixels: NDArray[Any], compression: str | None = None) -> None:
    """Write with OpenImageIO as it comes, or with one of its compressions."""
    height, width, channels = pixels.shape
    spec = oiio.ImageSpec(width, height, channels, {"float16": "half"}.get(str(pixels.dtype), str(pixels.dtype)))
    if compression is not None:
        spec.attribute("compression", compression)
    output = oiio.ImageOutput.create(str(file))
    assert output is not None and output.open(str(file), spec) and output.write_image(pixels) and output.close()


def table(
    writers: dict[str, Callable[[Path], object]], folder: Path, suffix: str, pixels: Bytes, rounds: int
) -> dict[str, Any]:
    """Time the writers, and give the size of each file and whether it holds the same pixels."""
    files = {name: folder / f"{suffix[1:]} {name}{suffix}" for name in writers}
    times = interleaved({name: partial(write, files[name]) for name, write in writers.items()}, rounds)
    exact = {name: bool((np.round(255 * read_picture(file).color) == pixels).all()) for name, file in files.items()}
    return times | {"kilobytes": {name: round(file.stat().st_size / 1000, 1) for name, file in files.items()},
                    "same_pixels": exact}


def reading(file: Path, rounds: int) -> dict[str, Any]:
    """Time readers of a PNG, up to floating color."""
    def by_pillow() -> object:
        with PIL.Image.open(file) as image:
            return np.asarray(image, np.float32) / 255

    return interleaved({"Pillow": by_pillow, "ours": lambda: read_picture(file)}, rounds)


if __name__ == "__main__":
    main()

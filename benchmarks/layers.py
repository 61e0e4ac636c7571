"""Layers laid over each other: how far that is from the frame, and what they cost: `python -m benchmarks.layers`.

Colors frames of the sample shot (or of --shot) with mini and all layers, as sequences, EXR and PSD, with 8 and 16 bits.
The files are read with OpenImageIO and psd-tools, and laid over each other in double precision.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray
from psd_tools import PSDImage
from psd_tools.composite import composite

from benchmarks.machine import interleaved, load, machine, report
from colorcli.cli.main import main as colorcli
from colorcli.finish.finish import finish_frame
from colorcli.finish.layers import layered_frame
from colorcli.images import FORMATS, read_picture, write_picture
from colorcli.prepare.frame import prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import LayerFiles, LayerSettings, Preset
from colorcli.shot.layer_files import layer_files, write_layers
from colorcli.shot.stand_in import StandIn
from colorcli.variants import VARIANTS

SAMPLES = Path(__file__).parent.parent / "samples"
ALL = ("color", "line", "matte", "flat", "shade", "paper")
KINDS: tuple[LayerFiles, ...] = ("sequences", "exr", "psd")

Plane = tuple[NDArray[np.float64], NDArray[np.float64]]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shot", type=Path, default=SAMPLES / "walk", help="a folder of frames")
    parser.add_argument("--ref", type=Path, default=SAMPLES / "walk_key.png")
    parser.add_argument("--frames", default="3,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory(prefix="colorcli-bench-") as name:
        apart = {kind: colored(options, Path(name) / kind, kind) for kind in ("png8", "png16")}
        cost = timed(options, Path(name) / "timed")
    report(
        {"benchmark": "layers", "machine": before, "load_after": load(), "apart": apart, "processor_time": cost},
        options.json,
    )


def colored(options: argparse.Namespace, out: Path, kind: str) -> dict[str, Any]:
    """Color the frames, and give the largest differences over them."""
    asked = ["--frames", options.frames, "--format", kind, "--layers", "all", "--layers-as", ",".join(KINDS), "-q"]
    assert colorcli([str(options.shot), "--ref", str(options.ref), "-o", str(out), *asked]) == 0
    frames = sorted(out.glob("*.png"))
    level = 255 if kind == "png8" else 65535
    result: dict[str, Any] = {}
    for frame in frames:
        found = {**sequences(out, frame, level), **multipart(out, frame), **photoshop(out, frame, level)}
        for name, value in found.items():
            result[name] = max(result.get(name, 0.0), round(value, 6))
    sizes = {name: sum(path.stat().st_size for path in found) for name, found in {
        "frames": frames, "sequences": out.glob("layers/*/*.png"), "exr": out.glob("layers/*.exr"),
        "psd": out.glob("layers/*.psd"),
    }.items()}
    return {"frames": [frame.stem for frame in frames], **result, "bytes": sizes}


def sequences(out: Path, frame: Path, level: int) -> dict[str, float]:
    """The pictures of a frame's layers, laid over each other."""
    made, there = plane(read(frame), False), {}
    for name in ALL:
        there[name] = read(out / "layers" / name / frame.name)
    found = {}
    for name, colors in (
        ("color", plane(there["color"], False)),
        ("flat times shade", (plane(there["flat"], False)[0] * there["shade"], there["flat"][..., 3])),
    ):
        whole, _ = over(plane(there["paper"], False), colors, plane(there["line"], False))
        apart = np.abs(whole - made[0]).max(axis=2) * level
        found[f"sequences, {name}: levels"] = float(apart.max())
        found[f"sequences, {name}: share of pixels over 1 level"] = float((apart > 1).mean())
    return found


def multipart(out: Path, frame: Path) -> dict[str, float]:
    """The parts of a frame's EXR, laid over each other."""
    source = oiio.ImageInput.open(str(out / "layers" / f"{frame.stem}.exr"))
    parts: dict[str, NDArray[np.float64]] = {}
    while source.seek_subimage(len(parts), 0):
        spec = source.spec()
        pixels = np.asarray(source.read_image(len(parts), 0, 0, spec.nchannels, oiio.FLOAT), np.float64)
        parts[spec.getattribute("oiio:subimagename")] = pixels.reshape(spec.height, spec.width, spec.nchannels)
    found = {}
    for name, colors in (
        ("color", plane(parts["color"], True)),
        ("flat times shade", (parts["flat"][..., :3] * parts["shade"], parts["flat"][..., 3])),
    ):
        whole, _ = over(plane(parts["paper"], True), colors, plane(parts["line"], True))
        found[f"exr, {name}: of 1"] = float(np.abs(whole - parts["beauty"][..., :3]).max())
    return found


def photoshop(out: Path, frame: Path, level: int) -> dict[str, float]:
    """A frame's PSD as it opens, and with flat and shade on."""
    opened = PSDImage.open(out / "layers" / f"{frame.stem}.psd")
    made, layers = plane(read(frame), False), {layer.name: layer for layer in opened}
    found = {}
    for name, flats in (("color", False), ("flat times shade", True)):
        layers["color"].visible, layers["flat and shade"].visible = not flats, flats
        color, _, alpha = composite(opened, force=True)
        found[f"psd, {name}: levels"] = float(np.abs(color * alpha - made[0]).max() * level)
    return found


def read(path: Path) -> NDArray[np.float64]:
    """Pixels as they lie in the file, 0..1."""
    straight = oiio.ImageSpec()
    straight.attribute("oiio:UnassociatedAlpha", 1)
    source = oiio.ImageInput.open(str(path), straight)
    spec = source.spec()
    pixels = source.read_image(0, 0, 0, spec.nchannels, oiio.FLOAT)
    return np.asarray(pixels, np.float64).reshape(spec.height, spec.width, spec.nchannels)


def plane(pixels: NDArray[np.float64], premultiplied: bool) -> Plane:
    """Color multiplied by alpha, and alpha."""
    if pixels.shape[2] == 3:
        return pixels, np.ones(pixels.shape[:2])
    return (pixels[..., :3] if premultiplied else pixels[..., :3] * pixels[..., 3:]), pixels[..., 3]


def over(*stack: Plane) -> Plane:
    """Porter and Duff, from the bottom up."""
    color, alpha = stack[0]
    for top, cover in stack[1:]:
        color, alpha = top + (1 - cover)[..., None] * color, cover + (1 - cover) * alpha
    return color, alpha


def timed(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Finishing and writing one frame, alone and with its layers; the model's part is not in it."""
    out.mkdir()
    path = sorted(path for path in options.shot.iterdir() if path.suffix.lower() in (".png", ".tga", ".exr"))[0]
    preset, variant, engine = Preset(), VARIANTS["mini"], StandIn()
    frame = prepare_frame(read_picture(path), preset, variant)
    key = prepare_key(read_picture(options.ref), preset, variant)
    (layer,) = engine.color([frame], engine.encode_reference(key, preset), preset)
    png = FORMATS["png8"]

    def alone() -> None:
        color, alpha = finish_frame(layer, frame, key, preset)
        write_picture(out / "frame.png", color, alpha, png)

    def with_layers(*kinds: LayerFiles) -> None:
        wanted = preset.model_copy(update={"layers": LayerSettings(names=ALL, files=kinds)})
        layered = layered_frame(layer, frame, key, wanted)
        write_layers(out, layer_files("frame.png", wanted), layered, png)
        write_picture(out / "frame.png", layered.color, layered.alpha, png)

    calls = {"the frame alone": alone, **{kind: lambda kind=kind: with_layers(kind) for kind in KINDS}}
    return interleaved(calls, rounds=options.rounds, warm_up=1)


if __name__ == "__main__":
    main()

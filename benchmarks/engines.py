"""Torch against OpenVINO on the CPU: `python -m benchmarks.engines`.

Whole frames at 512x512 and 1280x720, the coloring alone, and each network alone, in turns, with how far the pictures of
one engine are from the other's. The denoising network's counted operations a second stand beside those of a large
matrix product of torch. Needs colorcli[openvino].
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.machine import equivalence, interleaved, load, machine, note, report
from benchmarks.shots import SIZES, write_shot
from colorcli.cli.main import calm_idle_threads

SIDE = 2048           # of the matrices
CANVAS = (320, 320)   # width and height at which networks are timed alone: mini's own
COMPARED = 6          # frames of each size whose pictures are compared


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--preset", default="cel")
    parser.add_argument("--engine", metavar="DIR", help="an export; without one the networks are converted")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    calm_idle_threads(os.environ)
    report(measure(options.rounds, options.preset, options.engine), options.json)


def measure(rounds: int, preset_name: str, exported: str | None) -> dict[str, Any]:
    """Time both engines, in turns."""
    import torch

    from colorcli.loading import load_pipeline, quiet_libraries
    from colorcli.model.openvino_export import OPENVINO, find_engine
    from colorcli.model.openvino_networks import open_openvino
    from colorcli.model.weights import family_of
    from colorcli.presets import load_preset

    before, preset = machine(), load_preset(preset_name, [], family_of)
    pipeline = load_pipeline("mini", "cpu")
    clock = perf_counter()
    with quiet_libraries():
        engine = open_openvino(pipeline, find_engine(exported or OPENVINO))
    opening = perf_counter() - clock
    result = {
        "benchmark": "engines", "preset": preset_name, "machine": before, "threads": torch.get_num_threads(),
        "engines": ["torch", engine.describe()], "export": exported, "opening_seconds": round(opening, 2),
        "networks": networks_alone(pipeline, engine, rounds),
        "sizes": {f"{w}x{h}": frames_of((w, h), pipeline, engine, preset, rounds) for w, h in SIZES},
    }
    return {**result, "load_after": load()}


def networks_alone(pipeline: Any, engine: Any, rounds: int) -> dict[str, Any]:
    """Time each network on one canvas, and tell how far its numbers are apart, as a share of the largest."""
    import torch

    from benchmarks.network import flops_of
    from colorcli.model.unet import project_context

    drawn = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Any:
        return torch.randn(shape, generator=drawn)

    width, height = CANVAS
    sketch, latents, y = random(1, 3, height, width), random(1, 4, height // 8, width // 8), random(1, 512)
    side, config = pipeline.tagger.config["image_size"], pipeline.projection.config
    pixels = random(1, 3, side, side)
    found: dict[str, Any] = {}
    with torch.inference_mode():
        maps = pipeline.sketch_encoder(sketch)
        read = project_context(pipeline.unet, random(1, config["token_length"], config["output_dim"]))
        pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "denoise": (partial(pipeline.unet, latents, 300.0, y, read, maps),
                        partial(engine.denoise, latents, 300.0, y, read, maps)),
            "sketch": (partial(pipeline.sketch_encoder, sketch), partial(engine.sketch, sketch)),
            "tagger": (partial(pipeline.tagger, pixels), partial(engine.tagger, pixels)),
        }
        one, other = torch.randn(2, SIDE, SIDE).unbind()
        product = 2 * SIDE**3
        for name, (torchs, ours) in pairs.items():
            calls = {"torch": torchs, "openvino": ours, "matmul": partial(torch.matmul, one, other)}
            times = interleaved(calls, rounds, warm_up=2)
            operations, seconds = flops_of(torchs), times["seconds"]
            peak = product / seconds["matmul"]["median"]
            wanted, given = ([x] if isinstance(x, torch.Tensor) else x for x in (torchs(), ours()))
            found[name] = {
                "gflop": round(operations / 1e9, 2),
                "share_of_matmul": {who: round(operations / seconds[who]["median"] / peak, 3)
                                    for who in ("torch", "openvino")},
                "max_difference_of_largest": max(
                    float((a - b).abs().max() / a.abs().max()) for a, b in zip(wanted, given, strict=True)),
                "runs": times,
            }
            note(f"{name}: {times['ratios']['openvino']['median']} times as fast")
    return found


def frames_of(size: tuple[int, int], pipeline: Any, engine: Any, preset: Any, rounds: int) -> dict[str, Any]:
    """Time frames of one size with both engines: the coloring, and all from a picture to the finished one."""
    from colorcli.finish.finish import finish_frame
    from colorcli.images import read_picture
    from colorcli.prepare.frame import prepare_frame
    from colorcli.prepare.key import prepare_key
    from colorcli.variants import VARIANTS

    variant = VARIANTS["mini"]
    with tempfile.TemporaryDirectory(prefix="colorcli-bench-") as name:
        shot, key_file = write_shot(Path(name), size, COMPARED)
        key = prepare_key(read_picture(key_file), preset, variant)
        pictures = [read_picture(file) for file in sorted(shot.iterdir())]
    frames = [prepare_frame(picture, preset, variant) for picture in pictures]
    engines = {"torch": None, "openvino": engine}
    references = {}
    for who, runs in engines.items():
        pipeline.use_engine(runs)
        references[who] = pipeline.encode_reference(key, preset)

    def color(who: str, frame: Any) -> Any:
        pipeline.use_engine(engines[who])
        return pipeline.color([frame], references[who], preset)[0]

    def whole(who: str, picture: Any) -> Any:
        frame = prepare_frame(picture, preset, variant)
        return finish_frame(color(who, frame), frame, key, preset)[0]

    # Each engine goes through the frames at its own pace, so both have the same one in every round.
    turns = {who: cycle(frames) for who in engines}
    wholes = {who: cycle(pictures) for who in engines}
    coloring = interleaved({who: partial(lambda who: color(who, next(turns[who])), who) for who in engines}, rounds)
    all_of_it = interleaved({who: partial(lambda who: whole(who, next(wholes[who])), who) for who in engines}, rounds)
    layers = {who: [color(who, frame) for frame in frames] for who in engines}
    finished = {who: [whole(who, picture) for picture in pictures] for who in engines}
    note(f"{size[0]}x{size[1]}: {all_of_it['ratios']['openvino']['median']} times as fast")
    return {
        "canvases": sorted({frame.canvas.size for frame in frames}),
        "color": coloring, "frame": all_of_it,
        "layers": equivalence(layers["torch"], layers["openvino"]),
        "pictures": equivalence(finished["torch"], finished["openvino"]),
    }


if __name__ == "__main__":
    main()

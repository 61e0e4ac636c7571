"""Seconds for a frame, stage by stage, at 512x512 and 1280x720: `python -m benchmarks.frames`.

The stages are timed one after the other in one process; a render overlaps them, so that reading, finishing and writing
hide behind the network where there is a core to spare. The sizes take turns, so that a busy moment hits both.
"""

import argparse
import os
import tempfile
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.machine import load, machine, note, report, summary
from benchmarks.shots import SIZES, write_shot
from colorcli.cli.main import calm_idle_threads

STAGES = ("read", "prepare", "color", "finish", "write")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="frames of each size that are timed")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--preset", default="cel")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    calm_idle_threads(os.environ)   # as the command does
    report(measure(options.rounds, options.model, options.preset, options.device), options.json)


def measure(rounds: int, model: str, preset_name: str, device: str) -> dict[str, Any]:
    """Time `rounds` frames of each size, after one of each that warms up."""
    from colorcli.images import read_picture
    from colorcli.loading import load_pipeline
    from colorcli.model.weights import family_of
    from colorcli.prepare.key import prepare_key
    from colorcli.presets import load_preset
    from colorcli.shot.engine import model_entry, variant_of

    preset = load_preset(preset_name, [f"model={model}"], family_of)
    variant = variant_of(model_entry(preset.model), preset.model)
    clock = perf_counter()
    pipeline = load_pipeline(preset.model, device, loras=preset.lora)
    loading = perf_counter() - clock
    before = machine()
    with tempfile.TemporaryDirectory(prefix="colorcli-bench-") as name:
        shots = {size: write_shot(Path(name), size, rounds + 1) for size in SIZES}
        keys = {size: prepare_key(read_picture(shots[size][1]), preset, variant) for size in SIZES}
        references = {size: pipeline.encode_reference(keys[size], preset) for size in SIZES}
        times: dict[tuple[int, int], list[dict[str, float]]] = {size: [] for size in SIZES}
        for number in range(rounds + 1):
            for size in SIZES:
                file = sorted(shots[size][0].iterdir())[number]
                ready = (pipeline, keys[size], references[size], preset, variant)
                spent = time_a_frame(file, Path(name) / file.name, *ready)
                note(f"{size[0]}x{size[1]} frame {number}: {sum(spent.values()):.3f} s")
                if number:
                    times[size].append(spent)
    sizes = {f"{size[0]}x{size[1]}": summed_up(times[size]) for size in SIZES}
    return {
        "benchmark": "frames",
        "model": model,
        "preset": preset_name,
        "device": str(pipeline.device),
        "machine": before,
        "load_after": load(),
        "rounds": rounds,
        "model_loads_seconds": round(loading, 3),
        "sizes": sizes,
    }


def time_a_frame(
    file: Path, output: Path, pipeline: Any, key: Any, reference: Any, preset: Any, variant: Any
) -> dict[str, float]:
    """Give the seconds of every stage for one frame."""
    from colorcli.finish.finish import finish_frame
    from colorcli.images import read_picture, write_picture
    from colorcli.prepare.frame import prepare_frame

    marks = [perf_counter()]
    picture = read_picture(file)
    marks.append(perf_counter())
    frame = prepare_frame(picture, preset, variant)
    marks.append(perf_counter())
    layer = pipeline.color([frame], reference, preset)[0]
    marks.append(perf_counter())
    color, alpha = finish_frame(layer, frame, key, preset)
    marks.append(perf_counter())
    write_picture(output, color, alpha, picture.format)
    marks.append(perf_counter())
    return {stage: after - before for stage, (before, after) in zip(STAGES, pairwise(marks), strict=True)}


def summed_up(times: list[dict[str, float]]) -> dict[str, Any]:
    """Sum up the frames of one size: the whole, each stage, and the shares of I/O and of all but the network."""
    whole = summary([sum(spent.values()) for spent in times])
    stages = {stage: summary([spent[stage] for spent in times]) for stage in STAGES}
    middle = {stage: values["median"] for stage, values in stages.items()}
    total = sum(middle.values())
    return {
        "seconds_per_frame": whole,
        "stages": stages,
        "share_io": round((middle["read"] + middle["write"]) / total, 4),
        "share_outside_network": round(1 - middle["color"] / total, 4),
    }


if __name__ == "__main__":
    main()

"""Time against what a shot is made of, with fitted constants: `python -m benchmarks.scale [--plot FOLDER]`.

Against its frames: a run with mini at 512x512 for short shots, and with a stand-in for the network for shots of up to
2,000 tiny frames, which is what everything around the network costs. Against pixels, frames in one call, steps and
tokens of the reference: the network itself, or the coloring of one frame. A line, or a curve with a square, is laid
through the medians by least squares; what it misses is given beside it.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import interleaved, load, machine, note, report
from benchmarks.plot import FIRST, SECOND, Line, Panel, figure
from benchmarks.shots import hold, write_shot
from colorcli.cli.main import calm_idle_threads

SIZE = (512, 512)
FRAMES = (1, 2, 4, 8, 16, 32)
MANY_FRAMES = (1, 250, 500, 1000, 2000)
SIDES = (256, 384, 512, 768, 1024, 1280, 1536)
ROWS = (1, 2, 3, 4, 6, 8)
STEPS = (1, 2, 4, 8, 16)
TOKENS = (49, 98, 196, 392, 588, 784)


@dataclass(frozen=True)
class Axis:
    """Something that time is measured against."""

    name: str
    unit: str
    calls: Mapping[int, Callable[[], object]]   # how much of it -> what takes the time
    powers: tuple[int, ...] = (0, 1)              # of the curve that is laid through
    rounds: int = 5
    warm_up: int = 1


def main() -> None:
    """Measure, fit, draw and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", metavar="AXIS", help="of frames, many_frames, pixels, rows, steps, tokens")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="write speed-scale.svg there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    calm_idle_threads(os.environ)
    result = measure(options.rounds, options.only)
    if options.plot is not None:
        (options.plot / "speed-scale.svg").write_text(drawn(result["axes"]), encoding="utf-8")
    report(result, options.json)


def measure(rounds: int, only: Sequence[str] | None = None) -> dict[str, Any]:
    """Time every axis, one after the other; the points of one take turns."""
    import torch

    before, found = machine(), {}
    with tempfile.TemporaryDirectory(prefix="colorcli-bench-") as name, torch.inference_mode():
        for axis in axes(Path(name), rounds):
            if only and axis.name not in only:
                continue
            note(f"{axis.name}: {', '.join(f'{amount:g}' for amount in axis.calls)} {axis.unit}")
            times = interleaved({f"{n:g}": call for n, call in axis.calls.items()}, axis.rounds, axis.warm_up)
            points = [(n, times["seconds"][f"{n:g}"]["median"]) for n in axis.calls]
            found[axis.name] = {
                "unit": axis.unit, "points": points, "fit": fit(points, axis.powers), "loads":
                [times["load_before"], times["load_after"]], "rounds": axis.rounds,
            }
    return {"benchmark": "scale", "machine": before, "load_after": load(), "threads": torch.get_num_threads(),
            "axes": found}


def axes(folder: Path, rounds: int) -> Iterator[Axis]:
    """Give everything that is measured; what it needs is made when its turn comes."""
    from benchmarks.network import call_of
    from colorcli.images import read_picture
    from colorcli.loading import load_pipeline
    from colorcli.prepare.frame import prepare_frame
    from colorcli.prepare.key import prepare_key
    from colorcli.presets import load_preset
    from colorcli.shot.engine import model_entry

    pipeline, preset = load_pipeline("mini", "cpu"), load_preset("cel")
    shot, key = write_shot(folder, SIZE, max(FRAMES))
    runner = Runner(folder, preset, model_entry("mini"))
    yield Axis("frames", "frames", {n: partial(runner.run, shot, key, n, pipeline) for n in FRAMES}, rounds=3)

    tiny, tiny_key = write_shot(folder / "tiny", (48, 32), 1)
    many = hold(tiny, max(MANY_FRAMES), alike=False)
    small = Runner(folder, load_preset("cel", ["canvas.size=[128, 128]"]), model_entry("mini"))
    calls = {n: partial(small.run, many, tiny_key, n, StandIn()) for n in MANY_FRAMES}
    yield Axis("many_frames", "frames", calls, rounds=3, warm_up=0)

    pixels = {side * side: call_of(pipeline, (side, side)) for side in SIDES}
    yield Axis("pixels", "pixels", pixels, powers=(0, 1, 2), rounds=rounds)
    yield Axis("rows", "frames in a call", {n: call_of(pipeline, (320, 320), n) for n in ROWS}, rounds=rounds)

    frame = prepare_frame(read_picture(next(shot.iterdir())), preset, pipeline.variant)
    reference = pipeline.encode_reference(prepare_key(read_picture(key), preset, pipeline.variant), preset)
    stepped = {
        n: partial(pipeline.color, [frame], reference,
                   preset.model_copy(update={"sampling": preset.sampling.model_copy(update={"steps": n})}))
        for n in STEPS
    }
    yield Axis("steps", "steps", stepped, rounds=rounds)
    yield Axis("tokens", "tokens", {n: call_of(pipeline, (320, 320), tokens=n) for n in TOKENS}, rounds=rounds)


class StandIn:
    """Colors everything white at once."""

    def encode_reference(self, key: Any, preset: Any) -> None:
        """Read nothing."""

    def color(self, frames: Sequence[Any], reference: None, preset: Any) -> list[Any]:
        """Give white layers."""
        return [np.ones((*frame.ink_canvas.shape, 3), np.float32) for frame in frames]

    def describe(self) -> dict[str, str]:
        """Be of no kind."""
        return {"device": "cpu"}


@dataclass(frozen=True)
class Runner:
    """Runs shots as the command does, but with a model that is loaded already."""

    folder: Path
    preset: Any
    model: Any

    def run(self, shot: Path, key: Path, frames: int, colorizer: Any) -> None:
        """Color the first frames of a shot."""
        from colorcli.shot.plan import ShotRequest, plan_shots
        from colorcli.shot.run import run_plans

        out = self.folder / "out"
        request = ShotRequest((str(shot),), (str(key),), out=out, frames=f"1-{frames}", preset=self.preset)
        plans = plan_shots(request)
        result = run_plans(plans, self.preset, Silent(), load_colorizer=lambda: colorizer, model=self.model)
        assert result.exit_code == 0, result.error
        shutil.rmtree(out)


class Silent:
    """A reporter that tells nobody."""

    def started(self, plan: Any) -> None: ...
    def frame(self, record: Any, done: int, total: int) -> None: ...
    def warning(self, text: str) -> None: ...
    def finished(self, totals: Any) -> None: ...


def fit(points: Sequence[tuple[float, float]], powers: Sequence[int]) -> dict[str, Any]:
    """Lay a sum of powers through the points by least squares of what it misses as a share of each point.

    Gives {"constants": {"0": seconds, "1": seconds for one more, "2": ...}, "misses": the largest share it misses a
    point by}. Shares, so that the short times count as much as the long ones. No constant is below 0.
    """
    amounts, seconds = (np.array(each, np.float64) for each in zip(*points, strict=True))
    used = list(powers)
    while True:
        terms = np.stack([amounts**power for power in used], axis=1) / seconds[:, None]
        size = np.abs(terms).max(axis=0)
        constants = np.linalg.lstsq(terms / size, np.ones(len(points)), rcond=None)[0] / size
        if (constants >= 0).all() or len(used) == 1:
            break
        used.pop(int(np.argmin(constants * size)))   # no time is ever won by more work
    missed = terms @ constants - 1
    return {
        "constants": {str(power): float(f"{value:.4g}") for power, value in zip(used, constants, strict=True)},
        "misses": round(float(np.abs(missed).max()), 4),
    }


def at(constants: Mapping[str, float], amount: float) -> float:
    """Give the seconds that a fit says."""
    return sum(value * amount ** int(power) for power, value in constants.items())


TITLES = {
    "frames": "frames, with mini", "many_frames": "frames, with a stand-in", "pixels": "pixels of the canvas",
    "rows": "frames in a call", "steps": "steps", "tokens": "tokens of the reference",
}


def drawn(found: Mapping[str, Any]) -> str:
    """Draw every axis: the measured points, and the line that was laid through."""
    panels = []
    for name, axis in found.items():
        points, constants = axis["points"], axis["fit"]["constants"]
        first, last = points[0][0], points[-1][0]
        curve = [(x, at(constants, x)) for x in np.linspace(first, last, 40)]
        missed = f"misses {axis['fit']['misses']:.0%} at most"
        lines = [Line(curve, FIRST), Line(points, SECOND, joined=False)]
        panels.append(Panel(TITLES[name], missed, lines, from_zero=True, along=axis["unit"],
                            value=lambda seconds: f"{seconds:.3g} s"))
    return figure(panels, columns=3)


if __name__ == "__main__":
    main()

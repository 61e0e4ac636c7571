"""What the fast presets cost and gain: `python -m benchmarks.presets [--data FOLDER]`.

Every preset colors the same shots in turns. Beside its seconds stand the rows of the network that a frame takes, how
far its pictures are from those of the default, and how right and how steady its colors are. The shots are generated
ones, of styles that are never trained on, in which limbs move; --data adds real ones, laid out as `colorcli evaluate`
reads them.

The large model's weights are not part of colorcli. How its presets draw is measured on mini instead, run as they run
xl: from noise, with guidance. That tells how far fewer steps, the guidance window and the warm start lead away from
the whole run, on this model. It does not tell how right the colors are: without its match mini paints hardly a region
right.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.machine import equivalence, load, machine, note, ratio, report, summary

SLOW_SHOTS = 2
KINDS = {"generated": "Generated shots, of styles never trained on", "data": "Real shots"}
WAYS = ("sampling.", "reference.guidance", "warm_start.")  # settings by which an xl preset draws, whatever the model


@dataclass(frozen=True)
class Way:
    """One way to color, and the way that it is compared with."""

    name: str
    baseline: str
    overrides: tuple[str, ...]   # on top of the preset
    preset: str = "cel"


@dataclass
class Found:
    """What was measured of one way."""

    seconds: list[float] = field(default_factory=list)   # a frame, for each shot
    rows: int = 0                                        # of the network, over all frames
    frames: int = 0
    made: list[Any] = field(default_factory=list)
    scores: list[tuple[int, dict[str, Any]]] = field(default_factory=list)   # regions of a shot, its scores


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=6, help="generated shots")
    parser.add_argument("--frames", type=int, default=7, help="frames of each: 1 to 7 are one stretch of a warm start")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="real shots to measure on, too")
    parser.add_argument("--only", choices=("mini", "xl"), help="mini's presets; or those that draw as xl does")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    chosen = [way for way in ways() if options.only in (None, "mini" if way.baseline == "cel" else "xl")]
    report(measure(chosen, options.characters, options.frames, options.data, options.device), options.json)


def ways() -> list[Way]:
    """Give every way that is measured, each baseline before those that are compared with it."""
    as_xl = _drawn_as("xl")
    ordinary = (*as_xl, "sampling.sampler=dpm++2m")   # adds no noise on the way, so that other steps can be compared
    single = {
        "5 steps": ["sampling.steps=5"],
        "8 steps": ["sampling.steps=8"],
        "12 steps": ["sampling.steps=12"],
        "guided to 0.5": ["reference.guidance_window=[0, 0.5]"],
        "guided from 0.2 to 0.7": ["reference.guidance_window=[0.2, 0.7]"],
        "guided from 0.5": ["reference.guidance_window=[0.5, 1]"],
        "reference seen to 0.5": ["sampling.window=[0, 0.5]"],
        "warm start 0.3": ["warm_start.on=true", "warm_start.level=0.3"],
        "warm start 0.5": ["warm_start.on=true", "warm_start.level=0.5"],
    }
    return [
        Way("cel", "cel", ()),
        *(Way(name, "cel", (), name) for name in ("draft", "fast", "turbo")),
        Way("xl", "xl", tuple(as_xl), "soft"),
        *(Way(name, "xl", tuple(_drawn_as(name)), "soft") for name in ("xl-draft", "xl-fast", "xl-turbo")),
        Way("xl dpm++2m", "xl", ordinary, "soft"),   # as many steps as xl: how far the noise on the way alone leads
        *(Way(f"xl {name}", "xl dpm++2m", (*ordinary, *more), "soft") for name, more in single.items()),
    ]


def measure(
    chosen: Sequence[Way], characters: int, frames: int, data: Path | None, device: str
) -> dict[str, Any]:
    """Color all shots in every way, and put the numbers of each kind of shot together."""
    from colorcli.loading import load_pipeline
    from colorcli.train.data.validation import write_validation_shots
    from colorcli.train.evaluation.truths import find_known_shots, first_frames

    pipeline = load_pipeline("mini", device)
    result: dict[str, Any] = {
        "benchmark": "presets", "model": "mini", "device": str(pipeline.device), "machine": machine(),
        "overrides": {way.name: [way.preset, *way.overrides] for way in chosen},
    }
    with tempfile.TemporaryDirectory(prefix="colorcli-bench-") as name:
        write_validation_shots(Path(name), characters, frames, moving=True)
        result["generated"] = of_shots(find_known_shots(Path(name)), chosen, pipeline)
    if data is not None:
        real = find_known_shots(data)
        result["data"] = of_shots(first_frames(real, frames * len(real)), chosen, pipeline)
    result["load_after"] = load()
    note(tables(result))
    return result


def of_shots(shots: Sequence[Any], chosen: Sequence[Way], pipeline: Any) -> dict[str, Any]:
    """Measure on some shots: mini's presets on all of them, those that draw as xl does on the first two."""
    quick = [way for way in chosen if way.baseline == "cel"]
    slow = [way for way in chosen if way.baseline != "cel"]
    numbers = compared(color(shots, quick, pipeline), quick)
    return numbers | compared(color(shots[:SLOW_SHOTS], slow, pipeline), slow)


def color(shots: Sequence[Any], chosen: Sequence[Way], pipeline: Any) -> dict[str, Found]:
    """Color every shot in every way; the ways take turns, every other shot backwards."""
    from colorcli.presets import load_preset
    from colorcli.train.evaluation.evaluate import Observers, Plan, evaluate
    from colorcli.train.evaluation.truths import first_frames

    presets = {way.name: load_preset(way.preset, way.overrides) for way in chosen}
    found = {way.name: Found() for way in chosen}
    for name in presets:   # the first frame warms up
        evaluate(first_frames(shots[:1], 1), presets[name], pipeline.variant, pipeline)
    for number, shot in enumerate(shots):
        for name in list(presets) if number % 2 == 0 else reversed(presets):
            mine = found[name]
            counting = Counting(pipeline)
            kept = Observers(frame=lambda result, mine=mine: mine.made.append(result.made))
            (row,) = evaluate([shot], presets[name], pipeline.variant, counting, Plan(), observers=kept).rows
            mine.seconds.append(float(row.scores["seconds_per_frame"] or 0))
            mine.rows, mine.frames = mine.rows + counting.rows, mine.frames + row.frames
            mine.scores.append((row.regions, dict(row.scores)))
            note(f"{shot.name}, {name}: {mine.seconds[-1]:.2f} s a frame, load {load()}")
    return found


class Counting:
    """A colorizer that counts the rows its network computes for frames; reading the key is not among them."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline, self.rows = pipeline, 0

    def encode_reference(self, *given: Any) -> Any:
        """Read the key."""
        return self.pipeline.encode_reference(*given)

    def color(self, *given: Any) -> Any:
        """Color frames, each for itself."""
        return self._counted(self.pipeline.color, *given)

    def color_next(self, *given: Any) -> Any:
        """Color a frame from where the one before it ended."""
        return self._counted(self.pipeline.color_next, *given)

    def ballot(self, *given: Any) -> Any:
        """Ask a frame for its say."""
        return self._counted(self.pipeline.ballot, *given)

    def link(self, *given: Any) -> Any:
        """Tell what is the same in two drawings; the network computes nothing for it."""
        return self.pipeline.link(*given)

    def decide(self, *given: Any) -> Any:
        """Count the votes; the network computes nothing for it."""
        return self.pipeline.decide(*given)

    def describe(self) -> Any:
        """Tell what is used."""
        return self.pipeline.describe()

    def _counted(self, work: Callable[..., Any], *given: Any) -> Any:
        def count(module: Any, latents: Any) -> None:
            self.rows += len(latents[0])

        hook = self.pipeline.unet.register_forward_pre_hook(count)
        try:
            return work(*given)
        finally:
            hook.remove()


def compared(found: dict[str, Found], chosen: Sequence[Way]) -> dict[str, Any]:
    """Give the numbers of every way, beside those of its baseline."""
    numbers: dict[str, Any] = {}
    for way in chosen:
        mine, baseline = found[way.name], found[way.baseline]
        regions = sum(count for count, _ in mine.scores)
        jumps = [scores["flicker"] for _, scores in mine.scores if scores["flicker"] is not None]
        pooled = {
            score: round(sum(count * scores[score] for count, scores in mine.scores) / regions, 4)
            for score in ("accuracy", "area_accuracy")
        }
        numbers[way.name] = {
            "baseline": way.baseline,
            "frames": mine.frames,
            "seconds_per_frame": summary(mine.seconds),
            "ratio": ratio(baseline.seconds, mine.seconds),
            "network_rows_per_frame": round(mine.rows / mine.frames, 2),
            "equivalence": equivalence(baseline.made, mine.made),
            **pooled,
            "flicker": round(fmean(jumps), 3) if jumps else None,   # a single frame has none
        }
    return numbers


def table(numbers: dict[str, Any]) -> str:
    """Lay the numbers out as a table for the documentation."""
    lines = ["| preset | s a frame | times as fast | network rows | max difference | ΔE p99 | accuracy | by area | "
             "flicker |", "|" + "---|" * 9]
    for name, of in numbers.items():
        alike = of["equivalence"]
        cells = (
            name, f"{of['seconds_per_frame']['median']:.2f}", f"{of['ratio']['median']:.2f}",
            f"{of['network_rows_per_frame']:g}", f"{alike['max_difference']:.2f}", f"{alike['delta_e_p99']:.1f}",
            f"{of['accuracy']:.3f}", f"{of['area_accuracy']:.3f}",
            "" if of["flicker"] is None else f"{of['flicker']:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables(result: dict[str, Any]) -> str:
    """Lay a result out for the page on speed: for each kind of shots mini's presets, and those drawn as xl draws."""
    parts: list[str] = []
    for kind, title in KINDS.items():
        numbers = result.get(kind, {})
        mini = {name: of for name, of in numbers.items() if of["baseline"] == "cel"}
        others = {name: of for name, of in numbers.items() if of["baseline"] != "cel"}
        if mini:
            parts += [f"{title}, against `cel`:", table(mini)]
        if others:
            parts += [f"{title}, mini drawn as xl is, against `xl`; the single means (from *5 steps* on) against its "
                      "20 steps of dpm++2m:", table(others)]
    return "\n\n".join(parts)


def _drawn_as(preset: str) -> list[str]:
    """Settings that have mini draw as a preset has xl draw, on a canvas as much smaller as the preset's is."""
    from colorcli.presets import flat_settings, load_preset
    from colorcli.variants import VARIANTS

    settings = load_preset(preset)
    area = (settings.canvas.area or VARIANTS["xl"].canvas_area) / VARIANTS["xl"].canvas_area
    drawn = {path: value for path, value in flat_settings(settings).items() if path.startswith(WAYS)}
    values = {path: list(value) if isinstance(value, tuple) else value for path, value in drawn.items()}
    # mini's noise reaches much further up than xl's: spread as for xl, most steps would be made of nothing else.
    values |= {"sampling.schedule": "uniform"}
    values |= {"canvas.crop": "frame", "canvas.area": round(area * VARIANTS["mini"].canvas_area)}
    return [f"{path}={str(value).lower() if isinstance(value, bool) else value}" for path, value in values.items()]


if __name__ == "__main__":
    main()

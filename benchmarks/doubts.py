"""How well a frame knows which of its colors are unsure: `python -m benchmarks.doubts [--data FOLDER]`.

Drawn characters of styles that are never trained on are colored, and what was told of each region is held against the
truth: "any pose" has a key in another pose and view, "moving" is a shot whose key is of the same pose, "moving, steady"
the same with votes, "half a key" has a key that ends at the waist. --data adds real shots, laid out as
`colorcli evaluate` reads them.

A region is wrong if its material is: its color is CIEDE2000 8 or more from the truth, and from the other tones of the
same surface. `--fit` prints the numbers of `colorcli.finish.doubts.Calibration` that suit what was measured best.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.keys import picture_of
from benchmarks.machine import machine, note, report

SIZE = (480, 540)        # of a drawing, (width, height) in pixels
FIRST_SEED = 6_000_000   # other characters than those of `colorcli evaluate`, and than those it was fitted to
MOVING = 5               # frames of a moving shot
TENTHS = 10
ANY_POSE, IN_MOTION, STEADY, HALF = "any pose", "moving", "moving, steady", "half a key"
KINDS = (ANY_POSE, HALF, IN_MOTION, STEADY)
FITTED = (ANY_POSE, STEADY, HALF)   # whose regions the calibration is fitted to
Case = tuple[str, Any, list[tuple[Any, Any]], bool]   # name, key, (line, truth) of its frames, steady


@dataclass
class Told:
    """What was said of the regions of some frames, and what was true."""

    sure: list[float] = field(default_factory=list)       # the chance that was told
    wrong: list[bool] = field(default_factory=list)       # the material is another
    another: list[bool] = field(default_factory=list)     # the color is, be it only the shade
    areas: list[float] = field(default_factory=list)      # share of the figure
    shares: list[float] = field(default_factory=list)     # what the chance was made of
    likeness: list[float] = field(default_factory=list)
    frames: int = 0


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=40, help="drawn characters of each kind")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="real shots to measure on, too")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of drawn shots")
    parser.add_argument("--fit", action="store_true", help="fit the calibration, too")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first character")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    drawn = drawn_cases(options.characters, options.first, options.kinds)
    told = told_of(chain(drawn, known_cases(options.data) if options.data else ()))
    report(summed_up(told, fit=options.fit), options.json)


def summed_up(told: Mapping[str, Told], *, fit: bool) -> dict[str, Any]:
    """What was told, held against the truth."""
    from colorcli.presets import Preset

    below = Preset().checks.unsure_below
    result: dict[str, Any] = {
        "machine": machine(),
        "below": below,
        "rows": [row(name, one, below) for name, one in told.items()],
        "chances": [line for name, one in told.items() for line in chances(name, one)],
    }
    if fit:
        result["calibration"] = fitted([one for name, one in told.items() if name in FITTED])
    return result


def told_of(cases: Iterable[Case]) -> dict[str, Told]:
    """Color the frames of each case, and gather what was told."""
    from colorcli.loading import load_pipeline

    found: dict[str, Told] = {}
    pipeline = load_pipeline("mini", "cpu")
    for number, (name, key, frames, steady) in enumerate(cases, 1):
        _color(pipeline, key, frames, found.setdefault(name, Told()), steady=steady)
        if number % 20 == 0:
            note(f"{number} keys done")
    return found


def row(name: str, told: Told, below: float) -> dict[str, Any]:
    """How many of the regions that are told are wrong, and how many of the wrong ones are told."""
    unsure, wrong, areas = np.array(told.sure) < below, np.array(told.wrong), np.array(told.areas)
    wrong_area = max((areas * wrong).sum(), 1e-9)
    return {
        "shots": name,
        "frames": told.frames,
        "regions": len(wrong),
        "wrong": _share(wrong),
        "told": _share(unsure),
        "told, by area": round(float((areas * unsure).sum() / areas.sum()), 3),
        "wrong of the told": _share(wrong[unsure]),
        "wrong of the rest": _share(wrong[~unsure]),
        "told of the wrong": _share(unsure[wrong]),
        "told of the wrong, by area": round(float((areas * unsure * wrong).sum() / wrong_area), 3),
    }


def chances(name: str, told: Told) -> Iterator[dict[str, Any]]:
    """The chance that was told beside how many were right, for each tenth."""
    sure, wrong, another = np.array(told.sure), np.array(told.wrong), np.array(told.another)
    tenth = np.minimum((sure * TENTHS).astype(int), TENTHS - 1)
    for number in np.unique(tenth):
        here = tenth == number
        yield {
            "shots": name,
            "chance": f"{number / TENTHS:.1f} to {(number + 1) / TENTHS:.1f}",
            "told": round(float(sure[here].mean()), 2),
            "regions": int(here.sum()),
            "right": round(1 - float(wrong[here].mean()), 2),
            "the shade, too": round(1 - float(another[here].mean()), 2),
        }


def fitted(told: Sequence[Told]) -> dict[str, float]:
    """The logistic curve that makes what was measured most likely: Newton's steps on the log-likelihood."""
    from colorcli.finish.doubts import LEAST, MOST

    shares = np.clip(np.concatenate([one.shares for one in told]), LEAST, MOST)
    columns = np.stack(
        [np.log(shares / (1 - shares)), np.concatenate([one.likeness for one in told]), np.ones(len(shares))], axis=1
    )
    right = ~np.concatenate([np.array(one.wrong) for one in told])
    weights = np.zeros(3)
    for _ in range(30):
        chance = 1 / (1 + np.exp(-columns @ weights))
        bend = (columns * (chance * (1 - chance))[:, None]).T @ columns
        weights -= np.linalg.solve(bend, columns.T @ (chance - right))
    return dict(zip(("share", "likeness", "shift"), (round(float(one), 3) for one in weights), strict=True))


# --- what is colored -------------------------------------------------------------------------------------------------

def drawn_cases(characters: int, first: int = FIRST_SEED, kinds: Sequence[str] = KINDS) -> Iterator[Case]:
    """Characters as they are drawn, in styles never trained on."""
    from colorcli.train.data.characters import VALIDATION_SEED
    from colorcli.train.drawings import VALIDATION_FAMILIES, design_character, draw

    families = tuple(VALIDATION_FAMILIES)
    for number in range(characters):
        seed = VALIDATION_SEED + first + number
        character = design_character(seed, families[number % len(families)])
        poses = [int(pose) for pose in np.random.default_rng([seed, 5]).integers(2**31, size=3)]
        if {ANY_POSE, HALF} & set(kinds):
            key = draw(character, poses[0], SIZE, background="plain", framing="full")
            others = [_known(draw(character, pose, SIZE, background="plain")) for pose in poses[1:]]
            whole = {ANY_POSE: picture_of(key.color, key.mask), HALF: _upper_half(key)}
            yield from ((kind, picture, others, False) for kind, picture in whole.items() if kind in kinds)
        if {IN_MOTION, STEADY} & set(kinds):
            key, *moving = (
                draw(character, poses[0], SIZE, background="plain", framing="full", sway=sway)
                for sway in range(MOVING + 1)
            )
            shot, picture = [_known(frame) for frame in moving], picture_of(key.color, key.mask)
            yield from ((kind, picture, shot, kind == STEADY) for kind in (IN_MOTION, STEADY) if kind in kinds)


def known_cases(data: Path) -> Iterator[Case]:
    """Real shots with their truth, each with its own key, alone and steady."""
    from colorcli.train.evaluation.truths import find_known_shots

    for shot in find_known_shots(data):
        frames = [(frame.line(), frame.color()) for frame in shot.frames]
        yield shot.name, shot.read_key(), frames, False
        yield f"{shot.name}, steady", shot.read_key(), frames, True


def _color(pipeline: Any, key_picture: Any, frames: Sequence[tuple[Any, Any]], told: Told, *, steady: bool) -> None:
    """Color the frames of one key, and gather what is told of their regions."""
    from colorcli.finish.doubts import judged
    from colorcli.finish.finish import finish_frame
    from colorcli.images import over_paper
    from colorcli.prepare.frame import prepare_frame
    from colorcli.prepare.key import prepare_key
    from colorcli.presets import Preset
    from colorcli.shot.steady import decide_all

    preset = Preset()
    key = prepare_key(key_picture, preset, pipeline.variant)
    reference = pipeline.encode_reference(key, preset)
    drawings = [prepare_frame(line, preset, pipeline.variant) for line, _ in frames]
    ballots = [pipeline.ballot(drawing, reference, preset) for drawing in drawings]
    if steady:
        ballots = decide_all(pipeline, ballots, lambda place: place, preset.steady.reach)
    for drawing, decided, (_, truth) in zip(drawings, ballots, frames, strict=True):
        (layer,) = pipeline.color([drawing], reference, preset, [decided])
        color, _alpha = finish_frame(layer, drawing, key, preset)
        evidence = pipeline.evidence(drawing, decided, reference)
        told.frames += 1
        if evidence is None:
            continue
        found = judged(evidence, color, key, preset)
        large = found.areas >= found.smallest_px
        another, wrong = _wrong(evidence, found, over_paper(truth), key)
        told.sure += found.sure[large].tolist()
        told.shares += found.share[large].tolist()
        told.likeness += evidence.likeness[large].tolist()
        told.wrong += wrong[large].tolist()
        told.another += another[large].tolist()
        told.areas += (found.areas[large] / found.areas.sum()).tolist()


def _wrong(evidence: Any, found: Any, truth: Any, key: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which regions have another color than the truth, and which of them are of another material, (R,) each."""
    from colorcli.finish.difference import ciede2000, lab_of
    from colorcli.finish.doubts import ALIKE_BELOW, same_material

    right = np.array([np.median(truth[evidence.labels == region + 1], axis=0) for region in range(len(found.areas))])
    another = ciede2000(lab_of(found.color), lab_of(right)) >= ALIKE_BELOW
    apart = ciede2000(lab_of(right)[:, None], lab_of(evidence.colors)[None])   # (R, K)
    in_key = apart.min(axis=1) < ALIKE_BELOW
    same = same_material(evidence.colors, key)[found.taken, apart.argmin(axis=1)]
    return another, another & ~(in_key & same)


def _known(drawing: Any) -> tuple[Any, Any]:
    return picture_of(drawing.line, drawing.mask), picture_of(drawing.color, drawing.mask)


def _upper_half(drawing: Any) -> Any:
    """The key as far as the middle of its character: nothing of what is below is shown."""
    rows = np.flatnonzero(drawing.mask.max(1))
    end = int(rows[0] + np.ptp(rows) // 2)
    mask = drawing.mask.copy()
    mask[end:] = 0
    color = np.where((mask > 0)[..., None], drawing.color, np.uint8(255))
    return picture_of(color, mask)


def _share(those: NDArray[np.bool_]) -> float | None:
    return round(float(those.mean()), 3) if len(those) else None


if __name__ == "__main__":
    main()

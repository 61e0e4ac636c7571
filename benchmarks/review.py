"""Review: does the page point at the frame that is wrong? `python -m benchmarks.review DATA [--json FILE]`.

DATA holds shots, each with line/, color/ (the true colors) and key.png. Three questions, none of which the page knows
the answer to:

* flicker: what the page measures without a truth, beside the same with the truth known (`metrics.level_change`), for
  the true frames themselves and, with `--colored DIR` (frames of the shots, DIR/NAME), for those of a model;
* false alarms: how many of the true frames, in which nothing is wrong, are called worth a look;
* found: a region of one true frame is painted in another color of the key, many times over: how often that frame is
  the first of those worth a look, and how often among the first three, by how large the region is; of the others, how
  many regions have nothing to be compared with, as they are of the first frame or new in theirs.

For DIR, color each shot: `colorcli DATA/NAME/line --ref DATA/NAME/key.png -o DIR/NAME`.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine, report
from colorcli.finish.difference import ciede2000, lab_of
from colorcli.images import Picture, over_paper, read_picture
from colorcli.presets import Preset
from colorcli.review.measure import Look, change_between, key_palette, look_at, moved_regions, same_regions
from colorcli.review.metrics import character_paper, level_change
from colorcli.review.worth import Measured, worth_a_look
from colorcli.shot.manifest import FrameRecord

LEAST_SHARE = 0.005        # of the character that a repainted region has
FAR = 12.0                 # CIEDE2000 between its old color and its new one
CLASSES = {"0.5-1 %": (0.005, 0.01), "1-3 %": (0.01, 0.03), "3-10 %": (0.03, 0.1), "10 % and more": (0.1, 1.01)}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--colored", type=Path, help="frames of a model: a folder for each shot, named like it")
    parser.add_argument("--trials", type=int, default=100, help="repainted regions for each shot")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    shots = sorted(folder for folder in options.data.iterdir() if (folder / "line").is_dir())
    measured = {folder.name: of_shot(folder, options.colored, options.trials, options.seed) for folder in shots}
    report({"benchmark": "review", "trials": options.trials, **machine(), "shots": measured}, options.json)


def of_shot(folder: Path, colored: Path | None, trials: int, seed: int) -> dict[str, Any]:
    """Ask the three questions of one shot."""
    preset = Preset()
    palette = key_palette(read_picture(folder / "key.png"), preset).colors
    names = sorted(path.name for path in (folder / "line").iterdir())
    lines = [read_picture(folder / "line" / name) for name in names]
    truths = [read_picture(folder / "color" / name) for name in names]
    started = time.process_time()
    looks = [look_at(line, truth, preset, palette) for line, truth in zip(lines, truths, strict=True)]
    seconds = (time.process_time() - started) / len(looks)
    frames = measured_of(looks)
    result: dict[str, Any] = {
        "frames": len(names),
        "processor_seconds_per_look": round(seconds, 3),
        "flicker": {"truth": flicker_of(looks, lines, truths, truths)},
        "false_alarms": len(worth_a_look(frames)),
        "found": found(looks, lines, truths, palette, preset, trials, seed),
    }
    if colored is not None:
        made = [read_picture(colored / folder.name / name) for name in names]
        made_looks = [look_at(line, one, preset, palette) for line, one in zip(lines, made, strict=True)]
        result["flicker"]["colored"] = flicker_of(made_looks, lines, made, truths)
        result["worth_a_look_colored"] = len(worth_a_look(measured_of(made_looks)))
    return result


def measured_of(looks: Sequence[Look]) -> list[Measured]:
    """The frames as the page has them."""
    changes = [None, *(change_between(one, two) for one, two in pairwise(looks))]
    return [
        Measured(FrameRecord(frame=str(place), number=place, status="written", output="x.png"), None, look, change)
        for place, (look, change) in enumerate(zip(looks, changes, strict=True))
    ]


def flicker_of(
    looks: Sequence[Look], lines: Sequence[Picture], made: Sequence[Picture], truths: Sequence[Picture]
) -> dict[str, float]:
    """Mean flicker in 8-bit levels as the page measures it, and with the truth known; how the two go together."""
    paper = [character_paper(line) for line in lines]
    pairs = [
        (
            change_between(looks[place - 1], looks[place]).flicker,
            level_change(
                over_paper(made[place - 1]), over_paper(made[place]), paper[place - 1], paper[place],
                over_paper(truths[place - 1]), over_paper(truths[place]),
            ),
        )
        for place in range(1, len(looks))
    ]
    without, known = np.array(pairs).T
    related = float(np.corrcoef(without, known)[0, 1]) if without.std() > 0 and known.std() > 0 else 1.0
    return {
        "without_truth": round(float(without.mean()), 3), "with_truth": round(float(known.mean()), 3),
        "correlation": round(related, 3),
    }


def found(
    looks: Sequence[Look],
    lines: Sequence[Picture],
    truths: Sequence[Picture],
    palette: np.ndarray,
    preset: Preset,
    trials: int,
    seed: int,
) -> dict[str, dict[str, int]]:
    """Repaint one region of one frame, many times: how often its frame is first, among the first three, listed at all.

    For regions whose size is in each of `CLASSES`, as a share of the character. "new_and_not_first" are those whose
    frame is not first and that have no partner in the frame before.
    """
    random = np.random.default_rng(seed)
    counts = {name: {"tried": 0, "first": 0, "in_three": 0, "listed": 0, "new_and_not_first": 0} for name in CLASSES}
    steady = measured_of(looks)
    for _ in range(trials):
        place = int(random.integers(len(looks)))
        look = looks[place]
        shares = look.regions.areas / look.character_px
        number = int(random.choice(np.flatnonzero(shares >= LEAST_SHARE)))
        far = ciede2000(lab_of(look.medians[number])[None], lab_of(palette)) >= FAR
        fill = palette[int(random.choice(np.flatnonzero(far)))]
        color = truths[place].color.copy()
        color[look.regions.labels == number] = fill
        changed = look_at(lines[place], replace(truths[place], color=color), preset, palette)
        frames = list(steady)
        near = [*looks[:place], changed, *looks[place + 1 :]]
        for spot in (place, place + 1):
            if spot < len(frames):
                change = change_between(near[spot - 1], near[spot]) if spot else None
                frames[spot] = replace(frames[spot], look=near[spot], change=change)
        order = list(worth_a_look(frames))
        rank = order.index(place) if place in order else None
        name = next(name for name, (least, most) in CLASSES.items() if least <= shares[number] < most)
        counts[name]["tried"] += 1
        counts[name]["first"] += rank == 0
        counts[name]["in_three"] += rank is not None and rank < 3
        counts[name]["listed"] += rank is not None
        counts[name]["new_and_not_first"] += rank != 0 and (place == 0 or is_new(looks[place - 1], look, number))
    return counts


def is_new(before: Look, look: Look, number: int) -> bool:
    """Whether a region has no partner in the frame before, so that nobody can say what color it had."""
    there = same_regions(before.regions, look.regions)
    return number not in there and number not in moved_regions(before.regions, look.regions, there)


if __name__ == "__main__":
    main()

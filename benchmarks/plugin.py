"""What the background plugin is good for: `python -m benchmarks.plugin`, after `python -m benchmarks.ablation full`.

It trains the ReferenceNet and the low-rank adapter on what the first row of the ablation has made, and colors
characters of families never trained on with it, without it, and with split attention alone: from a key before a painted
background, and from the same key on white paper.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.ablation import RECIPE, Clock, lend_drawings, run_of
from benchmarks.machine import machine, note
from colorcli.finish.difference import ciede2000, lab_of
from colorcli.images import FORMATS, Picture
from colorcli.loading import load_pipeline
from colorcli.model.weights import family_of
from colorcli.pipeline import ColorizePipeline
from colorcli.prepare.canvas import to_canvas
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import prepare_key
from colorcli.presets import Preset, load_preset
from colorcli.train.data.characters import VALIDATION_SEED
from colorcli.train.drawings import VALIDATION_FAMILIES, design_character, draw
from colorcli.train.evaluation.scores.judge import Judge, background_similarity, load_judge
from colorcli.train.recipe import Recipe, read_recipe
from colorcli.train.run.loop import train
from colorcli.variants import VARIANTS, Variant

STAGE = "xl-refine"
SHEET = (512, 576)   # of a drawing before it is cut, (width, height)
MARGIN = 24          # pixels of a drawing around the character
SEEDS = (1, 2, 3)    # of the noise
OUTSIDE = 0.02       # a pixel of the canvas with more of the character is none of the background
NOISE = ("sampling.start=noise", "sampling.steps=8", "canvas.crop=frame", "background.rule=model")
MODES: dict[str, tuple[str, ...]] = {
    "without": (),
    "split attention alone": ("background.split=true", "background.reference_net=false", "background.adapter=0"),
    "with the plugin": ("background.split=true",),
}

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A drawing, and its key in two ways; each cut to the character and a margin."""

    line: Picture
    mask: Float       # (H, W) 1 in the character
    painted: Float    # (H, W, 3) the key before a painted background
    white: Float      # ... on white paper


def cases(count: int) -> Iterator[Case]:
    """Draw characters of families never trained on; every call draws the same ones."""
    families = list(VALIDATION_FAMILIES)
    for index in range(count):
        seed = VALIDATION_SEED + 2_000_000 + index
        drawing = draw(design_character(seed, families[index % len(families)]), 1, SHEET, background="busy")
        cut = around(drawing.mask.max(1)), around(drawing.mask.max(0))
        mask = np.asarray(drawing.mask[cut], np.float32) / np.float32(255)
        cover = mask[:, :, None]
        painted = np.asarray(drawing.color[cut], np.float32) / np.float32(255)
        line = np.repeat(np.asarray(drawing.line[cut], np.float32)[:, :, None] / np.float32(255), 3, axis=2)
        # The background of a drawing is not drawn in an animation frame.
        yield Case(plain(line * cover + 1 - cover), mask, painted, np.asarray(painted * cover + 1 - cover, np.float32))


def around(there: NDArray[np.uint8]) -> slice:
    """Give the rows or columns that show the character, and a margin."""
    found = np.flatnonzero(there)
    return slice(max(int(found[0]) - MARGIN, 0), int(found[-1]) + 1 + MARGIN)


def plain(color: Float) -> Picture:
    """A picture without alpha."""
    return Picture(np.ascontiguousarray(color, np.float32), None, FORMATS["png8"], 3)


@dataclass(frozen=True)
class Outcome:
    """What came out of one case in one mode with one kind of key."""

    difference: float            # CIEDE2000 to the key at the same place, mean over the background
    spread: float                # standard deviation over seeds, 8-bit levels, mean over the background
    character: float             # CIEDE2000 to the key inside the character, mean
    likeness: float | None       # cosine of both backgrounds' mean tokens
    seconds: float               # of the processors, for a frame


def outcome(
    pipeline: ColorizePipeline, variant: Variant, judge: Judge, case: Case, key: Float, settings: Sequence[str]
) -> Outcome:
    """Color a case with several seeds, and measure."""
    preset = load_preset("cel", (*NOISE, *settings), family_of)
    frame = prepare_frame(case.line, preset, variant, [case.mask])
    prepared = prepare_key(plain(key), preset, variant, [case.mask])
    reference = pipeline.encode_reference(prepared, preset)
    began = time.process_time()
    made = [pipeline.color([frame], reference, with_seed(preset, seed))[0] for seed in SEEDS]
    seconds = (time.process_time() - began) / len(SEEDS)
    shown, mask = to_canvas(key, frame.canvas, 1), frame.mask_canvas
    return Outcome(*measured(made, shown, frame), background_similarity(judge, made[0], mask, shown, mask), seconds)


def with_seed(preset: Preset, seed: int) -> Preset:
    """The same preset, begun from other noise."""
    return preset.model_copy(update={"sampling": preset.sampling.model_copy(update={"seed": seed})})


def measured(made: Sequence[Float], key: Float, frame: PreparedFrame) -> tuple[float, float, float]:
    """Measure layers of one canvas against the key on it: difference, spread, character."""
    left, top, width, height = frame.canvas.window
    shown = np.zeros(key.shape[:2], bool)
    shown[top : top + height, left : left + width] = True   # around it is no picture
    # A cell of the latents that the character reaches into is partly painted by it.
    reach = cv2.dilate(np.asarray(frame.mask_canvas, np.float32), np.ones((9, 9), np.uint8))
    outside, inside = (reach <= OUTSIDE) & shown, (frame.mask_canvas > 1 - OUTSIDE) & shown
    wanted = lab_of(key)
    apart = [ciede2000(lab_of(layer), wanted) for layer in made]
    spread = 255 * float(np.stack(made).std(axis=0)[outside].mean())
    return (
        fmean(float(each[outside].mean()) for each in apart),
        spread,
        fmean(float(each[inside].mean()) for each in apart),
    )


def with_plugin(folder: Path) -> ColorizePipeline:
    """Load a trained model as one of the published kind: mini's own way of coloring knows no background."""
    found = load_pipeline(str(folder), "cpu", precision="fp32")
    left_out = dict.fromkeys(("token_head", "map_head", "feature_head", "matcher"))
    return ColorizePipeline(**found.components | left_out)


def train_plugin(recipe: Recipe, changes: Sequence[str]) -> Path:
    """Train the plugin, if that is not done; gives the run's folder."""
    run, base = run_of(recipe, "plugin", 1), run_of(recipe, "full", 1) / "model"
    if not (run / "done.json").exists():
        lend_drawings(recipe, run)
        clock = Clock()
        # As published every picture is its own reference: only so has the reference the background of the picture.
        train(RECIPE, note, only=STAGE, start_from=base, device="cpu", progress=clock, changes=(
            *changes, f"name={run.name}", "drawings.background=busy", "drawings.same_pose=1.0",
        ))
        (run / "done.json").write_text(json.dumps({"seconds_per_step": clock.per_step}) + "\n")
    return run


def markdown(found: dict[str, dict[str, list[Outcome]]]) -> str:
    """Give the table. found: mode -> kind of key -> outcomes."""
    heads = ("", "difference ↓", "likeness ↑", "spread ↓", "white key: spread ↓", "white key: difference ↓",
             "character ↓", "seconds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for mode, keys in found.items():
        painted, white = keys["painted"], keys["white"]
        likeness = [each.likeness for each in painted if each.likeness is not None]
        cells = (
            f"{fmean(each.difference for each in painted):.2f}", f"{fmean(likeness):.3f}" if likeness else "-",
            f"{fmean(each.spread for each in painted):.2f}", f"{fmean(each.spread for each in white):.2f}",
            f"{fmean(each.difference for each in white):.2f}", f"{fmean(each.character for each in painted):.2f}",
            f"{median(each.seconds for each in painted):.3f}",
        )
        lines.append(f"| {mode} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes of the recipe")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", type=int, default=16)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = read_recipe(RECIPE, arguments.set)
    run = train_plugin(recipe, arguments.set)
    pipeline, judge = with_plugin(run / "model"), load_judge()
    variant = replace(VARIANTS["mini"], canvas_area=recipe.drawings.side**2, has_match=False, has_reference_net=True)
    found: dict[str, dict[str, list[Outcome]]] = {mode: {"painted": [], "white": []} for mode in MODES}
    for number, case in enumerate(cases(arguments.cases), 1):
        for mode, settings in MODES.items():
            for kind, key in (("painted", case.painted), ("white", case.white)):
                found[mode][kind].append(outcome(pipeline, variant, judge, case, key, settings))
        note(f"{number} of {arguments.cases} drawings")
    print(markdown(found))
    if arguments.json is not None:
        told: dict[str, Any] = {
            "run": json.loads((run / "done.json").read_text()), "machine": machine(), "cases": arguments.cases,
            "outcomes": {mode: {kind: [vars(each) for each in several] for kind, several in keys.items()}
                         for mode, keys in found.items()},
        }
        arguments.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What a second key of a character brings: `python -m benchmarks.keys [--data FOLDER]`.

Drawn characters of styles that are never trained on, each with two keys in any pose and view and two frames in others,
are colored from the first key, from the second, from both, and from a sheet that shows both as one picture. --data adds
real shots, laid out as `colorcli evaluate` reads them, all of one character: each is colored from its own key, from the
others', and from all.

Right is the share of closed regions whose median color is within CIEDE2000 8 of the truth; by area, each counts as much
as its pixels.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine, note, report

SIZE = (480, 540)        # of a drawing, (width, height) in pixels
FIRST_SEED = 3_000_000   # other characters than those of `colorcli evaluate generated`


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=24, help="drawn characters, two frames of each")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="real shots of one character to measure on, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    report(measure(options.characters, options.data), options.json)


def measure(characters: int, data: Path | None) -> dict[str, Any]:
    """Color from one key and from several."""
    from colorcli.loading import load_pipeline
    from colorcli.presets import Preset

    painter = Painter(load_pipeline("mini"), Preset())
    for number in range(characters):
        keys, frames = drawn(FIRST_SEED + number, number)
        for name, chosen in {"first key": keys[:1], "second key": keys[1:], "both keys": keys}.items():
            painter.color(f"drawn, {name}", chosen, frames)
        painter.color("drawn, a sheet of both", keys, frames, each=())
        if number % 8 == 7:
            note(f"{number + 1} of {characters} characters")
    if data is not None:
        from colorcli.train.evaluation.truths import find_known_shots

        shots = find_known_shots(data)
        for shot in shots:
            own, others = shot.read_key(), [other.read_key() for other in shots if other is not shot]
            frames = [(frame.line(), frame.color()) for frame in shot.frames]
            for name, chosen in {"own key": [own], "the others'": others, "all keys": [own, *others]}.items():
                painter.color(f"{shot.name}, {name}", chosen, frames)
                note(f"{shot.name}, {name}")
    return {"machine": machine(), "rows": painter.rows()}


class Painter:
    """Colors frames from keys, and keeps the scores."""

    def __init__(self, pipeline: Any, preset: Any) -> None:
        self.pipeline, self.preset = pipeline, preset
        self.scores: dict[str, list[Any]] = {}

    def color(
        self,
        name: str,
        keys: Sequence[Any],
        frames: Sequence[tuple[Any, Any]],
        each: Sequence[Any] | None = None,
    ) -> None:
        """Color frames (line art and truth) from the keys of one character.

        each: the keys that are read by themselves, None: all; none: the sheet is read as one key.
        """
        from colorcli.finish.finish import finish_frame
        from colorcli.prepare.frame import prepare_frame
        from colorcli.prepare.key import prepare_key
        from colorcli.review.metrics import region_score, true_regions
        from colorcli.shot.keys import key_sheet

        if each is None:
            each = keys if len(keys) > 1 else ()
        key = prepare_key(key_sheet(keys), self.preset, self.pipeline.variant, each=each)
        reference = self.pipeline.encode_reference(key, self.preset)
        for line, truth in frames:
            frame = prepare_frame(line, self.preset, self.pipeline.variant)
            (layer,) = self.pipeline.color([frame], reference, self.preset)
            color, _ = finish_frame(layer, frame, key, self.preset)
            self.scores.setdefault(name, []).append(region_score(true_regions(line, truth), color))

    def rows(self) -> list[dict[str, Any]]:
        """Give a row for each way to color."""
        from colorcli.review.metrics import pooled

        sums = {name: pooled(scores) for name, scores in self.scores.items()}
        return [
            {
                "keys": name,
                "regions": one.regions,
                "right": round(one.accuracy, 3),
                "by area": round(one.area_accuracy, 3),
            }
            for name, one in sums.items()
        ]


def drawn(seed: int, number: int) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """Draw two keys of a character, and two frames as line art and truth; all in poses and views of their own."""
    from colorcli.train.data.characters import VALIDATION_SEED
    from colorcli.train.drawings import VALIDATION_FAMILIES, design_character, draw

    families = tuple(VALIDATION_FAMILIES)
    seed += VALIDATION_SEED
    character = design_character(seed, families[number % len(families)])
    poses = [int(pose) for pose in np.random.default_rng([seed, 5]).integers(2**31, size=4)]
    keys = [draw(character, pose, SIZE, background="plain", framing="full") for pose in poses[:2]]
    frames = [draw(character, pose, SIZE, background="plain") for pose in poses[2:]]
    return (
        [picture_of(key.color, key.mask) for key in keys],
        [(picture_of(frame.line, frame.mask), picture_of(frame.color, frame.mask)) for frame in frames],
    )


def picture_of(color: Any, mask: Any) -> Any:
    """Give what was drawn, (H, W) or (H, W, 3) and a mask (H, W), 0..255, as a picture."""
    from colorcli.images import FORMATS, Picture

    rgb = np.asarray(color, np.float32) / np.float32(255)
    rgb = np.repeat(rgb[..., None], 3, axis=2) if rgb.ndim == 2 else rgb
    return Picture(rgb, np.asarray(mask, np.float32) / np.float32(255), FORMATS["png8"], 4)


if __name__ == "__main__":
    main()

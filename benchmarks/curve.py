"""Draw the loss curves of a training run: `python -m benchmarks.curve RUN docs/mini-curve.svg`.

One panel for each stage: what was minimized, on the drawings that are learned from (gray) and on those that never are
(black), over the steps; and about how long it took.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.plot import Line, Panel, figure

LEARNED, CHECKED = "#9aa0a6", "#111111"


@dataclass(frozen=True)
class Curve:
    """One stage of a run."""

    name: str
    learned: Sequence[tuple[int, float]]   # step, running mean of the loss
    checked: Sequence[tuple[int, float]]   # step, loss on what is never learned from
    hours: float                           # about

    @property
    def steps(self) -> int:
        """Steps that were done."""
        return self.learned[-1][0]


def read_curves(run: Path) -> list[Curve]:
    """Read all stages of a run's folder, in their order."""
    files = sorted(run.glob("*-*/curve.jsonl"), key=lambda file: int(file.parent.name.partition("-")[0]))
    return [curve_of(file.parent.name.partition("-")[2], [json.loads(line) for line in file.read_text().splitlines()])
            for file in files]


def curve_of(name: str, lines: Sequence[Mapping[str, float]]) -> Curve:
    """Sum the lines of a curve up. Each says how many seconds a step took so far, since training was last begun."""
    learned = [(int(line["step"]), line["loss"]) for line in lines if "loss" in line]
    checked = [(int(line["step"]), line["check_loss"]) for line in lines if "check_loss" in line]
    seconds, before = 0.0, 0
    for line in lines:
        seconds += (line["step"] - before) * line["seconds_per_step"]
        before = int(line["step"])
    return Curve(name, learned, checked, seconds / 3600)


def picture(curves: Sequence[Curve]) -> str:
    """Give the panels side by side, as SVG."""
    return figure([panel(curve) for curve in curves], paper="#fff")


def panel(curve: Curve) -> Panel:
    """Give one stage: its name, steps and hours above, the lines below."""
    hours = f"{curve.hours:.1f} h" if curve.hours >= 1 else f"{60 * curve.hours:.0f} min"
    lines = [Line(curve.learned, LEARNED), *([Line(curve.checked, CHECKED)] if curve.checked else [])]
    return Panel(curve.name, f"{curve.steps} steps, {hours}", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("svg", type=Path)
    arguments = parser.parse_args()
    curves = read_curves(arguments.run)
    arguments.svg.write_text(picture(curves), encoding="utf-8")
    for curve in curves:
        print(f"{curve.name}: {curve.steps} steps, {curve.hours:.2f} h, loss {curve.learned[-1][1]:.4f}"
              + (f", on unseen drawings {curve.checked[-1][1]:.4f}" if curve.checked else ""))


if __name__ == "__main__":
    main()

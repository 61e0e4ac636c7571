"""Long shots and many shots: planning, coloring, resuming and verifying them, with the stand-in for the model.

    python -m benchmarks.load                      10,000 frames, and 50 shots of 200 in one tree
    python -m benchmarks.load --frames 1000        a quick look
    python -m benchmarks.load --keep /tmp/load     the drawings and results stay there, and are used again

Each step runs in a process of its own, start-up included: seconds, the most memory it held, and what it asked the
disk for. What is measured is the work around the model, so no number here says how fast a model colors.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import machine, note, report

SIZE = (192, 108)     # width, height of a drawing
BITS = 16             # of a frame's number, drawn into it so that no two drawings are alike
CANVAS_AREA = 128 * 256  # small too: the work around the coloring is measured
FOREVER = 3600.0      # seconds after which a step is taken for one that hangs
LIMITS = {"plan": 2.0, "resume": 10.0, "verify": 60.0}  # seconds, for 10,000 frames


def draw_load_shot(folder: Path, frames: int, first: int = 1) -> None:
    """Draw `frames` different small drawings of one figure, and key.png beside the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + frames):
        path = folder / f"walk.{number:05d}.png"
        if not path.exists():
            cv2.imwrite(str(path), _drawing(number))
    key = folder.parent / "key.png"
    if not key.exists():
        picture = cv2.cvtColor(_drawing(0), cv2.COLOR_GRAY2BGR)
        picture[44:80, 60:100] = (60, 120, 230)
        picture[24:38, 70:90] = (150, 190, 250)
        cv2.imwrite(str(key), picture)


def _drawing(number: int) -> Any:
    """A figure of two boxes, (H, W) in 0..255, that carries a number as dots in its body."""
    paper = np.full(SIZE[::-1], 255, np.uint8)
    left = number % 40
    cv2.rectangle(paper, (58 + left, 42), (102 + left, 82), 0, 2)
    cv2.rectangle(paper, (68 + left, 22), (92 + left, 40), 0, 2)
    for bit in range(BITS):
        if number >> bit & 1:
            x, y = 64 + left + 9 * (bit % 4), 50 + 7 * (bit // 4)
            paper[y : y + 3, x : x + 3] = 0
    return paper


def step(name: str, shot: Path, out: Path) -> dict[str, Any]:
    """Do one step here, and tell what it cost. This is what the processes run."""
    from colorcli.cli.main import main as colorcli

    asked = [str(shot), "--ref", str(shot.parent / "key.png"), "-o", str(out), "--engine", "stand-in", "-q",
             "--set", f"canvas.area={CANVAS_AREA}"]
    found: dict[str, Any] = {}
    start = time.perf_counter()
    if name == "plan":
        from colorcli.shot.plan import ShotRequest, plan_shots

        request = ShotRequest((str(shot),), (str(shot.parent / "key.png"),), out=out)
        start_of_plan = time.perf_counter()
        found["frames"] = sum(len(plan.jobs) for plan in plan_shots(request))
        found["seconds_of_the_plan"] = round(time.perf_counter() - start_of_plan, 3)
        code = 0
    elif name == "verify":
        outs = sorted(path.parent for path in out.rglob("manifest.json"))
        code = max(colorcli(["manifest", "verify", str(each)]) for each in outs)
        found["outs"] = len(outs)
    else:
        code = colorcli(asked)
    found["seconds"] = round(time.perf_counter() - start, 3)
    found["exit_code"] = code
    return found


def measured(name: str, shot: Path, out: Path) -> dict[str, Any]:
    """Do one step in a process of its own: what it tells, and its memory and disk as the system counted them."""
    command = [sys.executable, "-m", "benchmarks.load", "--step", name, "--shot", str(shot), "--out", str(out)]
    before = time.perf_counter()
    # One thread a library: on drawings as small as these, threads of theirs wait for each other.
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=FOREVER, env=alone)
    wall = time.perf_counter() - before
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    found["seconds_with_start"] = round(wall, 3)
    note(f"{name}: {found}")
    return found


def _own_costs() -> dict[str, Any]:
    """What this process held and asked for so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    costs: dict[str, Any] = {"peak_mb": round(usage.ru_maxrss / 1024)}
    counts = Path("/proc/self/io")
    if counts.exists():
        values = dict(line.split(": ") for line in counts.read_text().splitlines())
        costs |= {"mb_read": round(int(values["rchar"]) / 1e6, 1), "reads": int(values["syscr"]),
                  "mb_written": round(int(values["wchar"]) / 1e6, 1), "writes": int(values["syscw"])}
    return costs


def one_shot(folder: Path, frames: int) -> dict[str, Any]:
    """All steps with one shot."""
    shot, out = folder / f"shot{frames}" / "walk", folder / f"shot{frames}" / "out"
    note(f"drawing {frames} frames")
    draw_load_shot(shot, frames)
    return {name: measured(name, shot, out) for name in ("plan", "color", "resume", "resume_again", "verify")}


def tree(folder: Path, shots: int, frames: int) -> dict[str, Any]:
    """All steps with many shots in one tree."""
    root, out = folder / f"tree{shots}x{frames}" / "scene", folder / f"tree{shots}x{frames}" / "out"
    note(f"drawing {shots} shots of {frames} frames")
    for number in range(shots):
        draw_load_shot(root / f"c{number:03d}", frames, first=number * frames + 1)
        key = root / "key.png"
        if key.exists():
            key.replace(root.parent / "key.png")
    return {name: measured(name, root, out) for name in ("plan", "color", "resume", "verify")}


def main() -> None:
    """Run the benchmark, or one step of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--shots", type=int, default=50, help="in the tree, with all those frames together")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here, and leave everything")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--shot", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        found = step(asked.step, asked.shot, asked.out)
        print(json.dumps({**found, **_own_costs()}))
        sys.exit(0 if found["exit_code"] == 0 else 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        few = max(asked.frames // 10, 1)
        result: dict[str, Any] = {
            "benchmark": "load", "machine": machine(), "frames": asked.frames, "shots": asked.shots,
            "few": {"frames": few, **one_shot(folder, few)},
            "shot": one_shot(folder, asked.frames),
            "tree": tree(folder, asked.shots, max(asked.frames // asked.shots, 1)),
        }
    more = asked.frames - few
    result["kb_a_frame"] = {
        name: round((result["shot"][name]["peak_mb"] - result["few"][name]["peak_mb"]) * 1024 / max(more, 1), 2)
        for name in result["shot"]
    }
    # For 10,000 frames; a shorter shot, or all of them in a tree, has to keep to the same.
    result["limits"] = LIMITS
    result["within_limits"] = {
        f"{where}.{name}": result[where][name].get("seconds_of_the_plan", result[where][name]["seconds"]) <= seconds
        for where in ("shot", "tree") for name, seconds in LIMITS.items()
    }
    report(result, asked.json)


if __name__ == "__main__":
    main()

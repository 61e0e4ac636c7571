"""From the command to its first and to its last frame: `python -m benchmarks.startup`.

Each run is the installed command in a process of its own, on a shot that was never colored. Short and long shots of
both sizes take turns; the difference between them is what one more frame costs in a real, overlapped run.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import load, machine, note, report, summary
from benchmarks.shots import SIZES, write_shot

SHORT, LONG = 1, 9  # frames of the two shots


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--preset", default="cel")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    report(measure(options.rounds, options.model, options.preset), options.json)


def measure(rounds: int, model: str, preset: str) -> dict[str, Any]:
    """Time `rounds` runs of every kind: `--help`, and both shots of both sizes."""
    before = machine()
    helps: list[float] = []
    runs: dict[tuple[tuple[int, int], int], list[tuple[float, float]]] = {
        (size, frames): [] for size in SIZES for frames in (SHORT, LONG)
    }
    with tempfile.TemporaryDirectory(prefix="colorcli-bench-") as name:
        shots = {size: write_shot(Path(name), size, LONG) for size in SIZES}
        for number in range(rounds):
            helps.append(_time_help())
            for (size, frames), times in runs.items():
                times.append(_time_run(*shots[size], Path(name) / "out", frames, model, preset))
                note(f"round {number + 1}: {size[0]}x{size[1]}, {frames} frames: {times[-1][1]:.2f} s")
    return {
        "benchmark": "startup",
        "model": model,
        "preset": preset,
        "machine": before,
        "load_after": load(),
        "rounds": rounds,
        "help_seconds": summary(helps),
        "sizes": {
            f"{size[0]}x{size[1]}": {
                "first_frame_seconds": summary([first for first, _ in runs[size, LONG]]),
                "command_with_one_frame_seconds": summary([whole for _, whole in runs[size, SHORT]]),
                "one_more_frame_seconds": summary(
                    [
                        (long - short) / (LONG - SHORT)
                        for (_, short), (_, long) in zip(runs[size, SHORT], runs[size, LONG], strict=True)
                    ]
                ),
            }
            for size in SIZES
        },
    }


def _time_help() -> float:
    clock = time.perf_counter()
    subprocess.run([*installed_command(), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - clock


def _time_run(shot: Path, key: Path, out: Path, frames: int, model: str, preset: str) -> tuple[float, float]:
    """Color the first frames of a shot: seconds until the first of them lies in the folder, and until all is done."""
    shutil.rmtree(out, ignore_errors=True)
    options = ["--ref", str(key), "-o", str(out), "--frames", f"1-{frames}", "--model", model, "--preset", preset]
    first: float | None = None
    clock = time.perf_counter()
    with subprocess.Popen([*installed_command(), str(shot), *options, "--progress", "none"]) as process:
        while process.poll() is None:
            if first is None and any(out.glob("*.png")):
                first = time.perf_counter() - clock
            time.sleep(0.01)
    whole = time.perf_counter() - clock
    if process.returncode:
        sys.exit(f"colorcli ended with {process.returncode}")
    return first or whole, whole


def installed_command() -> list[str]:
    """The installed command beside this Python, else the module."""
    installed = Path(sys.executable).with_name("colorcli")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "colorcli.cli.main"]


if __name__ == "__main__":
    main()

"""A whole command, from its start to its last file, against the plain loop: `python -m benchmarks.shot`.

Both run in processes of their own, in turns, on one and the same shot of 512x512 frames; their pictures are compared.
A second line holds every drawing for two frames, which costs the plain loop twice the time and ours hardly any.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import equivalence, interleaved, load, machine, note, ratio, report
from benchmarks.shots import hold, write_shot
from benchmarks.startup import installed_command
from colorcli.images import read_picture

SIZE = (512, 512)
OWN_WAYS = ("OMP_", "KMP_", "GOMP_", "MKL_")   # what a user has told threads; both begin without it


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawings", type=int, default=36, help="of the shot: three seconds on twos")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--preset", default="cel")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    report(measure(options.drawings, options.rounds, options.model, options.preset), options.json)


def measure(drawings: int, rounds: int, model: str, preset: str) -> dict[str, Any]:
    """Time the shot on ones and on twos, ours and the plain loop, `rounds` times each."""
    before = machine()
    with tempfile.TemporaryDirectory(prefix="colorcli-bench-") as name:
        folder = Path(name)
        ones, key = write_shot(folder, SIZE, drawings)
        shots = {"ones": ones, "twos": hold(ones, 2)}
        settings = ["--model", model, "--preset", preset]

        def plain(held: str) -> None:
            _run([sys.executable, "-m", "benchmarks.plain"], shots[held], key, folder / f"plain_{held}", settings)

        def ours(held: str) -> None:
            quiet = [*settings, "--progress", "none"]
            _run(installed_command(), shots[held], key, folder / f"ours_{held}", quiet)

        calls = {f"{who}_{held}": lambda run=run, held=held: run(held)
                 for who, run in (("plain", plain), ("ours", ours)) for held in shots}
        times = interleaved(calls, rounds, warm_up=0)
        alike = {held: equivalence(*(_pictures(folder / f"{who}_{held}") for who in ("plain", "ours")))
                 for held in shots}
    return {
        "benchmark": "shot", "model": model, "preset": preset, "machine": before, "load_after": load(),
        "size": list(SIZE), "drawings": drawings, "frames": {"ones": drawings, "twos": 2 * drawings},
        "runs": times,
    } | summed_up(times, alike)


def summed_up(times: dict[str, Any], alike: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Give the ratios: to the plain loop, and of frames a second on twos to those on ones; with the equivalence."""
    seconds = times["every_second"]
    doubled = [2 * each for each in seconds["ours_ones"]]   # what as many frames would take, each drawn anew
    return {
        "against_plain": {
            held: {"ratio": ratio(seconds[f"plain_{held}"], seconds[f"ours_{held}"]), "equivalence": alike[held]}
            for held in alike
        },
        "twos_against_ones": {"ratio": ratio(doubled, seconds["ours_twos"])},
    }


def _run(command: list[str], shot: Path, key: Path, out: Path, options: list[str]) -> None:
    """Color a shot into a folder that is made anew; ends the benchmark if it fails."""
    shutil.rmtree(out, ignore_errors=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OWN_WAYS)}
    done = subprocess.run([*command, str(shot), "--ref", str(key), "-o", str(out), *options], env=environment)
    if done.returncode:
        sys.exit(f"{command[-1]} ended with {done.returncode}")
    note(f"{out.name} is done")


def _pictures(folder: Path) -> list[Any]:
    return [read_picture(file).color for file in sorted(folder.glob("*.png"))]


if __name__ == "__main__":
    main()

"""How much slower frames are beside one busy process: `python -m benchmarks.busy`.

Two workers color the same frame in turns, with and without a neighbor that only spins: one in which waiting threads
sleep, as the command has it, one as torch comes. A worker must be told before it imports torch.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import load, machine, note, ratio, report, summary
from benchmarks.shot import OWN_WAYS
from colorcli.cli.main import calm_idle_threads

WORKERS = ("sleeping", "spinning")   # what their idle threads do
SPIN = "while True: pass"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=3, help="frames that are colored in one go")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.frames)
    else:
        report(measure(options.rounds, options.frames), options.json)


def measure(rounds: int, frames: int) -> dict[str, Any]:
    """Time both workers, quiet and beside the neighbor, in turns."""
    before = machine()
    times: dict[str, dict[str, list[float]]] = {name: {"quiet": [], "beside": []} for name in WORKERS}
    with busy_neighbor() as neighbor, workers(frames) as asked:
        for number in range(rounds):
            for name in WORKERS if number % 2 else reversed(WORKERS):
                for place in ("quiet", "beside"):
                    neighbor.send_signal(signal.SIGCONT if place == "beside" else signal.SIGSTOP)
                    times[name][place].append(seconds_of(asked[name]) / frames)
                neighbor.send_signal(signal.SIGSTOP)
            note(f"round {number + 1}: " + ", ".join(f"{n} {t['beside'][-1]:.2f} s" for n, t in times.items()))
    return {
        "benchmark": "busy", "machine": before, "load_after": load(), "rounds": rounds, "frames": frames,
        "threads_that_wait": {
            name: {
                "seconds_per_frame": {place: summary(each) for place, each in found.items()},
                "slowdown": ratio(found["beside"], found["quiet"]),
            }
            for name, found in times.items()
        },
    }


@contextmanager
def busy_neighbor() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that only spins; it stands still until it is sent on."""
    with subprocess.Popen([sys.executable, "-c", SPIN]) as neighbor:
        neighbor.send_signal(signal.SIGSTOP)
        try:
            yield neighbor
        finally:
            neighbor.kill()


@contextmanager
def workers(frames: int) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Start both workers, and wait until each has colored its first frames."""
    started: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in WORKERS:
            environment = {key: value for key, value in os.environ.items() if not key.startswith(OWN_WAYS)}
            if name == "sleeping":
                calm_idle_threads(environment)
            command = [sys.executable, "-m", "benchmarks.busy", "--work", "--frames", str(frames)]
            started[name] = subprocess.Popen(
                command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            seconds_of(started[name])
        yield started
    finally:
        for worker in started.values():
            worker.kill()
            worker.wait()


def seconds_of(worker: subprocess.Popen[str]) -> float:
    """Have a worker color its frames, and give its seconds."""
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write("color\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def work(frames: int) -> None:
    """Color a drawing as often as a line comes in, and answer each with the seconds."""
    import tempfile
    import time

    from benchmarks.shots import SIZES, write_shot
    from colorcli.images import read_picture
    from colorcli.loading import load_pipeline
    from colorcli.prepare.frame import prepare_frame
    from colorcli.prepare.key import prepare_key
    from colorcli.presets import load_preset

    with tempfile.TemporaryDirectory(prefix="colorcli-bench-") as name:
        shot, key = write_shot(Path(name), SIZES[0], 1)
        pipeline, preset = load_pipeline("mini", "cpu"), load_preset("cel")
        frame = prepare_frame(read_picture(next(shot.iterdir())), preset, pipeline.variant)
        reference = pipeline.encode_reference(prepare_key(read_picture(key), preset, pipeline.variant), preset)
    for _ in sys.stdin:
        clock = time.perf_counter()
        for _ in range(frames):
            pipeline.color([frame], reference, preset)
        print(time.perf_counter() - clock, flush=True)


if __name__ == "__main__":
    main()

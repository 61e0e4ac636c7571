"""`python -m tests.fuzz --seconds 600`: every target with as many examples as there is time for."""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings

FOLDER = Path(__file__).parent
ROUND = 200  # examples between two looks at the clock
MEMORY_GB = 6.0  # of address space for one target: a bomb is then a MemoryError, and the machine stays usable

# Loaded before the targets are, which keep the profile that they were made with.
settings.register_profile(
    "long",
    max_examples=ROUND,
    derandomize=False,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.target, Phase.shrink],
    print_blob=False,
)
settings.load_profile("long")


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 (it is a command)


def targets() -> dict[str, tuple[str, str]]:
    """Every fuzz target: its name -> (module, function)."""
    found = {}
    for file in sorted(FOLDER.glob("test_*.py")):
        module = f"tests.fuzz.{file.stem}"
        for name, value in vars(importlib.import_module(module)).items():
            if name.startswith("test_") and hasattr(value, "hypothesis"):
                found[f"{file.stem.removeprefix('test_')}.{name.removeprefix('test_')}"] = (module, name)
    return found


def counted(test: Any) -> list[int]:
    """Count how often a target runs, from now on."""
    inner, count = test.hypothesis.inner_test, [0]

    def counting(*values: Any, **named: Any) -> Any:
        count[0] += 1
        return inner(*values, **named)

    test.hypothesis.inner_test = counting
    return count


def run_target(module: str, name: str, seconds: float, first_seed: int) -> dict[str, Any]:
    """Run one target until its time is up or it has found something, in this process."""
    if MEMORY_GB:
        # torch and the picture libraries reserve far more than they use.
        resource.setrlimit(resource.RLIMIT_AS, (int(MEMORY_GB * 2**30),) * 2)
    test: Any = getattr(importlib.import_module(module), name)
    count, started, number = counted(test), time.monotonic(), first_seed
    while time.monotonic() - started < seconds:
        say(json.dumps({"seed": number, "examples": count[0]}))
        try:
            seed(number)(test)()
        except Exception as failure:
            lines = traceback.format_exception(failure)
            return {
                "examples": count[0],
                "seconds": time.monotonic() - started,
                "seed": number,
                "found": "".join(lines),
            }
        number += 1
    return {"examples": count[0], "seconds": time.monotonic() - started, "seed": number, "found": None}


def run_apart(target: str, seconds: float, first_seed: int) -> dict[str, Any]:
    """Run one target in a process of its own, so that a crash of a library is told and not shared."""
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "tests.fuzz",
        "--inside",
        target,
        "--seconds",
        str(seconds),
        "--seed",
        str(first_seed),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0 and lines and "found" in lines[-1]:
        return dict(lines[-1])
    last = lines[-1] if lines else {"examples": 0, "seed": first_seed}
    return {**last, "seconds": seconds, "found": f"the process ended with {done.returncode}\n{done.stderr[-6000:]}"}


def main() -> int:
    """Run what was asked for; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--only", metavar="TEXT", default="", help="targets with this in their name")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first round, to see a finding again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write counts and findings")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    known = targets()
    if asked.inside:
        say(json.dumps(run_target(*known[asked.inside], asked.seconds, asked.seed)))
        return 0
    results = {}
    for target in (name for name in known if asked.only in name):
        results[target] = result = run_apart(target, asked.seconds, asked.seed)
        words = "nothing found" if result["found"] is None else f"FOUND SOMETHING, with --seed {result['seed']}"
        say(f"{target}: {result['examples']} examples in {result['seconds']:.0f} s, {words}")
        if result["found"] is not None:
            say("\n".join(f"    {line}" for line in result["found"].splitlines()[-40:]))
    say(f"{sum(result['examples'] for result in results.values())} examples of {len(results)} targets")
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return int(any(result["found"] is not None for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())

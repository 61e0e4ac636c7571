"""Results of the benchmarks: written as JSON, and compared: `python -m benchmarks.machine BEFORE.json AFTER.json`.

How they are measured is in `colorcli.speed.measure`, which `colorcli bench` uses too.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from colorcli.speed.measure import cores, equivalence, interleaved, load, machine, ratio, summary

__all__ = [
    "compare", "cores", "equivalence", "interleaved", "load", "machine", "note", "ratio", "report", "summary",
]  # fmt: skip

SCHEMA = 1            # of the JSON files; higher when a number changes its meaning
WORTH_A_LOOK = 0.05   # a change of a number by this share is marked when two files are compared


def report(result: dict[str, Any], file: Path | None) -> None:
    """Print a result as JSON, and write it to a file if one is given."""
    text = json.dumps({"schema": SCHEMA, **result}, indent=2)
    print(text)
    if file is not None:
        file.write_text(text + "\n")


def note(text: str) -> None:
    """Tell how far it is, beside the JSON."""
    print(text, file=sys.stderr, flush=True)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Give every number that two results have in common: (where it stands, before, after), in their order.

    Raises ValueError if the two are not of one benchmark and one schema.
    """
    for word in ("schema", "benchmark"):
        if before.get(word) != after.get(word):
            raise ValueError(f"the {word} of one is {before.get(word)!r}, of the other {after.get(word)!r}")
    numbers = dict(_numbers(after, ""))
    return [(place, value, numbers[place]) for place, value in _numbers(before, "") if place in numbers]


def _numbers(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _numbers(inner, f"{place}[{number}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, float(value)


def main() -> None:
    """Compare two files of one benchmark, number by number."""
    parser = argparse.ArgumentParser(description="Compare two results of one benchmark, number by number.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--all", action="store_true", help="also the numbers that hardly changed")
    options = parser.parse_args()
    try:
        results = [json.loads(file.read_text()) for file in (options.before, options.after)]
        numbers = compare(*results)
    except (OSError, ValueError) as problem:
        parser.error(str(problem))
    for place, before, after in numbers:
        change = after / before - 1 if before else float(after != before)
        if options.all or abs(change) > WORTH_A_LOOK:
            print(f"{place}: {before:g} -> {after:g} ({change:+.0%})")
    for result, word in zip(results, ("before", "after"), strict=True):
        note(f"load {word}: {result.get('machine', {}).get('load')}, at its end {result.get('load_after')}")


if __name__ == "__main__":
    main()

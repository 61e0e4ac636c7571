"""How a number is measured, and what it depends on: the machine, its libraries, what else it was doing.

Speeds are told as ratios of calls that take turns in one run, each beside how far its pictures are from the baseline's.
"""

import contextlib
import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIBRARIES = (
    "torch", "diffusers", "transformers", "numpy", "opencv-python-headless", "OpenImageIO", "openvino", "xformers",
)  # fmt: skip
RESAMPLED = 2000      # times a bootstrap draws its rounds again
INTERVAL = 0.95       # share of them inside the interval

Call = Callable[[], object]


def machine() -> dict[str, Any]:
    """Tell processor, cores, library versions and the present load."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "load": load(),
    }


def cores() -> int:
    """Give the count of processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float:
    """Give the mean count of running processes in the last minute; above the cores, times are too long."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0


def interleaved(
    calls: Mapping[str, Call],
    rounds: int = 7,
    warm_up: int = 1,
    prepare: Mapping[str, Call] | None = None,
    until: float | None = None,
) -> dict[str, Any]:
    """Time calls that take turns; the first of them is the baseline.

    calls: by name, each ends only when its work has (a GPU is waited for). rounds: how often every call is timed, after
    `warm_up` rounds that are not. Every other round goes backwards, so that none always has the same neighbor.
    prepare: what is done before the call of a name, not timed. until: when the rounds should be over, on the clock of
    `time.monotonic`: no round begins that would not be, but the first.

    Gives {"rounds", "load_before", "load_after", "baseline", "seconds": {name: median, shortest, longest},
    "every_second": {name: the seconds of each round}, "cpu_seconds": {name: median of the processor time, of all
    threads and of processes that ended in the call}, "ratios": {name: ratio}}, the last for all but the baseline, as
    `ratio` gives it.
    """
    assert calls and rounds > 0, (list(calls), rounds)
    names = list(calls)
    before = load()
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    began, longest = time.monotonic(), 0.0
    for number in range(-warm_up, rounds):
        longest, began = max(longest, time.monotonic() - began), time.monotonic()
        if until is not None and number > 0 and began + longest > until:
            break
        for name in names if number % 2 == 0 else reversed(names):
            if prepare and name in prepare:
                prepare[name]()
            spent, clock = _processor_seconds(), time.perf_counter()
            calls[name]()
            seconds = time.perf_counter() - clock
            if number >= 0:
                wall[name].append(seconds)
                cpu[name].append(_processor_seconds() - spent)
    return {
        "rounds": len(wall[names[0]]),
        "load_before": before,
        "load_after": load(),
        "baseline": names[0],
        "seconds": {name: summary(times) for name, times in wall.items()},
        "every_second": {name: [round(each, 4) for each in times] for name, times in wall.items()},
        "cpu_seconds": {name: round(median(times), 4) for name, times in cpu.items()},
        "ratios": {name: ratio(wall[names[0]], wall[name]) for name in names[1:]},
    }


def ratio(baseline: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Give how many times faster `ours` is than `baseline`: the median over the rounds, and its bootstrap interval.

    Both in seconds, one for each round. A round's two times are divided by each other, because a busy moment hits both;
    low and high are the ends of the 95 % interval of the median when the rounds are drawn again at random.
    """
    assert len(baseline) == len(ours) and ours, (len(baseline), len(ours))
    rounds = [slow / fast for slow, fast in zip(baseline, ours, strict=True)]
    draw = random.Random(0)
    medians = sorted(median(draw.choices(rounds, k=len(rounds))) for _ in range(RESAMPLED))
    outside = int(RESAMPLED * (1 - INTERVAL) / 2)
    return {
        "median": round(median(rounds), 4),
        "low": round(medians[outside], 4),
        "high": round(medians[-1 - outside], 4),
    }


def equivalence(baseline: Sequence[NDArray[Any]], ours: Sequence[NDArray[Any]]) -> dict[str, float]:
    """Give how far pictures are from those of the baseline, over all of them.

    Both: (H, W, 3) RGB, sRGB-encoded, 0..1 if floating, else all levels of their type. Gives {"max_difference": of a
    channel, 0..1, "psnr_db": peak signal to noise, 999 where nothing differs, "delta_e_p99": the CIEDE2000 under which
    99 % of the pixels lie, "delta_e_max", "pixels_that_differ": share, 0..1}.
    """
    from colorcli.finish.difference import ciede2000, lab_of

    assert len(baseline) == len(ours) and ours, (len(baseline), len(ours))
    largest, squares, values, pixels = 0.0, 0.0, 0, 0
    delta_e: list[NDArray[np.float32]] = []
    for theirs, mine in zip(baseline, ours, strict=True):
        assert theirs.shape == mine.shape, (theirs.shape, mine.shape)
        one, two = _unit(theirs), _unit(mine)
        gap = np.abs(one - two)
        largest = max(largest, float(gap.max()))
        squares, values = squares + float(np.square(gap, dtype=np.float64).sum()), values + gap.size
        # Most pixels are equal; only the rest needs the formula.
        changed = gap.max(axis=2) > 0
        delta_e.append(np.asarray(ciede2000(lab_of(one[changed]), lab_of(two[changed])), np.float32))
        pixels += changed.size
    every = np.concatenate(delta_e)
    kept = np.sort(every)[::-1]
    above = int(0.01 * pixels)  # of all pixels, those that may lie over the 99th percentile
    return {
        "max_difference": round(largest, 8),
        "psnr_db": round(-10 * np.log10(squares / values), 2) if squares else 999.0,
        "delta_e_p99": round(float(kept[above]), 5) if len(kept) > above else 0.0,
        "delta_e_max": round(float(kept[0]), 5) if len(kept) else 0.0,
        "pixels_that_differ": round(len(every) / pixels, 6),
    }


def summary(times: Sequence[float]) -> dict[str, float]:
    """Give median, shortest and longest of several runs, in seconds."""
    return {"median": round(median(times), 4), "shortest": round(min(times), 4), "longest": round(max(times), 4)}


def _processor_seconds() -> float:
    """Processor time that this process and its ended children have taken, in all threads."""
    times = os.times()   # counts hundredths of a second, which is enough for whole processes
    return time.process_time() + times.children_user + times.children_system


def _unit(picture: NDArray[Any]) -> NDArray[np.float32]:
    levels = np.iinfo(picture.dtype).max if np.issubdtype(picture.dtype, np.integer) else 1
    return np.asarray(picture, np.float32) / np.float32(levels)


def _version(name: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

"""What a measured number depends on: the machine, its libraries, and what else it was doing."""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "opencv-python-headless", "OpenImageIO")


def machine() -> dict[str, Any]:
    """Tell processor, cores, library versions and the present load."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "load": load(),
    }


def load() -> float:
    """Give the mean count of running processes in the last minute; above the cores, times are too long."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0


def summary(times: Sequence[float]) -> dict[str, float]:
    """Give median, shortest and longest of several runs, in seconds."""
    return {"median": round(median(times), 4), "shortest": round(min(times), 4), "longest": round(max(times), 4)}


def report(result: dict[str, Any], file: Path | None) -> None:
    """Print a result as JSON, and write it to a file if one is given."""
    text = json.dumps(result, indent=2)
    print(text)
    if file is not None:
        file.write_text(text + "\n")


def note(text: str) -> None:
    """Tell how far it is, beside the JSON."""
    print(text, file=sys.stderr, flush=True)


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

"""What a machine has, and how it says that it has no more. No torch here."""

import os
from pathlib import Path

from colorcli.errors import DeviceError

CGROUP = Path("/sys/fs/cgroup")   # of a container, seen from inside
OUT_OF_MEMORY = ("out of memory", "not enough memory", "cannot allocate memory", "can't allocate memory")


def memory_bytes() -> tuple[int | None, int | None]:
    """(available, total) memory in bytes, within the limit of the container; None where the system does not tell."""
    available = total = None
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        values = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        available, total = (int(values[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, used = (_cgroup_bytes(name) for name in ("memory.max", "memory.current"))
    if limit is not None and available is not None and total is not None:
        available, total = min(available, limit - (used or 0) + _cached_bytes()), min(total, limit)
    return available, total


def _cached_bytes() -> int:
    """How much of what a container uses only keeps files at hand, and goes when it is needed."""
    try:
        lines = (CGROUP / "memory.stat").read_text().splitlines()
        values = {name: int(value) for name, value in (line.split() for line in lines)}
    except (OSError, ValueError):
        return 0
    return values.get("active_file", 0) + values.get("inactive_file", 0)


def _cgroup_bytes(name: str) -> int | None:
    try:
        return int((CGROUP / name).read_text())
    except (OSError, ValueError):  # no cgroup, or "max": no limit
        return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory for a tensor, on a card or in the computer."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)


def too_large(frame: tuple[int, int], canvas: tuple[int, int], device: str, profile: str) -> DeviceError:
    """One frame does not fit in memory: the error that says what would.

    frame, canvas: width and height in pixels. device: "cpu", or a card. profile: the memory profile in use.
    """
    return DeviceError(
        f"memory is used up by one frame of {frame[0]}x{frame[1]} on a canvas of {canvas[0]}x{canvas[1]}",
        hint=f"{more_room(device, profile)}, or --set canvas.area={canvas[0] * canvas[1] // 2} for a smaller canvas",
    )


def more_room(device: str, profile: str) -> str:
    """Say what would make room on a device."""
    movable = device != "cpu" and not profile.startswith("8g")
    return "--memory 8g" if movable else "close other programs"

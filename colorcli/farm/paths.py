"""Plans and presets with the paths of their files as another machine, or another folder, sees them."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from colorcli.presets import Preset, files_of, with_files
from colorcli.shot.plan import FrameJob

Value = TypeVar("Value")


def with_paths(value: Value, seen: Callable[[Path], Path]) -> Value:
    """The same plan with other paths, wherever they stand in it; and without `before`, which is found again.

    A shot is one long chain of frames before each other, too long to be sent.
    """
    changed: Any = value
    if isinstance(value, Path):
        changed = seen(value)
    elif isinstance(value, FrameJob):
        masks = tuple(map(seen, value.masks))
        changed = replace(value, source=seen(value.source), output=seen(value.output), masks=masks, before=None)
    elif isinstance(value, tuple):
        changed = tuple(with_paths(one, seen) for one in value)
    elif is_dataclass(value) and not isinstance(value, type):
        changed = replace(value, **{one.name: with_paths(getattr(value, one.name), seen) for one in fields(value)})
    result: Value = changed
    return result


def preset_with_paths(preset: Preset, seen: Callable[[Path], Path]) -> Preset:
    """The same preset with other paths."""
    return with_files(preset, [f"{key}={seen(Path(file))}" for key, file in files_of(preset).items()])

"""A shot list: a YAML file with the shots of an episode, and for each its keys, frames, masks and settings."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from colorcli.errors import PresetError
from colorcli.presets import is_preset_file
from colorcli.settings import Group, build, read_layer

SUFFIXES = (".yaml", ".yml")
EXAMPLE = "shots: [{shot: sc01/c001, ref: keys/hero.png}]"

Several = str | tuple[str, ...]


class ListEntry(Group):
    """What is said of one shot."""

    shot: str = Field(min_length=1, description="a folder of frames, a tree of such folders, or walk.####.png")
    ref: Several = Field((), description="its key or keys, or a folder of them; none: those of the list")
    frames: str | int | None = Field(None, description="only these: 1-100x2,120")
    masks: Several = Field((), description="folders of masks, one a character")
    out: str | None = Field(None, min_length=1, description="where its colors go; none: below the list's `out`")
    preset: str | None = Field(None, min_length=1, description="a shipped preset or a YAML file; none: the list's")
    set: Several = Field((), description="settings on top of the preset and of the list's: sampling.steps=12")


class ListFile(Group):
    """The whole file. What is said here counts for every shot that says nothing else."""

    ref: Several = Field((), description="the key or keys of every shot, or a pattern: keys/{shot}.png")
    out: str | None = Field(
        None, min_length=1, description="a folder in which every shot gets its own; none: <SHOT>_color beside each"
    )
    preset: str | None = Field(None, min_length=1, description="a shipped preset or a YAML file")
    set: Several = Field((), description="settings on top of the preset: sampling.steps=12")
    shots: tuple[ListEntry, ...] = Field((), description="the shots, each with what is its own")


@dataclass(frozen=True)
class ListedShot:
    """One shot of a list; paths are as seen from the working folder."""

    shot: str
    refs: tuple[str, ...]
    out: Path | None
    frames: str | None
    masks: tuple[str, ...]
    preset: str | None          # None: what the command line says
    overrides: tuple[str, ...]  # the list's, then its own


def is_shot_list(text: str) -> bool:
    """Tell whether a SHOT argument names a list."""
    return Path(text).suffix.lower() in SUFFIXES and not Path(text).is_dir()


def read_shot_list(path: Path, out: Path | None = None) -> list[ListedShot]:
    """Read a list; relative paths in it are seen from its folder.

    out: a folder that takes the place of the one that the list names for all its shots.

    Raises PresetError, with the line, if it is missing, no YAML, or says what no list may say; and for a shot that is
    named twice.
    """
    layer, _, problems = read_layer(ListFile, path)
    listed, _, wrong = build(ListFile, [layer])
    if faults := [*problems, *wrong]:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise PresetError(faults[0].message + more, hint=faults[0].hint)
    assert listed is not None
    if not listed.shots:
        raise PresetError(f"{path} names no shot", hint=f"write them as {EXAMPLE}")
    folder = path.parent
    below = out if out is not None or listed.out is None else _seen(listed.out, folder)
    found = [_listed(entry, listed, folder, below) for entry in listed.shots]
    named: dict[tuple[str, str | None], int] = {}
    for number, one in enumerate(found, start=1):
        before = named.setdefault((one.shot, one.frames), number)
        if before != number:
            raise PresetError(
                f"{path}: shots, entries {before} and {number} are both {listed.shots[number - 1].shot}",
                hint="take one of them out, or give them different frames",
            )
    return found


def _listed(entry: ListEntry, listed: ListFile, folder: Path, below: Path | None) -> ListedShot:
    own = None if below is None else below / _place_below(entry.shot)
    preset = entry.preset or listed.preset
    return ListedShot(
        shot=str(_seen(entry.shot, folder)),
        refs=tuple(str(_seen(ref, folder)) for ref in _texts(entry.ref) or _texts(listed.ref)),
        out=own if entry.out is None else _seen(entry.out, folder),
        frames=None if entry.frames is None else str(entry.frames),
        masks=tuple(str(_seen(mask, folder)) for mask in _texts(entry.masks)),
        preset=str(_seen(preset, folder)) if preset is not None and is_preset_file(preset) else preset,
        overrides=(*_texts(listed.set), *_texts(entry.set)),
    )


def _texts(value: Several) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _seen(text: str, folder: Path) -> Path:
    """A path in the list as seen from the working folder; ~/ is the user's own."""
    return Path(text).expanduser() if text.startswith("~/") else folder / text


def _place_below(shot: str) -> Path:
    """Where a shot goes below the list's `out`: as it lies below the list, else under its last name alone."""
    path = Path(shot)
    plain = path.parent if path.suffix else path   # a pattern or a single picture goes by its folder
    inside = not plain.is_absolute() and ".." not in plain.parts and plain.parts[:1] != ("~",)
    return plain if inside else Path(plain.name)

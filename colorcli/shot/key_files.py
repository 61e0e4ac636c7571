"""The pictures that the colors of a shot are taken from: its keys, a background, and the file of a palette."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from colorcli.errors import FrameError, KeyImageError
from colorcli.images import MAX_PIXELS, read_size
from colorcli.prepare.palette_file import read_swatches
from colorcli.shot.frames import FRAME_SUFFIXES, FoundShot

SHOT_FIELD = "{shot}"
MOST_KEYS = 16   # of one character in a folder; more are somebody's frames


def find_key_files(refs: Sequence[str], shot: FoundShot, max_pixels: int = MAX_PIXELS) -> tuple[Path, ...]:
    """The keys of one shot. Raises KeyImageError if one is missing or no picture."""
    if not refs:
        beside = tuple(shot.folder / name for name in shot.key_names)
        if not beside:
            raise KeyImageError(
                f"the shot {shot.name} has no key", hint="give one with --ref KEY, or lay key.png beside the frames"
            )
        return tuple(_checked_key(path, shot, max_pixels) for path in beside)
    paths = [path for ref in refs for path in _pictures_of(_of_shot(ref, shot), shot)]
    return tuple(dict.fromkeys(_checked_key(path, shot, max_pixels) for path in paths))


def find_background(image: str | None, shot: FoundShot, max_pixels: int = MAX_PIXELS) -> Path | None:
    """The background picture of one shot, from `background.image`. Raises KeyImageError if it is missing or none."""
    if image is None:
        return None
    path = _of_shot(image, shot)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else f"is not there, for the shot {shot.name}"
        raise KeyImageError(
            f"background.image: {path} {what}", hint=f"name one picture; one a shot is written FOLDER/{SHOT_FIELD}.png"
        )
    try:
        read_size(path, max_pixels)
    except FrameError as error:
        raise KeyImageError(f"background.image cannot be read: {error.message}", hint=error.hint) from error
    return path


def find_palette_file(text: str | None, shot: FoundShot) -> Path | None:
    """The file of one shot, from `finish.palette_file`. Raises PresetError if it holds no colors."""
    if text is None:
        return None
    path = _of_shot(text, shot)
    read_swatches(path)
    return path


def key_test(refs: Sequence[str]) -> Callable[[Path], bool]:
    """A test whether a file is one of the keys, also the key of another shot (`keys/{shot}.png`)."""
    plain = [Path(ref) for ref in refs if SHOT_FIELD not in ref]
    exact = {path.resolve() for path in plain} | {path.parent.resolve() / path.name for path in plain}
    patterns = [_key_pattern(ref) for ref in refs if SHOT_FIELD in ref]
    real_folder = cache(Path.resolve)

    def is_key(path: Path) -> bool:
        if not exact and not patterns:
            return False
        # The folder is resolved but not the file: a frame may be a link to the drawing that served as the key.
        real = real_folder(path.parent) / path.name
        return real in exact or any(pattern.fullmatch(real.as_posix()) for pattern in patterns)

    return is_key


def _key_pattern(ref: str) -> re.Pattern[str]:
    """A pattern for the absolute paths that `--ref a/{shot}/{shot}.png` can mean."""
    before, *others = [re.escape(part) for part in Path(ref).resolve().as_posix().split(SHOT_FIELD)]
    text = f"{before}(?P<shot>.+){others[0]}" + "".join(f"(?P=shot){part}" for part in others[1:])
    return re.compile(text, re.DOTALL)


def _of_shot(text: str, shot: FoundShot) -> Path:
    """The file that a path or a pattern with {shot} means for a shot: one that is there, if any is."""
    candidates = [Path(text.replace(SHOT_FIELD, alias)) for alias in shot.aliases or (shot.name,)]
    return next((path for path in candidates if path.exists()), candidates[0])


def _pictures_of(path: Path, shot: FoundShot) -> list[Path]:
    """The pictures that a key names: itself, or all of a folder, by name. Raises KeyImageError."""
    if not path.is_dir():
        return [path]
    try:
        there = sorted(one for one in path.iterdir() if not one.name.startswith("."))
    except OSError as error:
        raise KeyImageError(f"the folder of keys {path} cannot be read: {error.strerror}", hint="check it") from error
    keys = [one for one in there if one.suffix.lower() in FRAME_SUFFIXES and one.is_file()]
    one_a_shot = f"for one key a shot write {path}/{SHOT_FIELD}.png"
    if not keys:
        raise KeyImageError(f"the key {path} is a folder without pictures", hint=one_a_shot)
    if len(keys) > 1 and any(one.stem in (shot.name, *shot.aliases) for one in keys):
        raise KeyImageError(f"the folder {path} holds keys of several shots, not of one character", hint=one_a_shot)
    if len(keys) > MOST_KEYS:
        raise KeyImageError(
            f"the folder {path} holds {len(keys)} pictures, and {MOST_KEYS} keys of one character are the most",
            hint=f"name some of them, each with --ref; {one_a_shot}",
        )
    return keys


def _checked_key(path: Path, shot: FoundShot, max_pixels: int) -> Path:
    """The path, if a picture is there. Raises KeyImageError."""
    hint = "a key is one picture of the character in color, or a folder of some"
    if not path.exists():
        raise KeyImageError(f"there is no key {path} for the shot {shot.name}", hint=hint)
    try:
        read_size(path, max_pixels)
    except FrameError as error:
        raise KeyImageError(f"the key cannot be read: {error.message}", hint=error.hint or hint) from error
    return path

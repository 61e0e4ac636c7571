"""Which files are the frames of a shot, and which frames were asked for. Names only: nothing is opened."""

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from math import gcd
from pathlib import Path

import fileseq

from colorcli.errors import ShotError, UsageError
from colorcli.files import open_plain
from colorcli.images import CONTAINERS

FRAME_SUFFIXES = frozenset(CONTAINERS)
KEY_STEMS = ("key", "ref")  # key.png and ref.0001.tga lie beside the frames but are none
MAX_FRAMES_ASKED = 1_000_000
MOST_FOLDERS = 20_000
# A folder that holds one of these, and our name in its first line, is a result of ours, not a shot.
OUTPUT_MARKS = ("manifest.json", "prepare.json")
OUTPUT_SCHEMA = b'"schema": "colorcli/'

log = logging.getLogger(__name__)

LAST_NUMBER = re.compile(r"(.*?)(-?\d+)\.[^.]+", re.DOTALL)
# Frames in the words of Open Job Description, as one of its tasks gets them: --frames openjd:1-5:2,9
OPENJD_FRAMES = "openjd:"
OPENJD_PART = re.compile(r"(-?\d{1,10})(?:\s*-\s*(-?\d{1,10})(?:\s*:\s*(-?\d{1,10}))?)?")
NO_NUMBER = re.compile(r"\d{19}")   # Python refuses to read one of some thousand digits
FILLED_RANGE = re.compile(r"(-?\d+)-(-?\d+)y.*")   # 1-10y3: all but every third
# How a pattern shows that a name is one: walk.####.png, walk.%04d.png, walk.@@@@.png.
PATTERN_MARK = re.compile(r"#|@|%\d*d|\$F\d*")


@dataclass(frozen=True, order=True)
class FrameFile:
    """One drawing on disk."""

    sequence: str        # what stands before the number, "walk."; the whole stem if there is no number
    number: int | None   # None: a single picture without a number
    path: Path

    @property
    def name(self) -> str:
        """The file's name, walk.0001.png."""
        return self.path.name

    @property
    def stem(self) -> str:
        """The file's name without its extension, walk.0001."""
        return self.path.stem


@dataclass(frozen=True)
class FoundShot:
    """A folder of drawings (or the one sequence in it that a pattern names)."""

    name: str                      # the folder's name; inside a tree its path in the tree, "sc01/c003"
    root: Path                     # the folder that the user named (for a pattern: the folder it lies in)
    folder: Path                   # the folder that holds the frames
    relative: Path                 # the folder as seen from root; Path(".") if it is root itself
    frames: tuple[FrameFile, ...]  # by sequence, then number
    ignored: tuple[str, ...]       # names in the folder that are no frame and no key
    key_names: tuple[str, ...]     # keys that lie beside the frames
    aliases: tuple[str, ...] = ()  # other names by which `{shot}` may call it

    @property
    def sequences(self) -> dict[str, tuple[FrameFile, ...]]:
        """The frames by what stands before their number; pictures without a number are not among them."""
        found: dict[str, list[FrameFile]] = {}
        for frame in self.frames:
            if frame.number is not None:
                found.setdefault(frame.sequence, []).append(frame)
        return {name: tuple(frames) for name, frames in found.items()}

    def describe_range(self) -> str:
        """The frames that exist, for a message: "1-24", "walk.1-24, run.1-8", "no number"."""
        sequences = self.sequences
        if not sequences:
            return "only pictures without a number"
        if len(sequences) == 1:
            (frames,) = sequences.values()
            return numbers_as_range([frame.number for frame in frames if frame.number is not None])
        return ", ".join(
            f"{name}{numbers_as_range([frame.number for frame in frames if frame.number is not None])}"
            for name, frames in sequences.items()
        )


@dataclass(frozen=True)
class FrameRange:
    """The frames that were asked for with --frames."""

    text: str
    numbers: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> "FrameRange":
        """Read fileseq's grammar: "1-100x2,120", "1-10y3", "-8--5"; commas or spaces between the parts.

        After "openjd:" that of Open Job Description instead, in which ":" is a step: "openjd:1-100:2,120".
        Raises UsageError for anything else, for a bare ":", for parts of frames, and above a million frames.
        """
        if text.strip().startswith(OPENJD_FRAMES):
            return cls.parse_openjd(text.strip().removeprefix(OPENJD_FRAMES))
        parts = [part for part in re.split(r"[,\s]+", text.strip()) if part]
        if not parts:
            raise UsageError(f"--frames '{text}' names no frame", hint="write it like 1-100, 1-100x2 or 1,5,9-12")
        numbers: set[int] = set()
        asked = 0   # also those asked for again: a line of ranges that each take a second shall not take an hour
        for part in parts:
            found = _numbers_of(part)
            asked += len(found)
            if asked > MAX_FRAMES_ASKED:
                raise _too_many(text)
            numbers.update(found)
        return cls(",".join(parts), frozenset(numbers))

    @classmethod
    def parse_openjd(cls, text: str) -> "FrameRange":
        """Read an integer range of Open Job Description: "1-5:2,9", "10-1:-3", "1 - 5"; 1-5:2 is 1, 3, 5.

        `text` of the result is fileseq's, so that no colon comes into the name of a file. Raises UsageError.
        """
        hint = "Open Job Description writes 1-100, 1-100:2 or 1,5,9-12"
        parts: list[str] = []
        numbers: set[int] = set()
        asked = 0   # as in `parse`
        for part in text.split(","):
            match = OPENJD_PART.fullmatch(part.strip())
            if match is None:
                raise UsageError(f"--frames {OPENJD_FRAMES}{text}: '{part.strip()}' is no range of numbers", hint=hint)
            first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
            if step == 0:
                raise UsageError(f"--frames {OPENJD_FRAMES}{text}: the step of '{part.strip()}' is 0", hint=hint)
            frames = range(first, last + (1 if step > 0 else -1), step)
            asked += len(frames)
            if asked > MAX_FRAMES_ASKED:
                raise _too_many(f"{OPENJD_FRAMES}{text}")
            if not frames:
                raise UsageError(f"--frames {OPENJD_FRAMES}{text}: '{part.strip()}' names no frame", hint=hint)
            numbers.update(frames)
            low, high = sorted((frames[0], frames[-1]))
            parts.append(str(low) if low == high else f"{low}-{high}" + (f"x{abs(step)}" if abs(step) > 1 else ""))
        return cls(",".join(parts), frozenset(numbers))


@dataclass(frozen=True)
class Chunk:
    """Part `index` of `count` about equal parts of a shot, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Chunk":
        """Read "3/10". Raises UsageError."""
        match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
        if match is None:
            raise UsageError(f"--chunk '{text}' is not two numbers", hint="write it like 3/10: the third of ten parts")
        index, count = int(match[1]), int(match[2])
        if not 1 <= index <= count:
            raise UsageError(f"--chunk {text}: there is no part {index} of {count}", hint="parts are counted from 1")
        return cls(index, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def bounds(self, length: int) -> tuple[int, int]:
        """First index and the one after the last, in a list of `length`; parts differ by one at most."""
        return (self.index - 1) * length // self.count, self.index * length // self.count


def numbers_as_range(numbers: Sequence[int]) -> str:
    """Write numbers the way they are asked for: [1, 2, 3, 7] is "1-3,7"."""
    return str(fileseq.framesToFrameRange(sorted(set(numbers)), sort=False, compress=False)) if numbers else "none"


def missing_numbers(numbers: Sequence[int]) -> list[int]:
    """Numbers left out between the first and the last.

    A shot drawn on twos (1, 3, 5, 9) has its own step, so only 7 is missing there.
    """
    there = sorted(set(numbers))
    if len(there) < 3:
        return []
    step = reduce(gcd, (after - before for before, after in pairwise(there)))
    # Far-apart numbers are two ranges of one sequence (1001 and 950001), not a gap of a million drawings.
    if (there[-1] - there[0]) // step > MAX_FRAMES_ASKED:
        return []
    present = set(there)
    return [number for number in range(there[0], there[-1], step) if number not in present]


def find_frames(
    folder: Path, *, is_key: Callable[[Path], bool] = lambda path: False, names: Sequence[str] | None = None
) -> tuple[tuple[FrameFile, ...], tuple[str, ...], tuple[str, ...]]:
    """Find the frames of one folder: (frames, names that were ignored, names of keys).

    Frames come by sequence and number. `is_key` tells keys that do not bear the name of one; `names` replaces the
    folder's listing. Raises ShotError if two files are the same frame, or the folder cannot be listed.
    """
    pictures: list[str] = []
    ignored: list[str] = []
    keys: list[str] = []
    for name in sorted(_listing(folder) if names is None else names):
        if name.startswith(".") or name.endswith("~"):
            continue  # hidden files and what programs leave while they write are nobody's business
        if Path(name).suffix.lower() not in FRAME_SUFFIXES:
            ignored.append(name)
        elif name.lower().split(".")[0] in KEY_STEMS or is_key(folder / name):
            keys.append(name)
        else:
            pictures.append(name)
    frames = sorted(_numbered(folder, pictures), key=_by_sequence_and_number)
    _refuse_doubles(folder, frames)
    return tuple(frames), tuple(ignored), tuple(keys)


def find_shots(
    shot: Path | str, *, is_key: Callable[[Path], bool] = lambda path: False, leave_out: Sequence[Path] = ()
) -> list[FoundShot]:
    """Find the shots that one SHOT argument names: a folder, a tree of folders, a pattern, or a single picture.

    Folders in `leave_out` (masks), hidden ones, and results of earlier runs are passed over.
    Raises ShotError if there is nothing there.
    """
    text = str(shot)
    path = Path(text)
    if path.is_dir():
        return _shots_in_tree(path, is_key, {folder.resolve() for folder in leave_out})
    if path.is_file():
        if path.suffix.lower() not in FRAME_SUFFIXES:
            raise ShotError(f"{path} is neither a folder of frames nor a picture", hint=f"frames are {suffixes_text()}")
        frames, _, _ = find_frames(path.parent, names=[path.name])
        # The user named this one, so it is a frame even if it is called key.png.
        frames = frames or (FrameFile(path.stem, None, path),)
        return [_shot_of_folder(path.parent, frames)]
    if PATTERN_MARK.search(path.name):
        return [_shot_of_pattern(path, is_key)]
    raise ShotError(f"there is no {path}", hint="give the folder that holds the frames")


def is_result(folder: Path) -> bool:
    """Whether a folder was written by colorcli (its manifest says so)."""
    for mark in OUTPUT_MARKS:
        with contextlib.suppress(OSError), open_plain(folder / mark) as file:
            if OUTPUT_SCHEMA in file.read(200):
                return True
    return False


def suffixes_text() -> str:
    """The kinds of picture that are read, for messages."""
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in FRAME_SUFFIXES))


def _numbers_of(part: str) -> frozenset[int]:
    """The frames of one part of a range. Raises UsageError."""
    if ":" in part:
        plain = part.partition(":")
        raise UsageError(
            f"--frames '{part}': a ':' is a step in Open Job Description, "
            "but a stagger (every frame, in another order) in fileseq",
            hint=f"for a step write {plain[0]}x{plain[2]} (or {OPENJD_FRAMES}{part}); for every frame write {plain[0]}",
        )
    if NO_NUMBER.search(part):
        raise UsageError(f"--frames: '{part[:40]}...' is no frame range", hint="frame numbers have up to 18 digits")
    filled = FILLED_RANGE.fullmatch(part)
    if filled is not None and abs(int(filled[2]) - int(filled[1])) > MAX_FRAMES_ASKED:
        raise _too_many(part)   # fileseq makes the whole list before it takes the others out
    try:
        frames = fileseq.FrameSet(part)
        if len(frames) > MAX_FRAMES_ASKED:
            raise _too_many(part)
        numbers = list(frames)
    except fileseq.exceptions.MaxSizeException as error:
        raise _too_many(part) from error
    except (fileseq.exceptions.FileSeqException, ValueError, ArithmeticError) as error:
        raise UsageError(
            f"--frames: '{part}' is no frame range", hint="write it like 1-100, 1-100x2, 1,5,9-12 or -8--5"
        ) from error
    if not all(isinstance(number, int) for number in numbers):
        raise UsageError(f"--frames: '{part}' asks for parts of frames", hint="frames are whole numbers")
    return frozenset(numbers)


def _too_many(text: str) -> UsageError:
    return UsageError(f"--frames '{text}' asks for more than {MAX_FRAMES_ASKED} frames", hint="ask for fewer")


def _listing(folder: Path) -> list[str]:
    """Names of the files in a folder. Raises ShotError."""
    try:
        with os.scandir(folder) as entries:
            # A link that points nowhere is a frame that cannot be read, not one that does not exist.
            names = [entry.name for entry in entries if entry.is_file() or (entry.is_symlink() and not entry.is_dir())]
    except OSError as error:
        raise ShotError(f"{folder} cannot be listed: {error.strerror}", hint="check its permissions") from error
    for name in names:
        if not _is_unicode(name):
            raise ShotError(f"{folder} holds {name!a}, whose name is not UTF-8", hint="rename it")
    return names


def _is_unicode(name: str) -> bool:
    """Whether a manifest can hold the name: the system hands on bytes that are no text as half characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _numbered(folder: Path, names: list[str]) -> Iterator[FrameFile]:
    """Split each name into what stands before the number, and the number."""
    there = set(names)
    split: list[tuple[str, int | None, str]] = []
    # A row of so many digits is no number: fileseq cannot count with it, and nobody means it.
    countable = [name for name in names if not NO_NUMBER.search(name)]
    for sequence in fileseq.FileSequence.findSequencesInList(countable, pad_style=fileseq.PAD_STYLE_HASH1):
        frames = sequence.frameSet()
        if frames is None:
            name = f"{sequence.basename()}{sequence.extension()}"
            split.append((Path(name).stem, None, name))
            continue
        for number in frames:
            name = sequence.frame(number)
            split.append((sequence.basename(), int(number), name))
    # To fileseq a backslash parts folders, wherever it is.
    split = [(prefix, number, name) for prefix, number, name in split if name in there and name.startswith(prefix)]
    for name in sorted(there.difference(name for _, _, name in split)):
        # fileseq passes over names with a line break in them, too.
        match = None if NO_NUMBER.search(name) else LAST_NUMBER.fullmatch(name)
        split.append((match[1], int(match[2]), name) if match else (Path(name).stem, None, name))
    prefixes = {prefix for prefix, number, _ in split if number is not None and number >= 0}
    for prefix, number, name in split:
        # "walk-0001.png" is frame 1 of "walk-", while "walk.-0001.png" is a frame before the first; fileseq calls both
        # negative. Only where "walk0001.png" lies beside it is "walk-0001.png" its negative number.
        is_hyphen = number is not None and name.startswith(f"{prefix}-") and prefix[-1:].isalnum()
        if is_hyphen and number is not None and prefix not in prefixes:
            yield FrameFile(f"{prefix}-", -number, folder / name)
        else:
            yield FrameFile(prefix, number, folder / name)


def _by_sequence_and_number(frame: FrameFile) -> tuple[str, int, str]:
    return frame.sequence, frame.number or 0, frame.name


def _refuse_doubles(folder: Path, frames: Sequence[FrameFile]) -> None:
    """Raise ShotError if a sequence has two files for one number."""
    for before, frame in pairwise(frames):
        if frame.number is not None and (before.sequence, before.number) == (frame.sequence, frame.number):
            raise ShotError(
                f"{before.name} and {frame.name} in {folder} are both frame {frame.number}",
                hint=f"take one out of the folder, or name one kind: {folder / frame.sequence}####{frame.path.suffix}",
            )


def _shot_of_folder(
    folder: Path, frames: Sequence[FrameFile], ignored: Sequence[str] = (), keys: Sequence[str] = ()
) -> FoundShot:
    name = folder.resolve().name
    return FoundShot(name, folder, folder, Path(), tuple(frames), tuple(ignored), tuple(keys), (name,))


def _shot_of_pattern(pattern: Path, is_key: Callable[[Path], bool]) -> FoundShot:
    """The one sequence that `walk.####.png` names. Raises ShotError."""
    folder = pattern.parent
    if not folder.is_dir():
        raise ShotError(f"there is no folder {folder}", hint="give the folder that holds the frames")
    try:
        wanted = fileseq.FileSequence(pattern.name, pad_style=fileseq.PAD_STYLE_HASH1)
    except fileseq.exceptions.FileSeqException as error:
        raise ShotError(
            f"{pattern.name} is no frame pattern", hint="write it like walk.####.png or walk.%04d.png"
        ) from error
    start, suffix, width = wanted.basename(), wanted.extension(), wanted.zfill()
    names = [
        name
        for name in _listing(folder)
        if name.startswith(start) and name.endswith(suffix) and _is_padded(name[len(start) : -len(suffix)], width)
    ]
    frames, ignored, keys = find_frames(folder, is_key=is_key, names=names)
    asked = wanted.frameSet()
    matched = [frame for frame in frames if frame.number is not None and (asked is None or frame.number in asked)]
    if not matched:
        raise ShotError(f"no frame is named like {pattern}", hint="look at the number of digits, or give the folder")
    shot = _shot_of_folder(folder, matched, ignored, keys)
    return replace(shot, aliases=(shot.name, start.rstrip("._- ")))


def _is_padded(digits: str, width: int) -> bool:
    """Whether these digits are a number padded to `width`; one "#" takes any padding."""
    plain = digits.removeprefix("-")
    if not plain.isdecimal():
        return False
    return width <= 1 or len(plain) == width or len(digits) == width or (len(plain) > width and plain[0] != "0")


def _shots_in_tree(root: Path, is_key: Callable[[Path], bool], leave_out: set[Path]) -> list[FoundShot]:
    """Every folder under (and with) root that holds frames. Raises ShotError if none does."""
    shots: list[FoundShot] = []
    passed_over: list[str] = []
    for folder in _folders(root, leave_out, passed_over):
        frames, ignored, keys = find_frames(folder, is_key=is_key)
        if not frames:
            continue
        shot = _shot_of_folder(folder, frames, ignored, keys)
        relative = folder.relative_to(root)
        if relative != Path():
            name = relative.as_posix()
            aliases = tuple(dict.fromkeys((name, relative.name)))
            shot = replace(shot, name=name, root=root, relative=relative, aliases=aliases)
        shots.append(shot)
    if not shots:
        _, ignored, keys = find_frames(root, is_key=is_key)
        raise ShotError(_nothing_there(root, ignored, keys, passed_over), hint=f"frames are {suffixes_text()}")
    return shots


def _nothing_there(root: Path, ignored: Sequence[str], keys: Sequence[str], passed_over: Sequence[str]) -> str:
    """Why a folder is no shot."""
    if passed_over:
        return f"{root} holds no frames, only results of an earlier run ({', '.join(passed_over[:3])})"
    if keys:
        return f"{root} holds no frames, only the key {keys[0]}"
    if ignored:
        return f"{root} holds no frames: {', '.join(ignored[:3])} cannot be read as pictures"
    return f"{root} is empty"


def _folders(root: Path, leave_out: set[Path], passed_over: list[str]) -> Iterator[Path]:
    """root and every folder under it, in order of name, each real folder once; fills `passed_over`.

    A link to a folder is followed, but not one to a folder that root lies in, nor one that lies behind another link:
    two links are enough to come by the whole disk. Raises ShotError for more than MOST_FOLDERS.
    """
    seen: set[Path] = set()
    top = root.resolve()
    waiting = [(root, False)]   # folders, and whether a link has led there
    while waiting:
        folder, behind_link = waiting.pop()
        real = folder.resolve()
        if real in seen or real in leave_out:
            continue
        seen.add(real)
        if len(seen) > MOST_FOLDERS:
            raise ShotError(f"{root} holds more than {MOST_FOLDERS} folders", hint="give the folders of the shots")
        if folder != root and is_result(folder):
            passed_over.append(folder.name)
            continue
        yield folder
        try:
            # The listing itself tells folders from files; to ask for each of ten thousand frames takes a server long.
            with os.scandir(folder) as entries:
                below = [folder / each.name for each in entries if not each.name.startswith(".") and each.is_dir()]
        except OSError as error:
            raise ShotError(f"{folder} cannot be listed: {error.strerror}", hint="check its permissions") from error
        for entry in sorted(below, reverse=True):
            is_link = entry.is_symlink()
            if is_link and (behind_link or top.is_relative_to(entry.resolve())):
                why = "lies behind another link" if behind_link else "leads back up"
                log.warning("%s is passed over: the link %s", entry, why)
            else:
                waiting.append((entry, behind_link or is_link))

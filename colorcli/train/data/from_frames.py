"""A training set from folders of color frames: line art and masks are found, or taken from files beside them."""

import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorcli.errors import DataError, FrameError, UsageError
from colorcli.images import CONTAINERS, FORMATS, Picture, over_paper, read_picture
from colorcli.prepare.lineart import EXTRACTORS, LineArt, lines_of_color
from colorcli.prepare.masks import alpha_mask, character_mask
from colorcli.prepare.networks import Networks
from colorcli.presets import LineSettings, MaskSettings
from colorcli.train.data.archives import MAX_PIXELS, png_bytes, write_archives
from colorcli.train.data.blocks import KINDS, Part, sources
from colorcli.train.data.index import Entry

Float = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SKETCH_FOLDERS, MASK_FOLDERS = ("sketch", "line"), ("mask",)  # that may lie beside a folder `color`
MOST_LONG = 4.0             # long side over short side of a picture that is still used
DOUBTFUL_MASK = 0.002, 0.998  # share of the picture that a mask covers at least and at most, else somebody should look
NETWORK = "network"         # the extractor that a file brings


def outlines(color: Float) -> Float:
    """Thin lines that are darker than both their sides, as they are found in a key: (H, W) ink."""
    return lines_of_color(Picture(color, None, FORMATS["png8"], 3), LineSettings()).ink


# How line art can be found in a color picture (H, W, 3) in 0..1; each gives ink (H, W), 0 paper .. 1 line.
SKETCHERS: dict[str, Callable[[Float], Float]] = {"outlines": outlines, **EXTRACTORS}


@dataclass(frozen=True)
class FrameOptions:
    """How frames become training pictures."""

    extractors: tuple[str, ...] = tuple(SKETCHERS)   # one of them is drawn by lot for each picture
    side: int | None = None          # a short side that is longer is brought down to this, pixels
    references: int = 0              # most other pictures of the same folder that a picture can be colored from
    score: float | None = None       # aesthetic score of all pictures
    seed: int = 0
    lines_network: Path | None = None   # ONNX file, for the extractor "network"
    mask_network: Path | None = None    # ONNX file that finds the character in a color picture


@dataclass(frozen=True)
class FrameSource:
    """One color frame, and what lies beside it."""

    color: Path
    sketch: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class FrameBlock:
    """Some frames of one folder."""

    zip_id: str
    root: Path                    # the folder that the user named
    frames: tuple[FrameSource, ...]
    options: FrameOptions = field(default_factory=FrameOptions)

    @property
    def source(self) -> str:
        """The folder that the user named."""
        return str(self.root)

    @property
    def count(self) -> int:
        """Pictures in it."""
        return len(self.frames)

    def made_of(self) -> dict[str, Any]:
        """Options, names, sizes and dates of all files."""
        files = []
        for frame in self.frames:
            for path in (frame.color, frame.sketch, frame.mask):
                files.append(_stamp(path, self.root) if path is not None else None)
        brought = (self.options.lines_network, self.options.mask_network)
        networks = [_stamp(path, path.parent) for path in brought if path]
        return {"options": {name: str(value) for name, value in asdict(self.options).items()}, "files": files,
                "networks": networks}

    def write(self, root: Path) -> Part:
        """Prepare the frames and write their archives; what cannot be read is left out. Raises OutputError."""
        entries: list[Entry] = []
        failed: dict[str, str] = {}
        doubtful: list[str] = []
        networks = open_brought(self.options)
        with write_archives(root, self.zip_id, KINDS) as archives:
            for name, frame in _named(self.frames).items():
                try:
                    made = prepare(frame, self._shown(frame.color), self.options, networks)
                except FrameError as problem:
                    failed[self._shown(frame.color)] = problem.message
                    continue
                for kind, pixels in zip(KINDS, (made.color, made.sketch, made.mask), strict=True):
                    archives.add(kind, name, png_bytes(pixels))
                height, width = made.mask.shape
                path = f"{self.zip_id}/{name}"
                entries.append(Entry(path, width, height, self.options.score, sketch_by=made.sketch_by,
                                     mask_by=made.mask_by))
                if not DOUBTFUL_MASK[0] < float(made.mask.mean()) / 255 < DOUBTFUL_MASK[1]:
                    doubtful.append(path)
        return Part(_with_references(entries, self.options.references), failed, tuple(doubtful))

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Prepared:
    """One frame ready to be written, all 8-bit."""

    color: Bytes    # (H, W, 3)
    sketch: Bytes   # (H, W) dark lines on white
    mask: Bytes     # (H, W) 255 = character
    sketch_by: str
    mask_by: str


def prepare(frame: FrameSource, name: str, options: FrameOptions, networks: Networks | None = None) -> Prepared:
    """Read a frame, and find or read its line art and its mask.

    name: of the frame in its set; with the seed it decides on the extractor. Raises FrameError if it cannot be used.
    """
    picture = read_picture(frame.color, MAX_PIXELS)
    width, height = picture.size
    if max(width, height) > MOST_LONG * min(width, height):
        raise FrameError(f"{name} is {width}x{height}: more than {MOST_LONG:g} times as long as wide")
    color = over_paper(picture)
    if frame.sketch is not None:
        ink, sketch_by = 1 - _beside(frame.sketch, picture), "given"
    else:
        rng = np.random.default_rng([options.seed, zlib.crc32(name.encode())])
        sketch_by = options.extractors[int(rng.integers(len(options.extractors)))]
        ink = _brought_lines(networks, color) if sketch_by == NETWORK else SKETCHERS[sketch_by](color)
    mask, mask_by = _mask_of(frame, picture, color, ink, networks if options.mask_network else None)
    layers = [np.round(layer * 255).astype(np.uint8) for layer in (color, np.clip(1 - ink, 0, 1), np.clip(mask, 0, 1))]
    if options.side is not None and min(width, height) > options.side:
        scale = options.side / min(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        layers = [np.asarray(Image.fromarray(layer).resize(size, Image.Resampling.BICUBIC)) for layer in layers]
    return Prepared(layers[0], layers[1], layers[2], sketch_by, mask_by)


def _mask_of(
    frame: FrameSource, picture: Picture, color: Float, ink: Float, networks: Networks | None
) -> tuple[Float, str]:
    """Give the character's mask and where it is from: a file, the frame's alpha, a network, or its colors."""
    if frame.mask is not None:
        return _beside(frame.mask, picture), "given"
    alpha = alpha_mask(picture)
    if alpha is not None:
        return alpha, "alpha"
    if networks is not None:
        return networks.key_mask(color), NETWORK
    return character_mask(picture, LineArt(ink), MaskSettings(), colored=True), "colors"


def _beside(path: Path, picture: Picture) -> Float:
    """Read the gray values of a file that must have the size of its color frame. Raises FrameError."""
    other = read_picture(path, MAX_PIXELS)
    if other.size != picture.size:
        name = f"{path.parent.name}/{path.name}"
        raise FrameError(f"{name} is {_by(other.size)}, but its color frame is {_by(picture.size)}")
    gray: Float = cv2.cvtColor(over_paper(other), cv2.COLOR_RGB2GRAY)
    return gray


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _stamp(path: Path, root: Path) -> list[Any]:
    """Tell by what a changed file is known: name, size, date. A file that is gone has none."""
    try:
        known = path.stat()
    except OSError:
        return [os.path.relpath(path, root)]
    return [os.path.relpath(path, root), known.st_size, known.st_mtime_ns]


def _named(frames: Sequence[FrameSource]) -> Mapping[str, FrameSource]:
    """Give every frame a name in its archive: its stem, and a number where two have the same one."""
    named: dict[str, FrameSource] = {}
    for frame in frames:
        stem, number = frame.color.stem, 2
        while f"{stem}.png" in named:
            stem, number = f"{frame.color.stem}-{number}", number + 1
        named[f"{stem}.png"] = frame
    return named


def _with_references(entries: Sequence[Entry], most: int) -> tuple[Entry, ...]:
    """Give every picture others of its folder as references, spread evenly over them."""
    if most < 1:
        return tuple(entries)
    listed = []
    for number, entry in enumerate(entries):
        others = [other.path for other in (*entries[number + 1 :], *entries[:number])]
        count = min(most, len(others))
        listed.append(Entry(**{**asdict(entry), "references": tuple(others[i * len(others) // count]
                                                                   for i in range(count))}))
    return tuple(listed)


# --- networks that the user brings -----------------------------------------------------------------------------------


def check_options(options: FrameOptions) -> None:
    """Look whether the extractors and networks are there. Raises UsageError or WeightsError."""
    known = (*SKETCHERS, NETWORK)
    for name in options.extractors:
        if name not in known:
            raise UsageError(f"there is no extractor {name}", hint=f"there are {', '.join(known)}")
    if NETWORK in options.extractors and options.lines_network is None:
        raise UsageError("the extractor network has no file", hint="--lines-network FILE.onnx")
    open_brought(options)


def open_brought(options: FrameOptions) -> Networks | None:
    """Open the networks of files that the user named; None if there are none. Raises WeightsError."""
    if options.lines_network is None and options.mask_network is None:
        return None
    from colorcli.model.onnx_networks import open_networks
    from colorcli.presets import load_preset

    changes = []
    if options.lines_network is not None:
        changes += ["lines.mode=extract", "lines.extractor=network", f"lines.network={options.lines_network}"]
    if options.mask_network is not None:
        changes += ["masks.source=network", f"masks.key_network={options.mask_network}"]
    return open_networks(load_preset("cel", changes), "cpu")


def _brought_lines(networks: Networks | None, color: Float) -> Float:
    assert networks is not None
    return networks.lines(color)


# --- which frames there are ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrameTree:
    """All color frames below a folder."""

    root: Path
    out: Path | None = None   # the training set that is made, where it lies below the folder

    @cached_property
    def folders(self) -> dict[Path, list[FrameSource]]:
        """The frames by their folder, both sorted by name. Raises DataError if there are none."""
        if not self.root.is_dir():
            raise DataError(f"there is no folder {self.root}", hint="give the folder that holds the color frames")
        found: dict[Path, list[FrameSource]] = {}
        been: set[Path] = set()
        for where, folders, files in os.walk(self.root, followlinks=True):
            folder = Path(where)
            if folder.resolve() in been:  # a link that leads back
                folders.clear()
                continue
            been.add(folder.resolve())
            folders[:] = sorted(name for name in folders if self._is_color(folder / name))
            frames = [folder / name for name in sorted(files) if _is_picture(name) and (folder / name).is_file()]
            if frames:
                found[folder] = [FrameSource(path, self._other(path, SKETCH_FOLDERS), self._other(path, MASK_FOLDERS))
                                 for path in frames]
        if not found:
            raise DataError(f"{self.root} holds no pictures", hint="frames are PNG, TIFF, TGA, JPEG or EXR files")
        return found

    def _is_color(self, folder: Path) -> bool:
        """Tell whether a folder may hold color frames: not if it has the line art or masks of a `color` beside it."""
        if folder.name.startswith(".") or (self.out is not None and folder.resolve() == self.out.resolve()):
            return False
        beside = folder.name in (*SKETCH_FOLDERS, *MASK_FOLDERS) and (folder.parent / "color").is_dir()
        return not beside

    def _other(self, path: Path, names: Sequence[str]) -> Path | None:
        """Find the file of the same name in the tree beside `color` that has one of the names."""
        parts = path.relative_to(self.root.parent).parts
        for place in range(len(parts) - 2, -1, -1):
            if parts[place] != "color":
                continue
            for name in names:
                folder = self.root.parent.joinpath(*parts[:place], name, *parts[place + 1 : -1])
                for suffix in (path.suffix, *CONTAINERS):
                    if (folder / f"{path.stem}{suffix}").is_file():
                        return folder / f"{path.stem}{suffix}"
        return None


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in CONTAINERS and not name.startswith(".") and Path(name).stem.lower() != "key"


def frame_blocks(
    root: Path, out: Path, options: FrameOptions, per_archive: int = 500
) -> list[FrameBlock]:
    """Part the frames below a folder into blocks: those of one folder, at most `per_archive` of them.

    Archives that another folder's frames are in keep their names. Raises DataError if there are no frames.
    """
    root = root.resolve()
    blocks = []
    taken = {zip_id.split(".")[0] for zip_id, source in sources(out).items() if source != str(root)}
    for folder, frames in FrameTree(root, out).folders.items():
        name = _slug(root.name, folder.relative_to(root))
        while name in taken:
            name += "-"
        taken.add(name)
        count = -(-len(frames) // per_archive)
        for number in range(count):
            some = frames[number * per_archive : (number + 1) * per_archive]
            blocks.append(FrameBlock(name if count == 1 else f"{name}.{number:03d}", root, tuple(some), options))
    return blocks


def _slug(root: str, folder: Path) -> str:
    """Make a file name of a folder's path: "show/sc01/color" becomes "show_sc01"."""
    parts = [root, *(part for part in folder.parts if part != "color")]
    return re.sub(r"[^\w-]+", "-", "_".join(parts)).strip("-") or "pictures"

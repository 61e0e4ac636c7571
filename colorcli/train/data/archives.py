"""The pictures of a training set on disk: a tree for each kind, in zip archives or plain folders, read and written."""

import contextlib
import io
import os
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colorcli.errors import FrameError, OutputError
from colorcli.files import open_plain
from colorcli.whole_file import whole_file

Kind = Literal["color", "sketch", "mask", "reference"]

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
# Pillow opens far more kinds, one of them (EPS) by running a program of the system.
PICTURE_KINDS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 89_000_000       # a picture with more is refused before it is decoded
MAX_BYTES = 512 * 1024 * 1024  # of one file in an archive, before it is unpacked
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # of every member that we write: the same pictures give the same archive


class PictureStore:
    """Reads the pictures of a training set: `<root>/<kind>/<zip-id>.zip` with members `<zip-id>/<file>`.

    A plain folder `<root>/<kind>/<zip-id>/` does as well. An archive is opened when it is first asked for, and of all
    those opened the `open_archives` used last stay open. Any thread may call; every process opens its own.
    """

    def __init__(self, root: Path, open_archives: int = 24) -> None:
        self.root = root
        self._open_archives = open_archives
        self._archives: OrderedDict[Path, zipfile.ZipFile] = OrderedDict()
        self._unusable: dict[Path, str] = {}
        self._lock = threading.Lock()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, object]:
        return {"root": self.root, "open_archives": self._open_archives}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def opened(self) -> int:
        """Count of archives that are open now."""
        return len(self._archives)

    def close(self) -> None:
        """Close all archives; the next picture opens its own again."""
        with self._lock:
            while self._archives:
                self._archives.popitem()[1].close()

    def has(self, kind: Kind) -> bool:
        """Tell whether there is a tree of this kind at all."""
        return (self.root / kind).is_dir()

    def color(self, item: str, kind: Kind = "color") -> Image.Image:
        """Read a picture as 8-bit RGB; alpha is laid over white paper. Raises FrameError."""
        return _over_white(self._decoded(kind, item))

    def gray(self, item: str, kind: Kind = "mask") -> Image.Image:
        """Read a picture as 8-bit gray. Raises FrameError."""
        picture = self._decoded(kind, item)
        return picture if picture.mode == "L" else _over_white(picture).convert("L")

    def size(self, item: str, kind: Kind = "sketch") -> tuple[int, int]:
        """Read only the header of a picture and give (width, height). Raises FrameError."""
        with self._stream(kind, item) as stream:
            return _opened(stream, f"{kind}/{item}").size

    def archives(self, kind: Kind) -> list[str]:
        """List the ids of all archives (and plain folders) of a kind, sorted; "" for pictures beside them."""
        tree = self.root / kind
        found = {file.relative_to(tree).with_suffix("").as_posix() for file in tree.rglob("*.zip")}
        for folder, _, files in os.walk(tree):
            if any(Path(name).suffix.lower() in PICTURE_SUFFIXES for name in files):
                found.add(Path(folder).relative_to(tree).as_posix())
        return sorted("" if name == "." else name for name in found)

    def members(self, kind: Kind, archive: str) -> list[str]:
        """List the item paths of all pictures in an archive or a plain folder. Raises FrameError."""
        path = self.root / kind / f"{archive}.zip"
        if archive and path.is_file():
            with self._lock:
                names = self._archive(path).namelist()
            return [name for name in names if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES]
        folder = self.root / kind / archive
        try:
            files = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)
        except OSError as problem:
            raise FrameError(f"{kind}/{archive} cannot be read: {problem.strerror}") from None
        return [f"{archive}/{name}" if archive else name for name in files]

    def _decoded(self, kind: Kind, item: str) -> Image.Image:
        with self._stream(kind, item) as stream:
            try:
                data = stream.read(MAX_BYTES + 1)
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as problem:
                raise FrameError(f"{kind}/{item} is damaged in its archive: {problem}") from None
        if len(data) > MAX_BYTES:
            raise FrameError(f"{kind}/{item} is larger than {MAX_BYTES // 2**20} MB")
        picture = _opened(io.BytesIO(data), f"{kind}/{item}")
        try:
            picture.load()
        except Exception as problem:  # damaged bytes make the decoders raise whatever they stumble over
            raise FrameError(f"{kind}/{item} cannot be decoded: {problem}") from None
        return picture

    @contextlib.contextmanager
    def _stream(self, kind: Kind, item: str) -> Iterator[IO[bytes]]:
        """Open the bytes of a picture, wherever they are. Raises FrameError."""
        where = PurePosixPath(item)
        if where.is_absolute() or ".." in where.parts or "\\" in item or not item:
            raise FrameError(f"{kind}/{item} would lie outside {self.root.name}")
        archive = self.root / kind / f"{where.parent}.zip"
        if str(where.parent) != "." and archive.is_file():
            with self._lock:
                stream = self._member(archive, kind, item)
        else:
            stream = self._plain(kind, where)
        with stream:
            yield stream

    def _member(self, archive: Path, kind: Kind, item: str) -> IO[bytes]:
        opened = self._archive(archive)
        try:
            info = opened.getinfo(item)
            if info.file_size > MAX_BYTES:
                raise FrameError(f"{kind}/{item} is larger than {MAX_BYTES // 2**20} MB")
            # The archive may be closed while this stream is read: the stream holds the file itself open.
            return opened.open(info)
        except KeyError:
            raise FrameError(f"{kind}/{archive.name} has no {item}") from None
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as problem:
            raise FrameError(f"{kind}/{item} cannot be unpacked: {problem}") from None

    def _archive(self, path: Path) -> zipfile.ZipFile:
        if self._process != os.getpid():  # a forked process would share the position in its parent's files
            self._archives.clear()
            self._process = os.getpid()
        if path in self._archives:
            self._archives.move_to_end(path)
            return self._archives[path]
        name = path.relative_to(self.root).as_posix()
        if path in self._unusable:
            raise FrameError(self._unusable[path])
        try:
            opened = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as problem:
            whole = not isinstance(problem, zipfile.BadZipFile)
            reason = f"cannot be opened: {problem}" if whole else "is no whole zip archive"
            self._unusable[path] = f"{name} {reason}"
            raise FrameError(self._unusable[path]) from None
        self._archives[path] = opened
        while len(self._archives) > self._open_archives:
            self._archives.popitem(last=False)[1].close()
        return opened

    def _plain(self, kind: Kind, item: PurePosixPath) -> IO[bytes]:
        path = self.root / kind / item
        try:
            return open_plain(path)
        except FileNotFoundError:
            # In plain folders the color may be a JPEG and its sketch a PNG of the same name.
            for other in sorted(path.parent.glob(f"{_literal(path.stem)}.*")) if path.parent.is_dir() else ():
                if other.suffix.lower() in PICTURE_SUFFIXES:
                    return open_plain(other)
            missing = f"{kind}/{item.parent}.zip" if not path.parent.is_dir() else f"{kind}/{item}"
            raise FrameError(f"{missing} is missing") from None
        except OSError as problem:
            raise FrameError(f"{kind}/{item} cannot be read: {problem.strerror}") from None


def _literal(name: str) -> str:
    """Take away what a name would mean as a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _opened(stream: IO[bytes], name: str) -> Image.Image:
    """Read the header of a picture. Raises FrameError."""
    try:
        picture = Image.open(stream, formats=PICTURE_KINDS)
    except Exception as problem:  # as above: what a damaged header raises depends on the format
        reason = "is no picture" if "cannot identify" in str(problem) else f"cannot be read: {problem}"
        raise FrameError(f"{name} {reason}") from None
    if picture.width * picture.height > MAX_PIXELS:
        raise FrameError(f"{name} has {picture.width}x{picture.height} pixels, more than {MAX_PIXELS // 10**6} million")
    return picture


def _over_white(picture: Image.Image) -> Image.Image:
    """Bring any picture to 8-bit RGB; what is transparent becomes white."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I;16") or picture.mode == "I":
        values = np.asarray(picture).astype(np.float32) / 257
        return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        straight = picture.convert("RGBA")
        paper = Image.new("RGBA", straight.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, straight).convert("RGB")
    return picture.convert("RGB")


# --- writing -----------------------------------------------------------------------------------------------------


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Encode (H, W, 3) RGB or (H, W) gray as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


class ArchiveWriter:
    """The archives of one id that are being written, one for each kind."""

    def __init__(self, archives: dict[Kind, zipfile.ZipFile], zip_id: str) -> None:
        self._archives = archives
        self._zip_id = zip_id

    def add(self, kind: Kind, name: str, data: bytes) -> None:
        """Put a file into the archive of its kind, as `<zip-id>/<name>`."""
        # Pictures are compressed already.
        self._archives[kind].writestr(zipfile.ZipInfo(f"{self._zip_id}/{name}", ZIP_DATE), data, zipfile.ZIP_STORED)


@contextlib.contextmanager
def write_archives(root: Path, zip_id: str, kinds: Sequence[Kind]) -> Iterator[ArchiveWriter]:
    """Write `<root>/<kind>/<zip-id>.zip` for every kind; on leaving each is whole in its place, or as it was before.

    Raises OutputError if the disk is full or the folder cannot be written.
    """
    with contextlib.ExitStack() as files:
        archives: dict[Kind, zipfile.ZipFile] = {}
        for kind in kinds:
            path = root / kind / f"{zip_id}.zip"
            make_folder(path.parent)
            temporary = files.enter_context(whole_file(path))
            archives[kind] = files.enter_context(zipfile.ZipFile(temporary, "w", allowZip64=True))
        yield ArchiveWriter(archives, zip_id)


def make_folder(folder: Path) -> None:
    """Make a folder that is to be written into. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        message = f"{folder} cannot be made: {problem.strerror}"
        raise OutputError(message, hint="choose another folder with -o") from None

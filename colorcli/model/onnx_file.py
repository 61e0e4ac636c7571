"""An ONNX file looked at from outside: is it whole, what goes into it and comes out, whose is it. Nothing is run.

Only the frame of the file is read (protocol buffer wire format, onnx.proto of ONNX 1.x), so this takes milliseconds for
a gigabyte of weights, needs no library, and a dry run on a farm's submitting machine can do it.
"""

import hashlib
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from colorcli.errors import WeightsError
from colorcli.files import file_digest, open_plain

# Numbers of the fields of onnx.proto that are looked at.
GRAPH, METADATA, FUNCTION = 7, 14, 25                # of a model
NODE, INITIALIZER, OUTPUT, SPARSE = 1, 5, 12, 15     # of a graph
NODE_INPUT, NODE_OUTPUT, NODE_KIND, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 4, 5, 7
FUNCTION_NODE, FUNCTION_ATTRIBUTE = 7, 11            # of a function; the attribute is for calls that give none
TENSOR_EXTERNAL = 13
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
MOST_NESTED = 16   # graphs within graphs: the branches of an If, the body of a Loop
VARINT, EIGHT_BYTES, SIZED, FOUR_BYTES = 0, 1, 2, 5  # wire types

STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # what onnxruntime itself knows
PASS_ON = ("Cast", "Identity", "Resize", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Clip", "Concat")

# How files of another kind begin, and what they are.
OTHER_FILES = {
    b"version https://git-lfs": "a Git LFS pointer to a file that was not fetched (git lfs pull)",
    b"<!DOCTYPE": "a web page",
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"PK\x03\x04": "a zip archive or PyTorch file",
    b"\x80\x02": "a PyTorch file",
    b"\x89PNG": "a picture",
    b"\x89HDF": "an HDF5 file",
}


@dataclass(frozen=True)
class KnownFile:
    """A published network, told by its name."""

    license: str
    kind: str | None = None        # "isnet" or "birefnet", if it finds characters
    values: str | None = None      # what a line extractor wants to see: a key of `onnx_networks.VALUES`


# By what a name begins with or holds, the first that fits counts. "-" and "_" are alike, capitals do not matter.
KNOWN_FILES: dict[str, KnownFile] = {
    "rmbg-2": KnownFile("CC-BY-NC-4.0", "birefnet"),
    "rmbg2": KnownFile("CC-BY-NC-4.0", "birefnet"),
    "rmbg-v2": KnownFile("CC-BY-NC-4.0", "birefnet"),
    "rmbg-1": KnownFile("bria-rmbg-1.4 (non-commercial)", "birefnet"),
    "rmbg": KnownFile("non-commercial (BRIA)", "birefnet"),
    "birefnet": KnownFile("MIT", "birefnet"),
    "isnet-general": KnownFile("Apache-2.0", "birefnet"),
    "isnet-anime": KnownFile("Apache-2.0", "isnet"),
    "isnetis": KnownFile("Apache-2.0", "isnet"),
    "u2net": KnownFile("Apache-2.0", "birefnet"),
    "silueta": KnownFile("Apache-2.0", "birefnet"),
    "anime2sketch": KnownFile("MIT", values="-1..1"),
}
NOT_STATED = "not stated"


@dataclass(frozen=True)
class OnnxFile:
    """What a file says of itself."""

    path: Path
    external: tuple[Path, ...]         # files beside it that hold its weights
    metadata: Mapping[str, str]
    endings: Mapping[str, str]         # output -> the operation its values come from, "Sigmoid"; "" if unknown
    known: KnownFile | None = field(default=None)

    @property
    def license(self) -> str:
        """The license: of the file's own metadata, else of the published file of this name, else "not stated"."""
        return self.metadata.get("license", "").strip() or (self.known.license if self.known else NOT_STATED)

    @property
    def license_from(self) -> str:
        """Where the license is known from: "file", "name" or "nowhere"."""
        return "file" if self.metadata.get("license", "").strip() else "name" if self.known else "nowhere"

    @property
    def license_in_words(self) -> str:
        """The license for a person; where it is known by the file's name alone, that is said."""
        return self.license + (" (by its name; the file does not say)" if self.license_from == "name" else "")

    def sha256(self) -> str:
        """SHA-256 of the file; of files with their weights beside them, over all of them. Raises WeightsError."""
        try:
            digests = [file_digest(path) for path in (self.path, *self.external)]
        except OSError as error:
            raise WeightsError(f"{self.path} cannot be read: {error.strerror}") from error
        return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def read_onnx_file(path: Path) -> OnnxFile:
    """Look at an ONNX file. Raises WeightsError if it is missing, no ONNX file, cut off, or asks for foreign code."""
    try:
        with open_plain(path) as file:
            if not file.read(1):
                raise WeightsError(f"{path} is empty", hint="copy the network again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _read(path, content)
    except FileNotFoundError:
        raise WeightsError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise WeightsError(f"{path} is a folder, not an ONNX file") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error


def known_file(name: str) -> KnownFile | None:
    """The published network that a file name belongs to, if it is a well-known one."""
    plain = Path(name).stem.lower().replace("_", "-")
    return next((known for part, known in KNOWN_FILES.items() if part in plain), None)


def _read(path: Path, content: mmap.mmap) -> OnnxFile:
    for beginning, what in OTHER_FILES.items():
        if content[: len(beginning)] == beginning:
            raise WeightsError(f"{path} is {what}, not an ONNX file", hint="give the network as an .onnx file")
    metadata: dict[str, str] = {}
    external: dict[str, None] = {}
    endings: dict[str, str] = {}
    domains: set[str] = set()
    has_graph = False
    try:
        for number, start, end in _fields(content, 0, len(content)):
            if number == METADATA:
                name, value = _pair(content, start, end)
                metadata[name] = value
            elif number == GRAPH:
                has_graph = True
                endings = _read_graph(content, start, end, external, domains)
            elif number == FUNCTION:
                for part, first, last in _fields(content, start, end):
                    if part == FUNCTION_NODE:
                        _read_node(content, first, last, external, domains)
                    elif part == FUNCTION_ATTRIBUTE:
                        _read_attribute(content, first, last, external, domains)
    except _CutOff as cut:
        if cut.wanted is None or cut.number > METADATA:
            raise WeightsError(f"{path} is not an ONNX file", hint="give the network as an .onnx file") from None
        raise WeightsError(
            f"{path} is cut off: it has {len(content)} bytes of at least {cut.wanted}", hint="copy or download it again"
        ) from None
    except (ValueError, UnicodeDecodeError):
        raise WeightsError(f"{path} is not an ONNX file", hint="give the network as an .onnx file") from None
    if not has_graph:
        raise WeightsError(f"{path} is not an ONNX file: it holds no network", hint="copy or download it again")
    foreign = sorted(domains - set(STANDARD_DOMAINS))
    if foreign:
        raise WeightsError(
            f"{path} needs operations of {', '.join(foreign)}, and colorcli runs only those of ONNX and onnxruntime",
            hint="export the network again without custom operations",
        )
    return OnnxFile(path, _beside(path, external), metadata, endings, known_file(path.name))


def _read_graph(
    content: mmap.mmap, start: int, end: int, external: dict[str, None], domains: set[str], depth: int = 0
) -> dict[str, str]:
    """Collect files and domains that a graph names, and tell for each output which operation gives its values."""
    made_by: dict[str, tuple[str, str]] = {}  # value -> (operation, its first input)
    outputs: list[str] = []
    for number, first, last in _fields(content, start, end):
        if number == NODE:
            made_by.update(_read_node(content, first, last, external, domains, depth))
        elif number == INITIALIZER:
            _read_tensor(content, first, last, external)
        elif number == SPARSE:
            _read_sparse(content, first, last, external)
        elif number == OUTPUT:
            outputs += [_text(content, a, b) for part, a, b in _fields(content, first, last) if part == 1]
    endings = {}
    for output in outputs:
        kind, before = made_by.get(output, ("", ""))
        for _ in range(len(made_by)):
            if kind not in PASS_ON or before not in made_by:
                break
            kind, before = made_by[before]
        endings[output] = kind
    return endings


def _read_node(
    content: mmap.mmap, start: int, end: int, external: dict[str, None], domains: set[str], depth: int = 0
) -> dict[str, tuple[str, str]]:
    """Give what a node makes: value -> (operation, its first input). Raises ValueError for graphs nested too deeply."""
    kind, domain, inputs, results = "", "", [], []
    for part, first, last in _fields(content, start, end):
        if part == NODE_KIND:
            kind = _text(content, first, last)
        elif part == NODE_DOMAIN:
            domain = _text(content, first, last)
        elif part == NODE_INPUT:
            inputs.append(_text(content, first, last))
        elif part == NODE_OUTPUT:
            results.append(_text(content, first, last))
        elif part == NODE_ATTRIBUTE:
            _read_attribute(content, first, last, external, domains, depth)
    domains.add(domain)
    return dict.fromkeys(results, (kind, inputs[0] if inputs else ""))


def _read_attribute(
    content: mmap.mmap, start: int, end: int, external: dict[str, None], domains: set[str], depth: int = 0
) -> None:
    """Collect files and domains that an attribute names. Raises ValueError for graphs nested too deeply."""
    for number, first, last in _fields(content, start, end):
        if number in ATTRIBUTE_GRAPHS:
            if depth >= MOST_NESTED:
                raise ValueError(depth)
            _read_graph(content, first, last, external, domains, depth + 1)
        elif number in ATTRIBUTE_TENSORS:
            _read_tensor(content, first, last, external)
        elif number in ATTRIBUTE_SPARSE:
            _read_sparse(content, first, last, external)


def _read_tensor(content: mmap.mmap, start: int, end: int, external: dict[str, None]) -> None:
    """Collect the file that a tensor lies in, if it lies in one of its own."""
    for part, first, last in _fields(content, start, end):
        if part == TENSOR_EXTERNAL:
            name, value = _pair(content, first, last)
            if name == "location":
                external[value] = None


def _read_sparse(content: mmap.mmap, start: int, end: int, external: dict[str, None]) -> None:
    """The same for the values and the places of a sparse tensor."""
    for part, first, last in _fields(content, start, end):
        if part in (1, 2):
            _read_tensor(content, first, last, external)


def _beside(path: Path, names: Mapping[str, None]) -> tuple[Path, ...]:
    """The files that hold a network's weights. Raises WeightsError if one is missing or lies elsewhere."""
    files = []
    for name in sorted(names):
        for pure in (PurePosixPath(name), PureWindowsPath(name)):
            if pure.is_absolute() or pure.drive or ".." in pure.parts:
                raise WeightsError(
                    f"{path} wants to read its weights from {name}, outside its own folder: refused",
                    hint="take such a file only from somebody you trust, and save it again as one file",
                )
        file = path.parent / name
        if not file.is_file():
            raise WeightsError(
                f"{path} keeps its weights in {name}, which is not beside it", hint="copy both files into one folder"
            )
        files.append(file)
    return tuple(files)


class _CutOff(Exception):
    """A field reaches beyond the end of what holds it."""

    def __init__(self, number: int, wanted: int | None) -> None:
        super().__init__(number)
        self.number = number
        self.wanted = wanted


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message as (number, start, end of its bytes). Raises ValueError, _CutOff for what is none."""
    at = start
    while at < end:
        tag, at = _varint(content, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            first = at
            _, at = _varint(content, at, end)
        elif wire == SIZED:
            size, first = _varint(content, at, end)
            at = first + size
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            first, at = at, at + (8 if wire == EIGHT_BYTES else 4)
        else:
            raise ValueError(wire)
        if number == 0:
            raise ValueError(number)
        if at > end:
            raise _CutOff(number, at)
        yield number, first, at


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A whole number of 7 bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _CutOff(0, None)
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError(value)


def _text(content: mmap.mmap, start: int, end: int) -> str:
    return content[start:end].decode()


def _pair(content: mmap.mmap, start: int, end: int) -> tuple[str, str]:
    """A key and its value, both text."""
    parts = {number: _text(content, a, b) for number, a, b in _fields(content, start, end)}
    return parts.get(1, ""), parts.get(2, "")

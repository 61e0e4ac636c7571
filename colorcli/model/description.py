"""What there is to say about a model, a published file or a network, without running it. No torch."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from colorcli.errors import WeightsError
from colorcli.files import file_digest, read_json
from colorcli.model.licenses import meaning_of
from colorcli.model.onnx_file import read_onnx_file
from colorcli.model.single_file import KIND_IN_WORDS, SUFFIX, TensorEntry, kind_of, read_header
from colorcli.model.weights import (
    DIFFUSERS_INDEX,
    LIST_NAME,
    UNKNOWN_LICENSE,
    WeightsFile,
    family_of,
    find_weights,
    installed_models,
    models_folder,
    require_whole,
    weights_digest,
)
from colorcli.variants import VARIANTS

ONNX = ".onnx"
# How the published files call their parts, and how we do.
PUBLISHED_PARTS: Mapping[str, str] = {
    "model.diffusion_model.": "unet",
    "control_encoder.": "sketch_encoder",
    "proj.": "projection",
    "bg_encoder.": "reference_net",
    "first_stage_model.": "vae",
    "cond_stage_model.": "image_encoder",
    "img_embedder.": "tagger",
    "model_ema.": "moving averages (unused)",
}
# Where v2 differs; the first that fits counts.
PUBLISHED_V2_PARTS: Mapping[str, str] = {
    "bg_encoder.": "background_encoder",
    "cond_stage_model.transformer.": "text_encoder",
}
ADAPTER_MARK = ".lora_"


@dataclass(frozen=True)
class Part:
    """One network of a model."""

    name: str
    kind: str                    # its class, where a folder names it
    values: int                  # count of its numbers
    bytes: int
    dtypes: tuple[str, ...]      # as safetensors calls them: "F16", "BF16", "F32"


@dataclass(frozen=True)
class Description:
    """All there is to say about one model."""

    name: str
    path: str
    family: str                  # one of VARIANTS, or in words what else it is
    license: str                 # SPDX id
    bytes: int
    digest: str                  # SHA-256, hex: of the recorded hashes of a folder, or of the file
    parts: tuple[Part, ...]
    files: Mapping[str, WeightsFile] = field(default_factory=dict)   # path inside a folder -> size and hash
    canvas: str | None = None
    source: Mapping[str, Any] | None = None
    remarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def license_means(self) -> str:
        return meaning_of(self.license)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "license_means": self.license_means}


@dataclass(frozen=True)
class ListedModel:
    """One line of the list of models."""

    name: str
    family: str
    state: str            # installed, missing, damaged
    bytes: int | None
    license: str
    path: str | None
    problem: str | None = None
    hint: str | None = None


def list_models() -> list[ListedModel]:
    """List the models that colorcli knows, and what else lies in the models folder."""
    names = {**dict.fromkeys(VARIANTS), **dict.fromkeys(installed_models())}
    return [_listed(name) for name in names]


def _listed(name: str) -> ListedModel:
    variant = VARIANTS.get(name)
    license = variant.license if variant else UNKNOWN_LICENSE
    try:
        folder = find_weights(name)
    except WeightsError as failure:
        return ListedModel(name, name, "missing", None, license, None, failure.message, failure.hint)
    try:
        listed = require_whole(folder)
    except WeightsError as failure:
        return ListedModel(name, name, "damaged", None, license, str(folder), failure.message, failure.hint)
    return ListedModel(name, listed.model, "installed", listed.total_bytes, listed.license, str(folder))


def describe(model: str) -> Description:
    """Describe a model by name or folder, a single .safetensors file, or an ONNX network.

    Raises WeightsError if it is not there, is cut off, or is nothing of the kind.
    """
    path = Path(model).expanduser()
    if path.suffix.lower() == ONNX:
        return _describe_network(path)
    found = find_weights(model)
    return _describe_file(found) if found.is_file() else _describe_folder(model, found)


def _describe_folder(name: str, folder: Path) -> Description:
    listed = require_whole(folder)
    family = family_of(str(folder)) if name not in VARIANTS else listed.model
    index = _read_json(folder / DIFFUSERS_INDEX)
    parts = []
    for part, made_of in index.items():
        files = sorted((folder / part).glob(f"*{SUFFIX}")) if isinstance(made_of, list) else []
        if files:
            entries = [entry for file in files for entry in read_header(file).values()]
            parts.append(_part(part, str(made_of[1]), entries))
    source = recorded_source(folder) or None
    return Description(
        name=name, path=str(folder), family=family, license=listed.license, bytes=listed.total_bytes,
        digest=weights_digest(folder), parts=tuple(parts), files=listed.files,
        canvas=canvas_in_words(family), source=source,
    )


def _describe_file(file: Path) -> Description:
    header = read_header(file)
    kind = kind_of(header)
    groups: dict[str, list[TensorEntry]] = {}
    for name, entry in header.items():
        groups.setdefault(_part_of(name, kind), []).append(entry)
    license = VARIANTS[kind].license if kind in VARIANTS else UNKNOWN_LICENSE
    return Description(
        name=file.name, path=str(file), family=kind if kind in VARIANTS else KIND_IN_WORDS[kind], license=license,
        bytes=file.stat().st_size, digest=file_digest(file),
        parts=tuple(_part(name, "", entries) for name, entries in groups.items()), canvas=canvas_in_words(kind),
        remarks={"license": "as published with files of this family; the file itself names none"}
        if kind in VARIANTS else {},
    )


def _describe_network(path: Path) -> Description:
    read = read_onnx_file(path)
    size = sum(file.stat().st_size for file in (path, *read.external))
    known = read.known
    means = "a network that finds characters" if known and known.kind else "a network for masks or lines"
    return Description(
        name=path.name, path=str(path), family=f"{means} (ONNX)", license=known.license if known else UNKNOWN_LICENSE,
        bytes=size, digest=file_digest(path), parts=(),
        remarks={"kind": known.kind} if known and known.kind else {},
    )


def canvas_in_words(family: str) -> str | None:
    """Say how large the pictures are that a family works on; None for what is no family."""
    variant = VARIANTS.get(family)
    if variant is None:
        return None
    side = round(variant.canvas_area**0.5)
    return (f"about {side} x {side} pixels, sides {variant.min_side} to {variant.max_side}, "
            f"multiples of {variant.multiple_of}")


def partial_downloads() -> tuple[Path, int]:
    """Give the folder of downloads that are kept or not whole yet, and how many bytes it holds."""
    folder = models_folder() / "downloads"
    return folder, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def recorded_source(folder: Path) -> dict[str, Any]:
    """Read what `weights.json` says of where a model came from; empty if it says nothing."""
    source = _read_json(folder / LIST_NAME).get("source")
    return source if isinstance(source, dict) else {}


def _part_of(name: str, kind: str) -> str:
    if ADAPTER_MARK in name:
        return "adapter"
    if kind in VARIANTS and "." not in name:
        return "noise schedule (computed)"   # tables of one number a step
    parts = [*(PUBLISHED_V2_PARTS.items() if kind == "v2" else ()), *PUBLISHED_PARTS.items()]
    return next((part for prefix, part in parts if name.startswith(prefix)), name.split(".")[0])


def _part(name: str, kind: str, entries: Iterable[TensorEntry]) -> Part:
    listed = list(entries)
    values = sum(math.prod(entry.shape) for entry in listed)
    dtypes = sorted({entry.dtype for entry in listed})
    return Part(name, kind, values, sum(entry.bytes for entry in listed), tuple(dtypes))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

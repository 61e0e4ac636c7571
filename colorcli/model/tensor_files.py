"""Tensors streamed from one file to others, so that a model of any size needs the memory of one tensor."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from colorcli.errors import WeightsError
from colorcli.model.file_parts import DTYPES, Part
from colorcli.model.single_file import SUFFIX
from colorcli.model.weights import WeightsFile

COPY_BYTES = 16 * 1024 * 1024
DTYPE_NAMES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}

Advance = Callable[[str, int], None]    # what is being done, bytes more
Create = Callable[[Path], BinaryIO]     # opens a new file for writing


def create_file(path: Path) -> BinaryIO:
    """Open a new file for writing."""
    return path.open("wb")


def read_tensor(part: Part, ours: str, dtype: str | None) -> Tensor:
    """Read one of our tensors from where it is.

    dtype: of the format, "F16"; None keeps that of the file. Raises WeightsError if it holds what is no number.
    """
    origin = part.origins[ours]
    entry = part.entries[origin.name]
    start, length = entry.start, entry.bytes
    if origin.piece is not None:
        length //= origin.piece[1]
        start += origin.piece[0] * length
    buffer = bytearray(length)
    try:
        with entry.file.open("rb") as opened:
            opened.seek(start)
            read = opened.readinto(buffer)
    except OSError as failure:
        raise WeightsError(f"{entry.file} cannot be read: {failure.strerror}", hint="copy it again") from None
    if read != length:
        raise WeightsError(f"{entry.file.name} is cut off in {origin.name}", hint="download or copy it again")
    tensor = torch.frombuffer(buffer, dtype=DTYPES[entry.dtype])
    shape = tuple(part.network.get_parameter(ours).shape)
    tensor = tensor.view(shape[::-1]).mT.contiguous() if origin.transposed else tensor.view(shape)
    if dtype is not None and dtype != entry.dtype:
        tensor = tensor.to(DTYPES[dtype])
    if not torch.isfinite(tensor).all():
        told = "does not fit into " + _word_of(dtype) if dtype not in (None, entry.dtype) else "holds infinity or NaN"
        raise WeightsError(f"{part.prefix}{origin.name} of {entry.file.name} {told}",
                           hint="--dtype bf16 has the range of fp32" if dtype == "F16" else "download it again")
    return tensor


def _word_of(dtype: str | None) -> str:
    return next((word for word, name in DTYPE_NAMES.items() if name == dtype), str(dtype))


def dtype_of(part: Part) -> str | None:
    """Give the type of a part as users write it, if all its tensors share one."""
    kinds = {part.entries[origin.name].dtype for origin in part.origins.values()}
    return _word_of(kinds.pop()) if len(kinds) == 1 else None


def tensor_bytes(part: Part, ours: str, dtype: str | None) -> int:
    """Give the bytes of one of our tensors as it is written; dtype as for `read_tensor`."""
    kept = part.entries[part.origins[ours].name].dtype
    return math.prod(part.network.get_parameter(ours).shape) * DTYPES[dtype or kept].itemsize


def hash_file(file: Path, advance: Advance) -> str:
    """Give the SHA-256 of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(COPY_BYTES):
            digest.update(block)
            advance("reading", len(block))
    return digest.hexdigest()


def write_part(
    part: Part, folder: Path, dtype: str | None, shard_bytes: int, advance: Advance, create: Create = create_file
) -> dict[str, WeightsFile]:
    """Write the tensors of a part into a folder that is there, in files of at most `shard_bytes`; give their hashes.

    dtype: of the format, "F16"; None keeps that of each tensor. advance: told of every tensor.
    """
    shards = _shards(part, dtype, shard_bytes)
    stem = part.file_stem
    names = [f"{stem}-{i:05d}-of-{len(shards):05d}{SUFFIX}" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [stem + SUFFIX]
    hashed = {
        name: write_shard(folder / name, part, tensors, dtype, advance, create)
        for name, tensors in zip(names, shards, strict=True)
    }
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(tensor_bytes(part, name, dtype) for name in part.origins)},
                 "weight_map": {tensor: name for name, held in zip(names, shards, strict=True) for tensor in held}}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / f"{stem}{SUFFIX}.index.json").write_text(text, encoding="utf-8")
    return hashed


def _shards(part: Part, dtype: str | None, limit: int) -> list[list[str]]:
    """Divide the tensors of a part, in their order, into files of at most `limit` bytes."""
    shards: list[list[str]] = [[]]
    size = 0
    for name in part.origins:
        more = tensor_bytes(part, name, dtype)
        if shards[-1] and size + more > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += more
    return shards


def write_shard(
    path: Path, part: Part, tensors: Sequence[str], dtype: str | None, advance: Advance, create: Create = create_file
) -> WeightsFile:
    """Write some tensors of a part into one .safetensors file, one after the other; give its hash.

    The library's own writer wants the whole file in memory, and then copies it.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    # Wide types first, so that every tensor begins at a multiple of its own size.
    ordered = sorted(tensors, key=lambda name: -DTYPES[dtype or part.entries[part.origins[name].name].dtype].itemsize)
    place = 0
    for name in ordered:
        size = tensor_bytes(part, name, dtype)
        header[name] = {"dtype": dtype or part.entries[part.origins[name].name].dtype,
                        "shape": list(part.network.get_parameter(name).shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with create(path) as opened:
        for block in (len(text).to_bytes(8, "little"), text):
            opened.write(block)
            digest.update(block)
        for name in ordered:
            data = read_tensor(part, name, dtype).flatten().view(torch.uint8).numpy().data
            opened.write(data)
            digest.update(data)
            advance(f"writing {part.folder}", len(data))
        opened.flush()
        os.fsync(opened.fileno())
    with safe_open(path, "pt") as check:   # that the library reads it
        assert set(check.keys()) == set(tensors), path
    return WeightsFile(digest.hexdigest(), path.stat().st_size)

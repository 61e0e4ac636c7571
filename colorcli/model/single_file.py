"""A weights file looked at from outside: what its header lists, and what kind of model that is. No torch.

A .safetensors file begins with the name, type, shape and place of every tensor; nothing in it can run.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from colorcli.errors import WeightsError
from colorcli.files import open_plain, parse_json, read_json

SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
METADATA = "__metadata__"      # beside the tensors: what the file says of itself
LARGEST_HEADER = 100_000_000  # bytes, as the format allows
MOST_BYTES = 2**50            # of a file; larger numbers in a list are no places in it
BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
            "U16": 2, "U32": 4, "U64": 8, "C64": 8, "F8_E4M3": 1, "F8_E5M2": 1}
CONVERT = (
    "take the .safetensors file that its authors publish, or convert it: python -c \"import torch; "
    "from safetensors.torch import save_file; s = torch.load('IN', map_location='cpu', weights_only=True); "
    "save_file({k: v.clone().contiguous() for k, v in s.get('state_dict', s).items() "
    "if isinstance(v, torch.Tensor)}, 'OUT.safetensors')\" (weights_only keeps it from running anything)"
)

Kind = Literal["xl", "xlv2", "v2", "clip", "tagger", "adapter", "lora", "sdxl", "older", "diffusers", "unknown"]
FAMILIES = ("xl", "xlv2", "v2")
KIND_IN_WORDS: Mapping[Kind, str] = {
    "xl": "an xl model (sdxl-*)",
    "xlv2": "an xlv2 model (xlv2-*)",
    "v2": "a v2 model (the SD 2.1 family, v2-*)",
    "clip": "a CLIP tower",
    "tagger": "a tagger",
    "adapter": "the background adapter alone, without the base model it changes",
    "lora": "a LoRA file, which changes a model and is none",
    "sdxl": "a text-to-image SDXL model, which colors no line art",
    "older": "an SD model without the background and style encoders of v2, such as mult-* or switch-*",
    "diffusers": "one network of a diffusers folder",
    "unknown": "no model that colorcli knows",
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file, as the header lists it."""

    dtype: str               # of the format: "F32", "F16", "BF16", ...
    shape: tuple[int, ...]
    file: Path
    start: int               # of its first byte in the file
    bytes: int


Header = Mapping[str, TensorEntry]


def read_header(file: Path) -> dict[str, TensorEntry]:
    """List the tensors of a .safetensors file without reading them.

    Raises WeightsError if the file is not there, is cut off, or is something else, such as a pickle: that one is never
    opened, because loading a pickle runs whatever program it holds.
    """
    text, start, size = _list_in(file)
    try:
        content = parse_json(text)
        content.pop(METADATA, None)
        return {name: _entry(file, start, size, name, described) for name, described in content.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(file) from None


def read_metadata(file: Path) -> dict[str, str]:
    """Read what a .safetensors file says about itself beside its tensors. Raises WeightsError as `read_header` does."""
    text, _, _ = _list_in(file)
    try:
        said = parse_json(text).get(METADATA) or {}
        return {str(name): str(value) for name, value in said.items()}
    except (ValueError, AttributeError):
        raise _damaged(file) from None


def _list_in(file: Path) -> tuple[bytes, int, int]:
    """The list of tensors at the begin of a file as JSON, where it ends, and the size of the file in bytes."""
    if file.suffix.lower() in PICKLES:
        raise _pickle(file)
    try:
        size = file.stat().st_size
        with open_plain(file) as opened:
            start = opened.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or not 2 <= length <= min(size - 8, LARGEST_HEADER):
                raise _not_safetensors(file, start + opened.read(56), size)
            return opened.read(length), 8 + length, size
    except OSError as failure:
        raise WeightsError(f"{file} cannot be read: {failure.strerror}", hint="check the path and its permissions"
                           ) from None


def _damaged(file: Path) -> WeightsError:
    return WeightsError(f"{file.name} is damaged: its list of tensors cannot be read", hint="copy it again")


def header_at(path: Path) -> dict[str, TensorEntry]:
    """List the tensors of a file, of all shards of an index, or of the one model in a folder.

    Raises WeightsError if there is none, or several to choose from.
    """
    if not path.exists():
        raise WeightsError(f"there is no {path}", hint="check the path")
    if path.is_dir():
        indexes = sorted(path.glob(f"*{SUFFIX}.index.json"))
        files = sorted(path.glob(f"*{SUFFIX}"))
        known = [file for file in files if file.stem in ("model", "diffusion_pytorch_model")]
        choice = known[:1] or indexes[:1] or (files if len(files) == 1 else [])
        if not choice:
            pickles = [file.name for file in sorted(path.iterdir()) if file.suffix in (".bin", ".pt", ".pth")]
            message = f"{path} holds {len(files)} {SUFFIX} files" + (f", and {pickles[0]}" if pickles else "")
            raise WeightsError(message, hint=f"give the {SUFFIX} file itself")
        path = choice[0]
    elif match := re.match(r"(.*)-\d{5}-of-\d{5}$", path.stem):
        index = path.with_name(f"{match[1]}{SUFFIX}.index.json")
        if not index.is_file():
            raise WeightsError(f"{path.name} is one of several pieces, and {index.name} is not beside it",
                               hint="give the folder that holds all pieces and the index")
        path = index
    if path.name.endswith(".index.json"):
        try:
            pieces = sorted({Path(piece).name for piece in read_json(path)["weight_map"].values()})
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            raise WeightsError(f"{path} is damaged", hint="copy it again") from None
        return {name: entry for piece in pieces for name, entry in read_header(path.parent / piece).items()}
    return read_header(path)


def _entry(file: Path, base: int, size: int, name: str, described: Mapping[str, Any]) -> TensorEntry:
    begin, end = described["data_offsets"]
    shape = tuple(described["shape"])
    if not all(type(number) is int and 0 <= number <= MOST_BYTES for number in (begin, end, *shape)) or len(shape) > 16:
        raise ValueError(name)
    if base + end > size:
        raise WeightsError(
            f"{file.name} is cut off: it has {size} bytes, and {name} alone would end at {base + end}",
            hint="download or copy it again",
        )
    width = BYTES_OF.get(described["dtype"])
    if not 0 <= begin <= end or (width is not None and end - begin != width * math.prod(shape)):
        raise ValueError(name)
    return TensorEntry(described["dtype"], shape, file, base + begin, end - begin)


def _pickle(file: Path) -> WeightsError:
    return WeightsError(
        f"{file.name} is a pickle: loading one runs any program hidden in it, so colorcli reads only {SUFFIX}",
        hint=CONVERT.replace("'IN'", f"'{file.name}'").replace("OUT", file.stem),
    )


def _not_safetensors(file: Path, start: bytes, size: int) -> WeightsError:
    """Say what a file is that does not begin as a .safetensors file does."""
    if size == 0:
        return WeightsError(f"{file.name} is empty", hint="download or copy it again")
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return _pickle(file)
    if start.startswith(b"version https://git-lfs"):
        return WeightsError(f"{file.name} is the pointer that Git LFS keeps in place of the file, {size} bytes",
                            hint="run `git lfs pull` in its folder")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return WeightsError(f"{file.name} is a web page", hint="download the file itself, not the page about it")
    length = int.from_bytes(start[:8], "little")
    if size - 8 < length <= LARGEST_HEADER and start[8:9] == b"{":
        return WeightsError(f"{file.name} is cut off within its list of tensors: {size} bytes of more than {length}",
                            hint="download or copy it again")
    return WeightsError(f"{file.name} is no {SUFFIX} file", hint=f"give a {SUFFIX} file of a published model")


def kind_of(names: Iterable[str]) -> Kind:
    """Tell what a file holds by the names of its tensors; their sizes do not matter."""
    known = set(names)

    def has(*patterns: str) -> bool:
        return all(any(re.match(pattern, name) for name in known) for pattern in patterns)

    unet = r"model\.diffusion_model\.input_blocks\.0\.0\.weight"
    if has(unet):
        if has(r"style_encoder\.|model\.diffusion_model\.(warp|style)_modules\.|bg_encoder\.zero_layers\."):
            return "v2"
        # SD has a fourth level, where an xl network ends with input block 8.
        if has(r"model\.diffusion_model\.input_blocks\.(9|1[01])\.|control_encoder\.zero_"):
            return "older"
        if has(r"control_encoder\.|proj\.|bg_encoder\."):
            return "xlv2" if has(r"bg_encoder\.|.*\.lora_(down|up)_") else "xl"
        if has(r"conditioner\.embedders\.|model\.diffusion_model\.label_emb\."):
            return "sdxl"
        return "older"
    if has(r".*\.lora_(A|B|down|up)(\.default)?\.weight$"):
        return "lora"
    if has(r"(bg_encoder\.|.*\.lora_(down|up)_)"):
        return "adapter"
    if has(r"(.*\.)?(vision_model\.|visual\.)"):
        return "clip"
    if has(r"(.*\.)?layers\.\d+\.blocks\.\d+\.attn\.(cpb_mlp|logit_scale)"):
        return "tagger"
    if has(r"(down_blocks|encoder\.down_blocks|up_blocks|decoder\.up_blocks)\."):
        return "diffusers"
    return "unknown"


def family_of_file(file: Path) -> str:
    """Tell the family of a published single file: "xl", "xlv2" or "v2".

    What is in it decides, its name does not. Raises WeightsError if it holds something else.
    """
    kind = kind_of(read_header(file))
    if kind not in FAMILIES:
        hint = "give the file of a whole model, sdxl-*.safetensors, xlv2-* or v2-*"
        if kind == "older":
            hint = "of the SD 2.1 family colorcli runs v2-* only: how the earlier models are built is not known to it"
        if kind == "lora":
            hint = f"name it in a preset: lora: [{{file: {file.name}}}]"
        if kind in ("clip", "tagger"):
            hint = f"it goes with a model: colorcli models import MODEL.safetensors --{kind} {file.name}"
        raise WeightsError(f"{file.name} is {KIND_IN_WORDS[kind]}", hint=hint)
    return kind

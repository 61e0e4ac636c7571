"""Where weights lie, and whether they are whole: a folder whose `weights.json` has the hash of each file. No torch.

    {"schema": 1, "model": "mini", "license": "Apache-2.0",
     "files": {"unet/model.safetensors": {"sha256": "9f86…", "bytes": 26214400}}}
"""

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from colorcli.errors import WeightsError
from colorcli.variants import VARIANTS

LIST_NAME = "weights.json"
DIFFUSERS_INDEX = "model_index.json"
UNKNOWN_LICENSE = "NOASSERTION"   # SPDX for: nobody said
SCHEMA = 1
REINSTALL = "pip install --force-reinstall --no-deps colorcli"


@dataclass(frozen=True)
class WeightsFile:
    """One file of a model, as its list records it."""

    sha256: str   # hex
    bytes: int


@dataclass(frozen=True)
class WeightsList:
    """What `weights.json` says."""

    model: str
    license: str                        # SPDX id
    files: Mapping[str, WeightsFile]    # path inside the folder, with "/" -> file

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


@dataclass(frozen=True)
class FileCheck:
    """What became of one file of the list."""

    path: str
    state: Literal["ok", "missing", "damaged"]


def weights_folder(name: str) -> Path:
    """Find the folder of a model: a known name, or a path to a folder.

    Raises WeightsError naming the nearest model if there is none of that name, or if the folder is not there.
    """
    folder = Path(name).expanduser()
    if "/" in name or "\\" in name or (name not in VARIANTS and folder.is_dir()):
        if not folder.is_dir():
            raise WeightsError(f"there is no model folder {name}", hint="check the path, or see `colorcli models list`")
        return folder
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(VARIANTS)}, and folders"
        raise WeightsError(f"there is no model called {json.dumps(name)}", hint=hint)
    folder = shipped_folder(name)
    if not folder.is_dir():
        raise WeightsError(f"the weights of {name} are not in {folder}", hint=f"install colorcli again: {REINSTALL}")
    return folder


def shipped_folder(name: str) -> Path:
    """The folder inside the package where the weights of a shipped model belong; it may not be there."""
    return Path(__file__).parent.parent / "weights" / name


def read_list(folder: Path) -> WeightsList:
    """Read the `weights.json` of a folder. Raises WeightsError if it is missing or is no such list."""
    path = folder / LIST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise WeightsError(f"{path} has schema {content['schema']}, this colorcli reads {SCHEMA}",
                               hint="install the colorcli that the weights were made for")
        files = {name: WeightsFile(str(entry["sha256"]), int(entry["bytes"]))
                 for name, entry in content["files"].items()}
        return WeightsList(str(content["model"]), str(content["license"]), files)
    except FileNotFoundError:
        raise WeightsError(f"{folder} holds no {LIST_NAME}, so it is no model folder",
                           hint="check the path, or see `colorcli models list`") from None
    except OSError as failure:
        raise WeightsError(f"{path} cannot be read: {failure.strerror}", hint="check its permissions") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{path} is damaged", hint="copy or install the model again") from None


def require_whole(folder: Path) -> WeightsList:
    """Check that every file of the list is there with its size, without reading them; give the list.

    A folder of diffusers without a list (`save_pretrained` writes none) is hashed instead, which takes its time.
    Raises WeightsError naming the first file that is missing or cut off.
    """
    if not (folder / LIST_NAME).exists() and (folder / DIFFUSERS_INDEX).is_file():
        return WeightsList(folder.resolve().name, UNKNOWN_LICENSE, _hash_files(folder))
    listed = read_list(folder)
    for name, file in listed.files.items():
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"the weights of {listed.model} lack {path}", hint="copy or install the model again")
        if path.stat().st_size != file.bytes:
            raise WeightsError(f"{path} has {path.stat().st_size} bytes, it should have {file.bytes}",
                               hint="it was cut off: copy or install the model again")
    return listed


def verify(folder: Path) -> list[FileCheck]:
    """Hash every file of the list: one check a file, in the order of the list. Raises WeightsError without a list."""
    return [FileCheck(name, _state(folder / name, file)) for name, file in read_list(folder).files.items()]


def weights_digest(folder: Path) -> str:
    """One SHA-256 (hex) for a whole model: the part of a frame's fingerprint that says which weights painted it.

    It is made of the recorded hashes, so it costs no reading where there is a list; `verify` says whether they hold.
    Raises WeightsError if a file is missing or has another size.
    """
    return _digest_of(require_whole(folder))


def write_list(folder: Path, model: str, license: str) -> WeightsList:
    """Hash every file in the folder and write its `weights.json`: the last step of making a model."""
    files = _hash_files(folder)
    content = {"schema": SCHEMA, "model": model, "license": license,
               "files": {name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in files.items()}}
    (folder / LIST_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return WeightsList(model, license, files)


def _hash_files(folder: Path) -> dict[str, WeightsFile]:
    """Every file of a folder but hidden ones and the list itself, by its path inside the folder."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and name != LIST_NAME and not hidden:
            files[name] = WeightsFile(_file_sha256(path), path.stat().st_size)
    return files


def _digest_of(listed: WeightsList) -> str:
    lines = "".join(f"{file.sha256}  {name}\n" for name, file in sorted(listed.files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _state(path: Path, file: WeightsFile) -> Literal["ok", "missing", "damaged"]:
    if not path.is_file():
        return "missing"
    whole = path.stat().st_size == file.bytes and _file_sha256(path) == file.sha256
    return "ok" if whole else "damaged"


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Where weights lie, and whether they are whole: a folder whose `weights.json` has the hash of each file. No torch.

    {"schema": 1, "model": "mini", "license": "Apache-2.0",
     "files": {"unet/model.safetensors": {"sha256": "9f86…", "bytes": 26214400}}}
"""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from colorcli.errors import WeightsError
from colorcli.files import file_digest, read_json
from colorcli.model.single_file import PICKLES, SUFFIX, family_of_file, read_header
from colorcli.variants import VARIANTS

LIST_NAME = "weights.json"
DIFFUSERS_INDEX = "model_index.json"
UNKNOWN_LICENSE = "NOASSERTION"   # SPDX for: nobody said
SCHEMA = 1
MODELS_VARIABLE = "COLORCLI_MODELS"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
REINSTALL = "pip install --force-reinstall --no-deps colorcli"


@dataclass(frozen=True)
class Tower:
    """A network made by others, which published files need and come without."""

    folder: str                # its name among the parts of a model
    prefix: str                # of its tensors in a single file that has it
    mark: tuple[str, int]      # entry of its config.json that tells it from towers of other models
    goes_with: Sequence[str] = ()   # parts that come from the same place, if they are there


BIGG = Tower("image_encoder", "cond_stage_model.", ("num_hidden_layers", 48))
VIT_H = Tower("image_encoder", "cond_stage_model.", ("num_hidden_layers", 32), ("text_encoder", "tokenizer"))
TAGGER = Tower("tagger", "img_embedder.", ("image_size", 448))
TOWERS: Mapping[str, Sequence[Tower]] = {"xl": (BIGG, TAGGER), "xlv2": (BIGG, TAGGER), "v2": (VIT_H,)}


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

    @property
    def digest(self) -> str:
        """One SHA-256 (hex) for the whole model, made of the recorded hashes."""
        lines = "".join(f"{file.sha256}  {name}\n" for name, file in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True)
class FileCheck:
    """What became of one file of the list."""

    path: str
    state: Literal["ok", "missing", "damaged"]


def models_folder() -> Path:
    """Give the folder where models are installed: $COLORCLI_MODELS, or colorcli/models in the user's data folder."""
    chosen = os.environ.get(MODELS_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "colorcli" / "models"


def installed_models() -> dict[str, Path]:
    """List the models in the models folder by name."""
    return {path.parent.name: path.parent for path in sorted(models_folder().glob(f"*/{LIST_NAME}"))
            if not path.parent.name.startswith(".")}


def find_weights(model: str) -> Path:
    """Find a model: the folder of a name, a folder or a single .safetensors file by its path, or "owner/name" as it
    lies in the local cache of the hub.

    Raises WeightsError saying what to install, or naming the nearest model. Nothing is downloaded.
    """
    path = Path(model).expanduser()
    if path.is_file() or path.suffix.lower() in (SUFFIX, *PICKLES):
        if not path.is_file():
            raise WeightsError(f"there is no file {model}", hint="check the path, or see `colorcli models list`")
        return path
    if "/" in model or "\\" in model or (not _is_known(model) and path.is_dir()):
        if path.is_dir():
            return path
        if HUB_ID.fullmatch(model):
            here = _installed_from(model) or _hub_snapshot(model)
            if here is not None:
                return here
            raise WeightsError(f"there is no folder {model}, and nothing of that name was fetched from the hub before",
                               hint="check the path; `colorcli models pull` fetches models, a render never does")
        raise WeightsError(f"there is no model folder {model}", hint="check the path, or see `colorcli models list`")
    if not _is_known(model):
        known = sorted({*VARIANTS, *installed_models()})
        near = difflib.get_close_matches(model, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}, and folders"
        raise WeightsError(f"there is no model called {json.dumps(model)}", hint=hint)
    if model in VARIANTS and VARIANTS[model].shipped:
        folder = shipped_folder(model)
        if not folder.is_dir():
            hint = f"install colorcli again: {REINSTALL}"
            raise WeightsError(f"the weights of {model} are not in {folder}", hint=hint)
        return folder
    folder = models_folder() / model
    if not folder.is_dir():
        raise WeightsError(
            f"the weights of {model} are not installed: there is no {folder}",
            hint=f"colorcli models import FILE.safetensors, or colorcli models pull {model}",
        )
    return folder


def weights_folder(name: str) -> Path:
    """Find the folder of a model; like `find_weights`, without single files.

    Raises WeightsError naming the nearest model if there is none of that name, or if the folder is not there.
    """
    found = find_weights(name)
    if found.is_file():
        raise WeightsError(f"{name} is a file, not the folder of a model", hint=f"colorcli models import {name}")
    return found


def family_of(model: str) -> str:
    """Tell which of the VARIANTS a model is, by what is in it. Raises WeightsError if it is none, or is not there."""
    if model in VARIANTS:
        return model
    path = find_weights(model)
    family = family_of_file(path) if path.is_file() else _family_of_folder(path)
    if family not in VARIANTS:
        raise WeightsError(f"{model} is of the family {family}", hint=f"this colorcli runs {', '.join(VARIANTS)}")
    return family


def towers_for(file: Path) -> Path | None:
    """Find the installed model whose towers go with a single file; None if the file has its own.

    Raises WeightsError if there is none: the published files lack all of them.
    """
    names, towers = read_header(file), TOWERS[family_of_file(file)]
    if all(any(name.startswith(tower.prefix) for name in names) for tower in towers):
        return None
    for folder in installed_models().values():
        if all(has_tower(folder, tower) for tower in towers):
            return folder
    needed, options = "the CLIP tower", "--clip CLIP.safetensors"
    if TAGGER in towers:
        needed, options = f"{needed} and the tagger", f"{options} --tagger TAGGER.safetensors"
    raise WeightsError(f"{file.name} comes without {needed} it needs, and no installed model of its kind has them",
                       hint=f"colorcli models import {file} {options}")


def has_tower(model: Path, tower: Tower) -> bool:
    """Whether the folder of a model holds a tower, and not one of another kind under its name."""
    entry, value = tower.mark
    try:
        config = read_json(model / tower.folder / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get(entry) == value


def _is_known(name: str) -> bool:
    return name in VARIANTS or (models_folder() / name / LIST_NAME).is_file()


def _installed_from(repository: str) -> Path | None:
    """Find the installed model that was pulled from a repository of the hub. Raises WeightsError if several were."""
    found = {}
    for name, folder in installed_models().items():
        try:
            source = read_json(folder / LIST_NAME).get("source") or {}
            parts = {entry["repository"]: entry["part"] for entry in source.get("files", ())}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if parts.get(repository) == "checkpoint":
            found[name] = folder
    if len(found) > 1:
        raise WeightsError(f"{' and '.join(found)} were both pulled from {repository}",
                           hint=f"name one of them: --model {next(iter(found))}")
    return next(iter(found.values()), None)


def _hub_snapshot(repository: str) -> Path | None:
    """Find what the hub's own cache holds of a repository in the diffusers layout, without asking the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return folder if (folder / DIFFUSERS_INDEX).is_file() else None


def _family_of_folder(folder: Path) -> str:
    """Tell the family by the list of the folder, else by which networks diffusers saved there."""
    if (folder / LIST_NAME).is_file():
        return read_list(folder).model
    try:
        found = read_json(folder / DIFFUSERS_INDEX)
    except (OSError, ValueError):
        found = {}
    parts = found if isinstance(found, dict) else {}

    def has(name: str) -> bool:
        library = parts.get(name)
        return isinstance(library, list) and bool(library) and bool(library[0])

    if not has("unet") or not has("sketch_encoder"):
        raise WeightsError(f"{folder} holds neither {LIST_NAME} nor a pipeline of colorcli, so it is no model folder",
                           hint="check the path, or see `colorcli models list`")
    families = (("style_encoder", "v2"), ("token_head", "mini"), ("reference_net", "xlv2"))
    return next((family for part, family in families if has(part)), "xl")


def shipped_folder(name: str) -> Path:
    """The folder inside the package where the weights of a shipped model belong; it may not be there."""
    return Path(__file__).parent.parent / "weights" / name


def read_list(folder: Path) -> WeightsList:
    """Read the `weights.json` of a folder. Raises WeightsError if it is missing or is no such list."""
    path = folder / LIST_NAME
    try:
        content = read_json(path)
        if content["schema"] != SCHEMA:
            raise WeightsError(f"{path} has schema {content['schema']}, this colorcli reads {SCHEMA}",
                               hint="install the colorcli that the weights were made for")
        files = {name: WeightsFile(str(entry["sha256"]), int(entry["bytes"]))
                 for name, entry in content["files"].items()}
        if not all(_lies_inside(name) for name in files):
            raise ValueError(path)
        return WeightsList(str(content["model"]), str(content["license"]), files)
    except FileNotFoundError:
        raise WeightsError(f"{folder} holds no {LIST_NAME}, so it is no model folder",
                           hint="check the path, or see `colorcli models list`") from None
    except OSError as failure:
        raise WeightsError(f"{path} cannot be read: {failure.strerror}", hint="check its permissions") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{path} is damaged", hint="copy or install the model again") from None


def _lies_inside(name: str) -> bool:
    """Whether a path in a list stays in the folder of the list, on any system."""
    return "\0" not in name and not any(
        pure.is_absolute() or pure.drive or ".." in pure.parts or not pure.parts
        for pure in (PurePosixPath(name), PureWindowsPath(name))
    )


def require_whole(folder: Path) -> WeightsList:
    """Check that every file of the list is there with its size, without reading them; give the list.

    A folder of diffusers without a list (`save_pretrained` writes none) is hashed instead, which takes its time; so is
    a single file, with the towers that go with it.
    Raises WeightsError naming the first file that is missing or cut off.
    """
    if folder.is_file():
        return _list_of_file(folder)
    if not (folder / LIST_NAME).exists() and (folder / DIFFUSERS_INDEX).is_file():
        return WeightsList(folder.resolve().name, UNKNOWN_LICENSE, _hash_files(folder, {}))
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
    return require_whole(folder).digest


def write_list(
    folder: Path,
    model: str,
    license: str,
    *,
    source: Mapping[str, Any] | None = None,
    hashed: Mapping[str, WeightsFile] | None = None,
) -> WeightsList:
    """Hash every file in the folder and write its `weights.json`: the last step of making a model.

    source: what the model was made of, kept for people. hashed: files whose hash is known, which are not read again.
    """
    files = _hash_files(folder, hashed or {})
    content = {"schema": SCHEMA, "model": model, "license": license, **({"source": source} if source else {}),
               "files": {name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in files.items()}}
    (folder / LIST_NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return WeightsList(model, license, files)


def record_source(folder: Path, source: Mapping[str, Any], license: str) -> None:
    """Add to the list of a model where its files came from, and the license that was shown there.

    Raises WeightsError if the folder has no list.
    """
    read_list(folder)
    path = folder / LIST_NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= {"license": license, "source": {**content.get("source", {}), **source}}
    fresh = path.with_name(f".{LIST_NAME}.new")
    fresh.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)


def _list_of_file(file: Path) -> WeightsList:
    """Make the list of a single file: itself, and the towers of the model that lends them."""
    family = family_of_file(file)
    # Not by its own name: a file that is renamed still paints the same frames.
    files = {family + SUFFIX: WeightsFile(file_digest(file), file.stat().st_size)}
    lender = towers_for(file)
    if lender is not None:
        listed = require_whole(lender)
        lent = {part for tower in TOWERS[family] for part in (tower.folder, *tower.goes_with)}
        files |= {name: entry for name, entry in listed.files.items() if name.split("/")[0] in lent}
    return WeightsList(family, VARIANTS[family].license if family in VARIANTS else UNKNOWN_LICENSE, files)


def _hash_files(folder: Path, hashed: Mapping[str, WeightsFile]) -> dict[str, WeightsFile]:
    """Every file of a folder but hidden ones and the list itself, by its path inside the folder."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and name != LIST_NAME and not hidden:
            files[name] = hashed.get(name) or WeightsFile(file_digest(path), path.stat().st_size)
    return files


def _state(path: Path, file: WeightsFile) -> Literal["ok", "missing", "damaged"]:
    if not path.is_file():
        return "missing"
    whole = path.stat().st_size == file.bytes and file_digest(path) == file.sha256
    return "ok" if whole else "damaged"

"""An engine for the CPU beside torch: what it can do, and the folder that its networks are exported to. No torch.

    {"schema": "colorcli/engine/1", "engine": "openvino", "model": "mini", "license": "Apache-2.0",
     "weights_sha256": "1f0c…", "made_with": {"colorcli": "0.1.0", "openvino": "2026.4.1", "torch": "2.13.0"},
     "files": {"denoise.xml": {"sha256": "9f86…", "bytes": 1048576}, "denoise.bin": …}}
"""

import contextlib
import errno
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import colorcli
from colorcli.errors import MissingExtraError, OutputError, PresetError, UsageError, WeightsError
from colorcli.files import file_digest
from colorcli.model.weights import WeightsFile, WeightsList
from colorcli.presets import Preset

TORCH, OPENVINO = "torch", "openvino"
ENGINE_FILE = "engine.json"
SCHEMA = "colorcli/engine/1"
NETWORKS = ("denoise", "sketch", "tagger")   # nine tenths of the networks' time; the rest gains nothing
FAMILY = "mini"   # whose networks are converted
EXPORT_AGAIN = "colorcli models export MODEL --engine openvino -o FOLDER"


@dataclass(frozen=True)
class Export:
    """Networks that were exported for an engine, as the folder's `engine.json` tells of them."""

    folder: Path
    model: str
    license: str                         # SPDX id, that of the weights
    weights_sha256: str                  # digest of the weights that the networks were made of
    made_with: Mapping[str, str]         # package -> version
    files: Mapping[str, WeightsFile]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files.values())

    def network(self, name: str) -> Path:
        """The file that describes one of NETWORKS."""
        return self.folder / f"{name}.xml"


def require_openvino() -> None:
    """Raise MissingExtraError if OpenVINO is not installed. It is not imported."""
    if importlib.util.find_spec("openvino") is None:
        raise MissingExtraError("--engine openvino needs the package openvino, which is not installed",
                                hint="pip install 'colorcli[openvino]'")


def find_engine(engine: str) -> Export | None:
    """Look at what was typed for --engine: `torch`, `openvino`, or the folder of an export, which is given.

    Raises UsageError, MissingExtraError, and WeightsError for a folder that is damaged.
    """
    if engine == TORCH:
        return None
    if engine == OPENVINO:
        require_openvino()
        return None
    folder = Path(engine).expanduser()
    if not folder.is_dir():
        hint = f"torch, openvino, stand-in, or a folder made by `{EXPORT_AGAIN}`"
        raise UsageError(f"--engine {engine} is neither an engine nor a folder", hint=hint)
    require_openvino()
    return read_export(folder)


def check_engine_machine(engine: str, device: str, precision: str, attention: str, compiled: str = "auto") -> None:
    """Raise UsageError if other options ask for what only torch does."""
    if engine == TORCH:
        return
    if device not in ("auto", "cpu"):
        raise UsageError(f"--engine {engine} runs on the cpu, and --device is {device}", hint="leave one of them out")
    for option, value, plain in (
        ("precision", precision, ("auto", "fp32")), ("attention", attention, ("auto", "sdpa")),
        ("compile", compiled, ("auto", "off")),
    ):
        if value not in plain:
            raise UsageError(f"--engine {engine} does not go with --{option} {value}", hint=f"leave --{option} out")


def check_engine_settings(preset: Preset, family: str) -> None:
    """Raise PresetError if a preset asks for what the converted networks cannot do, or WeightsError for the model."""
    check_engine_family(family, preset.model)
    asked = {"background.split": preset.background.split, "injection.on": preset.injection.on}
    for key, on in asked.items():
        if on:
            raise PresetError(f"{key} is on, and only torch can do it",
                              hint=f"leave --engine out, or --set {key}=false")
    if preset.compat == "published":
        raise PresetError("compat is published, and only torch can do it", hint="leave --engine out")


def check_engine_family(family: str, model: str) -> None:
    """Raise WeightsError if the networks of a model's family cannot be converted."""
    if family != FAMILY:
        raise WeightsError(f"the openvino engine runs models of the family {FAMILY}, and {model} is of {family}",
                           hint="leave --engine out: a graphics card runs it")


def check_export(export: Export, weights: WeightsList, loras: int = 0) -> None:
    """Raise WeightsError if an export was not made of these weights, or the preset changes them by LoRA files."""
    if export.weights_sha256 != weights.digest:
        raise WeightsError(
            f"{export.folder} was made of other weights ({export.model} {export.weights_sha256[:12]}) than "
            f"{weights.model} {weights.digest[:12]}", hint=f"make it again: {EXPORT_AGAIN}")
    if loras:
        raise WeightsError(f"{export.folder} was made of {export.model} without the preset's lora",
                           hint="--engine openvino converts the changed networks when it starts")


def read_export(folder: Path) -> Export:
    """Read an export and hash its files. Raises WeightsError if it is none, or is damaged."""
    path = folder / ENGINE_FILE
    again = f"make it again: {EXPORT_AGAIN}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise WeightsError(f"{path} has the schema {content['schema']}, this colorcli reads {SCHEMA}", hint=again)
        if content["engine"] != OPENVINO:
            raise WeightsError(f"{path} is for the engine {content['engine']}, not {OPENVINO}", hint=again)
        files = {str(name): WeightsFile(str(entry["sha256"]), int(entry["bytes"]))
                 for name, entry in content["files"].items()}
        found = Export(folder, str(content["model"]), str(content["license"]), str(content["weights_sha256"]),
                       dict(content["made_with"]), files)
    except FileNotFoundError:
        raise WeightsError(f"{folder} holds no {ENGINE_FILE}, so it is no export",
                           hint=f"torch, openvino, stand-in, or a folder made by `{EXPORT_AGAIN}`") from None
    except OSError as failure:
        raise WeightsError(f"{path} cannot be read: {failure.strerror}", hint="check its permissions") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{path} is damaged", hint=again) from None
    for name in (f"{network}{suffix}" for network in NETWORKS for suffix in (".xml", ".bin")):
        if name not in files:
            raise WeightsError(f"{path} does not list {name}", hint=again)
        file, listed = folder / name, files[name]
        if not file.is_file():
            raise WeightsError(f"{file} is missing", hint=again)
        if file.stat().st_size != listed.bytes or file_digest(file) != listed.sha256:
            raise WeightsError(f"{file} is damaged: it is not what was exported", hint=again)
    return found


def write_export(folder: Path, weights: WeightsList) -> Export:
    """Hash what an export put into a folder, and write its `engine.json`: the last step."""
    files = {path.name: WeightsFile(file_digest(path), path.stat().st_size) for path in sorted(folder.iterdir())}
    made_with = {"colorcli": colorcli.__version__, **{name: metadata.version(name) for name in ("openvino", "torch")}}
    content = {
        "schema": SCHEMA, "engine": OPENVINO, "model": weights.model, "license": weights.license,
        "weights_sha256": weights.digest, "made_with": made_with,
        "files": {name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in files.items()},
    }
    (folder / ENGINE_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return Export(folder, weights.model, weights.license, weights.digest, made_with, files)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside the target that becomes it when all is well, and is removed when not.

    Raises UsageError if the target is there already, OutputError if it cannot be written.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{target} is there already", hint="choose another folder, or remove it")
    fresh = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        yield fresh
        fresh.replace(target)
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"the disk of {target.parent} is full", hint="make room, or choose another folder"
                              ) from None
        raise OutputError(f"{failure.filename or target} cannot be written: {failure.strerror or failure}",
                          hint="check its permissions, or choose another folder") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)

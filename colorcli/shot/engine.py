"""The engine that colors, as the runner sees it: what it must do, how it is loaded, and what identifies its results."""

import contextlib
import copy
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import colorcli
from colorcli.errors import WeightsError
from colorcli.model.evidence import Evidence
from colorcli.model.lora_file import NOT_STATED, LoraFile
from colorcli.model.onnx_file import OnnxFile
from colorcli.model.onnx_networks import OnnxNetworks
from colorcli.model.weights import find_weights, require_whole
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.presets import PATH_ENTRIES, PATH_KEYS, Preset
from colorcli.shot.manifest import ModelEntry, relative_posix, sha256_of
from colorcli.variants import METHOD_VERSION, VARIANTS, Variant

Float = NDArray[np.float32]

LIBRARIES = (
    "torch", "diffusers", "transformers", "numpy", "OpenImageIO", "opencv-python-headless", "fileseq", "onnxruntime",
    "openvino",
)  # fmt: skip


class Colorizer(Protocol):
    """The engine. `colorcli.pipeline.ColorizePipeline` is one; tests bring a simpler one."""

    def encode_reference(self, key: PreparedKey, preset: Preset) -> Any:
        """Read the key once for a whole shot."""

    def color(
        self, frames: Sequence[PreparedFrame], reference: Any, preset: Preset, decided: Sequence[Any] = ()
    ) -> Sequence[Float]:
        """Give a color layer (h, w, 3) in 0..1 at canvas size for each frame, each independent of the others.

        decided: for each frame what `decide` has made of its ballot. Only given for `steady`.
        Raises FrameError if a frame cannot be colored, DeviceError if none can.
        """

    def color_and_tell(
        self, frames: Sequence[PreparedFrame], reference: Any, preset: Preset
    ) -> tuple[Sequence[Float], Sequence[Any]]:
        """Color frames that stand alone as `color` does, and give the ballot that each was colored by.

        Only asked for runs that start from the match.
        """

    def ballot(self, frame: PreparedFrame, reference: Any, preset: Preset) -> Any:
        """Tell what a frame has to say on the colors of the drawings around it, and on its own; in any thread.

        Only asked for `steady`.
        """

    def link(self, one: Any, other: Any) -> Any:
        """Tell by two ballots what is the same in two drawings; in any thread. Only asked for `steady`."""

    def decide(self, ballots: Sequence[Any], own: int, links: Mapping[tuple[int, int], Any]) -> Any:
        """Make one ballot of a frame's own, the one at `own`, and of those of the drawings around it.

        ballots: in the order of the shot; None: of a drawing that has no say. links: between the drawings at two
        places, the earlier one first. Only asked for `steady`.
        """

    def evidence(self, frame: PreparedFrame, decided: Any, reference: Any) -> Evidence | None:
        """Tell what speaks for the color of each region of a frame, by its ballot; None: nothing can be told."""

    def color_next(self, frame: PreparedFrame, before: Any, reference: Any, preset: Preset) -> tuple[Float, Any]:
        """Give a frame's layer, made from where the frame before it ended, and where it ended itself.

        before: what this gave for the frame before, None: the frame starts from noise. Only asked for `warm_start`.
        """

    def describe(self) -> Mapping[str, Any]:
        """What is used, for the manifest: "device", "attention", "engine", "precision", "memory".

        "frames": how many frames it would take together, where nothing else is asked for. "side_by_side": how many
        frames of any size it colors at the same time.
        """


@dataclass
class Batch:
    """How many frames are colored together: as many as asked for, until memory runs out."""

    asked: int | None = 1                            # None: as many as the colorizer says
    single_file: bool = False                        # each frame begins from the one before
    frames: int = 1                                  # now
    any_size: bool = False                           # they need not be of one size
    notes: list[str] = field(default_factory=list)   # what happened to it, for the manifest
    _settled: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.frames = 1 if self.single_file else self.asked or 1
        self._settled = self.single_file

    def settle(self, colorizer: Colorizer) -> int:
        """How many to color together now, by what the colorizer says."""
        if not self._settled:
            said = colorizer.describe()
            beside = int(said.get("side_by_side", 1))
            self.frames = max(self.asked or int(said.get("frames", 1)), beside)
            self.any_size, self._settled = beside > 1, True
        return self.frames

    def halve(self, tried: int) -> None:
        """Take half of `tried` frames from now on: there was no memory for them."""
        assert tried > 1, tried
        self.frames = tried // 2
        self.notes.append(f"batch halved to {self.frames} after running out of memory")


class Loader:
    """Loads the colorizer in a thread, once, when it is first wanted."""

    def __init__(self, load: Callable[[], Colorizer]) -> None:
        self._load = load
        self._result: Future[Colorizer] | None = None

    @property
    def loaded(self) -> Colorizer | None:
        """The colorizer, if it was loaded."""
        if self._result is None or not self._result.done() or self._result.exception() is not None:
            return None
        return self._result.result()

    def start(self) -> None:
        """Begin to load, without waiting."""
        if self._result is not None:
            return
        result: Future[Colorizer] = Future()
        self._result = result

        def work() -> None:
            try:
                result.set_result(self._load())
            except BaseException as error:
                result.set_exception(error)

        # A daemon: Ctrl-C while the model loads must not wait for it.
        threading.Thread(target=work, name="load-model", daemon=True).start()

    def get(self) -> Colorizer:
        """The colorizer. Raises what loading raised."""
        self.start()
        assert self._result is not None
        return self._result.result()

    def wait(self) -> None:
        """Wait until loading has ended, if it ever began."""
        if self._result is not None:
            self._result.exception()


@dataclass(frozen=True)
class Engine:
    """What all shots of a run share."""

    preset: Preset
    variant: Variant
    model: ModelEntry
    loader: Loader
    batch: Batch
    references: dict[str, Any] = field(default_factory=dict)  # digest of a key -> what the colorizer made of it
    networks: OnnxNetworks | None = None                      # that find masks and lines; loaded when first asked
    network_entries: tuple[ModelEntry, ...] = ()              # of those, and of the LoRA files

    @cached_property
    def settings(self) -> str:
        """Digest of what is the same for all frames; see `settings_digest`."""
        return settings_digest(self.preset, self.model, self.network_entries)


def model_entry(name: str) -> ModelEntry:
    """Name, hash and license of a model, without loading it. Raises WeightsError."""
    listed = require_whole(find_weights(name))
    return ModelEntry(name=listed.model, sha256=listed.digest, license=listed.license)


def network_entry(key: str, file: OnnxFile) -> ModelEntry:
    """Name, hash and license of a network that the setting `key` names. Raises WeightsError if it cannot be read."""
    return ModelEntry(
        name=file.path.name,
        sha256=file.sha256(),
        license=file.license,
        used_for=key,
        license_from=file.license_from,
    )


def lora_entry(number: int, file: LoraFile) -> ModelEntry:
    """Name, hash and license of the LoRA file that is entry `number` of the preset's list."""
    return ModelEntry(
        name=file.path.name,
        sha256=file.sha256(),
        license=file.license,
        used_for=f"lora.{number}",
        license_from="nowhere" if file.license == NOT_STATED else "file",
    )


def settings_digest(preset: Preset, model: ModelEntry, networks: Sequence[ModelEntry] = ()) -> str:
    """SHA-256 of what is the same for all frames: settings, weights and method.

    The model's name and the paths of files do not count, what is in the files does. (A background is in the key's.)
    Layers do not count: they change nothing in a frame, and its record says which of them lie beside it. Nor does what
    is told of a frame.
    """
    settings = preset.model_dump(mode="json", exclude={"model", "layers", "checks"})
    for path in PATH_KEYS:
        group, name = path.split(".")
        del settings[group][name]
    chosen = settings.pop("lora")
    if chosen:   # not for the others, whose frames were colored before there were any
        settings["lora"] = [entry["strength"] for entry in chosen]
    parts = {"method": METHOD_VERSION, "settings": settings, "weights": model.sha256}
    if networks:
        parts["networks"] = {network.used_for: network.sha256 for network in networks}
    return sha256_of(parts)


def recorded_settings(preset: Preset, out: Path) -> dict[str, Any]:
    """Every effective setting as the manifest in `out` records it: paths are relative to there, and POSIX."""
    return with_paths(preset.model_dump(mode="json"), lambda path: relative_posix(Path(path), out))


def with_paths(settings: Mapping[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """Recorded settings with `place(path)` for each path in them; somebody may have changed them by hand."""
    placed = copy.deepcopy(dict(settings))
    groups = [(placed.get(group), name) for group, name in (path.split(".") for path in PATH_KEYS)]
    for path, name in PATH_ENTRIES.items():
        entries = placed.get(path)
        groups += [(entry, name) for entry in entries] if isinstance(entries, list) else []
    for group, name in groups:
        if isinstance(group, dict) and isinstance(group.get(name), str):
            group[name] = place(group[name])
    return placed


def fingerprint(
    settings: str,
    key: str,
    pixels: str,
    masks: Sequence[str],
    file_format: str,
    before: str | None = None,
    around: str | None = None,
) -> str:
    """SHA-256 of all that decides how a frame looks. Each argument but the format is a digest itself.

    before: of the drawing whose colors the frame begins from. around: of the drawings that have a say in its colors.
    """
    parts = {"settings": settings, "key": key, "pixels": pixels, "masks": list(masks), "format": file_format}
    others = {"before": before, "around": around}
    return sha256_of(parts | {name: digest for name, digest in others.items() if digest is not None})


def variant_of(model: ModelEntry, asked: str) -> Variant:
    """The numbers of a model. Raises WeightsError if this colorcli does not know its kind."""
    if model.name not in VARIANTS:
        raise WeightsError(
            f"the model {asked} is of a kind called {model.name}, which this colorcli does not know",
            hint=f"known are {', '.join(VARIANTS)}",
        )
    return VARIANTS[model.name]


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide on pixels, without importing them."""
    versions = {"python": ".".join(str(part) for part in sys.version_info[:3]), "colorcli": colorcli.__version__}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions

"""Networks that the user brings as ONNX files: they find characters and lines, through onnxruntime.

Only the operations of ONNX and onnxruntime are run, on the CPU or through CUDA; a file's own libraries and code never
are.
"""

import importlib.util
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from colorcli.errors import DeviceError, MissingExtraError, WeightsError
from colorcli.model.onnx_file import OnnxFile, read_onnx_file
from colorcli.prepare.lineart import LUMINANCE, by_network
from colorcli.presets import Preset

if TYPE_CHECKING:
    from torch import Tensor

Float = NDArray[np.float32]
Kind = Literal["isnet", "birefnet"]

FREE_SIDE = 1024       # side at which a network that takes any size is asked for a mask, pixels
LINES_LONGER = 1536    # longer side at which a network that takes any size is asked for lines, pixels
LINES_MULTIPLE = 256   # what the sides are then filled up to: the deepest published extractor halves them eight times
MOST_THREADS = 8       # of the CPU for one network; the model colors beside it
SIDE_OUTPUTS = 6       # so many maps of one size or more: a U2-Net or IS-Net, whose first map is its answer
NEAR_UNIT = 0.01       # what is further out of 0..1 than this is no probability
DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}

# What a line extractor may want to see of a picture in 0..1: `lines.network_values`, or the file's own metadata.
VALUES: dict[str, Callable[[Float], Float]] = {
    "0..1": lambda color: color,
    "-1..1": lambda color: color * 2 - 1,
    "0..255": lambda color: color * 255,
}


def network_files(preset: Preset) -> dict[str, Path]:
    """Give the files of the networks that a preset uses, by the setting that names them; those unused are left out."""
    named: dict[str, str | None] = {}
    if preset.masks.source == "network":
        named |= {"masks.network": preset.masks.network, "masks.key_network": preset.masks.key_network}
    if by_network(preset.lines):
        named["lines.network"] = preset.lines.network
    return {key: Path(name) for key, name in named.items() if name is not None}


def check_networks(preset: Preset) -> dict[str, OnnxFile]:
    """Look at the files of the networks that a preset uses, by the setting that names them; nothing is loaded.

    Raises WeightsError naming setting and file for a file that is missing, cut off or no network; MissingExtraError.
    """
    looked_at = {}
    for key, path in network_files(preset).items():
        try:
            looked_at[key] = read_onnx_file(path)
        except WeightsError as error:
            raise WeightsError(f"{key}: {error.message}", hint=error.hint or f"--set {key}=FILE.onnx") from None
    if looked_at and importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtraError(
            f"{next(iter(looked_at))} names an ONNX file, and onnxruntime is not installed",
            hint="pip install 'colorcli[onnx]'",
        )
    return looked_at


def open_networks(preset: Preset, device: str = "auto") -> "OnnxNetworks | None":
    """Give the networks that a preset uses, or None if it uses none. Each is loaded when it is first asked.

    device: as the model's; on "cpu" the networks leave a CUDA device alone. Raises as `check_networks`.
    """
    files = check_networks(preset)
    if not files:
        return None
    return OnnxNetworks(
        files,
        preset.masks.network_kind,
        preset.lines.network_values,
        published=preset.compat == "published",
        device=device,
    )


class OnnxNetworks:
    """The networks of a run (a `prepare.networks.Networks`). Any thread may call."""

    def __init__(
        self,
        files: Mapping[str, OnnxFile],
        kind: str = "auto",
        values: str = "auto",
        *,
        published: bool = False,
        device: str = "auto",
    ) -> None:
        """files: by the setting that names them. published: with the quirks of the published program."""
        self.files = dict(files)
        self._kind = kind
        self._values = values
        self._published = published
        opened: dict[Path, OnnxSession] = {}
        self._sessions = {key: opened.setdefault(file.path, OnnxSession(file, device)) for key, file in files.items()}

    def frame_mask(self, line_art: Float) -> Float:
        """Find the character in line art (H, W), 0 black line .. 1 white paper; the mask (H, W) in 0..1, soft."""
        import torch

        from colorcli.model import segmentation

        session = self._sessions["masks.network"]
        size = session.size(FREE_SIDE)
        kind = self.kind("masks.network")
        # Bicubic steps over thin lines; the published program has drawings at about the network's size already.
        seen = _at_most(line_art, max(size))
        sketch = torch.from_numpy(np.repeat(seen[None, None], 3, axis=1)) * 2 - 1
        network = _MaskNetwork(session, kind)
        if kind == "isnet":
            return _plane(segmentation.sketch_mask(network, sketch, size, line_art.shape))
        return _resized(_plane(segmentation.soft_reference_mask(network, sketch, size)), line_art.shape)

    def key_mask(self, color: Float) -> Float:
        """Find the character in a color picture (H, W, 3) in 0..1; the mask (H, W) in 0..1, soft.

        As the published program does it, with its quirks, the mask is grown by 10 pixels, and hard for a BiRefNet.
        """
        import torch

        from colorcli.model import segmentation

        session = self._sessions["masks.key_network"]
        size = session.size(FREE_SIDE)
        kind = self.kind("masks.key_network")
        seen = color if self._published else _at_most(color, max(size))
        reference = torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1)[None])) * 2 - 1
        network = _MaskNetwork(session, kind)
        if kind == "isnet":
            # The published program inverts photographs like sketches; its network has seen pictures as they are.
            mask = segmentation.letterboxed_sketch_mask(
                network, reference, size, dilate=self._published, inverted=self._published
            )
        elif self._published:
            mask = segmentation.reference_mask(network.logits, reference, size)
        else:
            mask = segmentation.soft_reference_mask(network, reference, size)
        return _resized(_plane(mask), color.shape[:2])

    def lines(self, color: Float) -> Float:
        """Find the lines of a color picture (H, W, 3) in 0..1; ink (H, W), 0 paper .. 1 line.

        The picture keeps its aspect, and what fills up the network's size is cut off again.
        """
        session = self._sessions["lines.network"]
        height, width = color.shape[:2]
        wanted = session.fixed_size
        if wanted is None:
            shrink = min(1.0, LINES_LONGER / max(height, width))
            inner = max(round(height * shrink), 1), max(round(width * shrink), 1)
            rows, columns = (-(-side // LINES_MULTIPLE) * LINES_MULTIPLE for side in inner)
        else:
            rows, columns = wanted
            ratio = min(rows / height, columns / width)
            inner = max(round(height * ratio), 1), max(round(width * ratio), 1)
        top, left = (rows - inner[0]) // 2, (columns - inner[1]) // 2
        edges = (top, rows - inner[0] - top, left, columns - inner[1] - left)
        # The border goes on beyond the picture: white there would be a border that gets a line.
        filled = cv2.copyMakeBorder(_resized(color, inner), *edges, cv2.BORDER_REPLICATE)
        found, ending = session.map_of(VALUES[self.values()](filled).astype(np.float32), first=False)
        ink = _resized(ink_of(found, ending), (rows, columns))
        return _resized(np.ascontiguousarray(ink[top : top + inner[0], left : left + inner[1]]), (height, width))

    def values(self) -> str:
        """Tell what the line extractor wants to see: what the preset says, else the file's metadata, else its name."""
        file = self.files["lines.network"]
        if self._values != "auto":
            return self._values
        stated = file.metadata.get("colorcli.values") or (file.known.values if file.known else None) or "0..1"
        if stated not in VALUES:
            raise WeightsError(
                f"{file.path} says of itself that it wants values of {stated}; known are {', '.join(VALUES)}",
                hint="--set lines.network_values=0..1",
            )
        return stated

    def kind(self, key: str) -> Kind:
        """Tell what a network for masks expects: what the preset says, else the file's metadata, its name, its size.

        A name of a published file is known. Else a file of 1024 pixels that gives a probability is taken for an IS-Net
        in line art, and any other one for a BiRefNet, whose values nearly all others use as well.
        """
        session = self._sessions[key]
        stated = self._kind if self._kind != "auto" else session.file.metadata.get("colorcli.kind", "").strip().lower()
        if not stated and session.file.known is not None:
            stated = session.file.known.kind or ""
        if not stated:
            named = session.file.path.stem.lower()
            line_art = key == "masks.network" and session.size(FREE_SIDE) == (1024, 1024)
            probable = all(kind == "Sigmoid" for kind in session.file.endings.values())
            stated = "isnet" if "isnet" in named or "sketch" in named or (line_art and probable) else "birefnet"
        if stated == "isnet":
            return "isnet"
        if stated == "birefnet":
            return "birefnet"
        raise WeightsError(
            f"{session.file.path} says of itself that it is of the kind {stated}; known are isnet and birefnet",
            hint="--set masks.network_kind=birefnet",
        )


@dataclass(frozen=True)
class _MaskNetwork:
    """A session as the functions of `segmentation` call it: pictures (1, 3, h, w) in, maps (1, 1, h, w) out."""

    session: "OnnxSession"
    kind: Kind

    def __call__(self, picture: "Tensor") -> "Tensor":
        """The probability of each pixel."""
        import torch

        return torch.from_numpy(as_probability(*self._found(picture)))[None, None]

    def logits(self, picture: "Tensor") -> "list[Tensor]":
        """The same before its sigmoid, as `segmentation.reference_mask` wants it."""
        return [self(picture).clamp(1e-6, 1 - 1e-6).logit()]

    def _found(self, picture: "Tensor") -> tuple[Float, str]:
        color = np.ascontiguousarray(picture[0].permute(1, 2, 0).numpy())
        return self.session.map_of(color, first=self.kind == "isnet")


class OnnxSession:
    """One ONNX file, loaded when it is first asked. Any thread may call; one at a time is served."""

    def __init__(self, file: OnnxFile, device: str = "auto") -> None:
        self.file = file
        self._device = device
        self._lock = threading.Lock()
        self._session: Any = None
        self._input = ""
        self._dtype: Any = np.float32
        self._channels = 3
        self._fixed: tuple[int | None, int | None] = (None, None)
        self._outputs: list[str] = []

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width that the network takes; None if it takes any."""
        self._open()
        height, width = self._fixed
        if height is None and width is None:
            return None
        side = height or width
        assert side is not None
        return height or side, width or side

    def size(self, free: int) -> tuple[int, int]:
        """Height and width to ask the network at; `free` squared if it takes any."""
        return self.fixed_size or (free, free)

    def map_of(self, values: Float, *, first: bool) -> tuple[Float, str]:
        """Ask the network about a picture (h, w, 3): its map (h', w') and the operation that the map comes from.

        Of several maps the largest is taken; of several largest the last, or the first of a network with side outputs
        (`first`, or if there are as many as those of a U2-Net). Raises WeightsError, DeviceError.
        """
        self._open()
        planes = cv2.transform(values, LUMINANCE)[None] if self._channels == 1 else values.transpose(2, 0, 1)
        batch = np.ascontiguousarray(planes[None], dtype=self._dtype)
        size = f"{values.shape[1]}x{values.shape[0]}"
        try:
            with self._lock:
                results: Sequence[NDArray[Any]] = self._session.run(None, {self._input: batch})
        except Exception as error:
            reason = _reason(error)
            if "allocat" in reason.lower() or "out of memory" in reason.lower():
                raise DeviceError(
                    f"{self.file.path.name} does not fit in memory for a picture of {size}",
                    hint="take a smaller network, or leave the masks to colorcli: --set masks.source=auto",
                ) from error
            raise WeightsError(
                f"{self.file.path} fails on a picture of {size}: {reason}",
                hint="export the network again, with the size it was trained at",
            ) from error
        maps = [(_plane_of(result), name) for result, name in zip(results, self._outputs, strict=True)]
        usable = [(plane, name) for plane, name in maps if plane is not None and min(plane.shape) > 1]
        if not usable:
            shapes = ", ".join(f"{name} {'x'.join(map(str, result.shape))}"
                               for name, result in zip(self._outputs, results, strict=True))
            raise WeightsError(
                f"{self.file.path} gives no picture of one value a pixel: its outputs are {shapes}",
                hint="export the network so that it gives (1, 1, height, width)",
            )
        most = max(plane.size for plane, _ in usable)
        largest = [(plane, name) for plane, name in usable if plane.size == most]
        plane, name = largest[0 if first or len(largest) >= SIDE_OUTPUTS else -1]
        if not np.isfinite(plane).all():
            raise WeightsError(
                f"{self.file.path} gives values that are no numbers (NaN)",
                hint="a network in half precision can overflow: export it in float32",
            )
        return plane, self.file.endings.get(name, "")

    def _open(self) -> None:
        """Load the network and check that a picture fits into it. Raises WeightsError, MissingExtraError."""
        with self._lock:
            if self._session is None:
                session = open_session(self.file.path, self._device)
                self._check_input(session)
                self._outputs = [one.name for one in session.get_outputs()]
                self._session = session

    def _check_input(self, session: Any) -> None:
        path, inputs = self.file.path, session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(one.name for one in inputs) or "nothing"
            raise WeightsError(f"{path} wants {len(inputs)} inputs ({names}), and a picture is one",
                               hint="export the network with the picture as its only input")
        (wanted,) = inputs
        shape = ["?" if side is None else side for side in wanted.shape]
        says = f"{path} takes {wanted.type.removeprefix('tensor')} of {'x'.join(map(str, shape))}"
        if wanted.type not in DTYPES:
            raise WeightsError(f"{says}, and colorcli gives float", hint="export the network with a float input")
        if len(shape) != 4 or (isinstance(shape[0], int) and shape[0] != 1):
            raise WeightsError(f"{says}, and a picture is 1x3xHxW", hint="export the network for one picture, NCHW")
        channels = shape[1]
        last = shape[3] in (1, 3) and channels not in (1, 3)
        if last or (isinstance(channels, int) and channels not in (1, 3)):
            raise WeightsError(f"{says}, {'with its channels last' if last else 'and a picture has 3 channels'}",
                               hint="export the network with channels first: 1x3xHxW")
        self._input, self._dtype = wanted.name, DTYPES[wanted.type]
        self._channels = channels if isinstance(channels, int) else 3
        height, width = (side if isinstance(side, int) and side > 0 else None for side in shape[2:])
        self._fixed = height, width


def open_session(path: Path, device: str) -> Any:
    """Make an onnxruntime session of a file. Raises WeightsError, MissingExtraError."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is an ONNX file, and onnxruntime is not installed", hint="pip install 'colorcli[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.inter_op_num_threads = 1
    # Threads that wait by spinning would take the processor from the model.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    if device.split(":")[0] in ("auto", "cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        reason = _reason(error)
        hint = "export the network again, with an opset this onnxruntime knows, or: pip install -U onnxruntime"
        raise WeightsError(f"{path} cannot be run by onnxruntime {onnxruntime.__version__}: {reason}",
                           hint=hint) from error


def thread_count() -> int:
    """Threads of the CPU for one network: OMP_NUM_THREADS if it is set, else all this process may use; at most 8."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(int(asked) if asked.isdecimal() and int(asked) > 0 else there, MOST_THREADS))


def as_probability(found: Float, ending: str) -> Float:
    """Give a mask's map (h, w) as values in 0..1. ending: the operation it comes from.

    A map that no sigmoid ends is told by its values: those of a network without one reach far beyond 0 and 1.
    """
    beyond = float(found.min()) < -NEAR_UNIT or float(found.max()) > 1 + NEAR_UNIT
    if ending not in ("Sigmoid", "HardSigmoid", "Softmax") and beyond:
        found = _sigmoid(found)
    return np.clip(found, 0, 1)


def ink_of(found: Float, ending: str) -> Float:
    """Give a line extractor's map (h, w) as ink, 0 paper .. 1 line, whatever its range and whichever of both is dark.

    ending: the operation the map comes from. Most of a drawing is paper, so the median is paper.
    """
    low, high = float(found.min()), float(found.max())
    if high > 16:
        unit = found / np.float32(255)
    elif ending == "Tanh" or (low < -NEAR_UNIT and low >= -1.05 and high <= 1.05):
        unit = found * np.float32(0.5) + np.float32(0.5)
    elif low < -1.05 and ending not in ("Sigmoid", "HardSigmoid"):
        unit = _sigmoid(found)
    else:
        unit = found
    unit = np.clip(unit, 0, 1).astype(np.float32)
    border = np.concatenate([unit[0], unit[-1], unit[:, 0], unit[:, -1]])
    paper_is_light = float(np.median(unit)) + float(np.median(border)) > 1.0
    return 1 - unit if paper_is_light else unit


def _sigmoid(values: Float) -> Float:
    result: Float = (0.5 * (1 + np.tanh(0.5 * values))).astype(np.float32)
    return result


def _plane_of(result: NDArray[Any]) -> Float | None:
    """The map (h, w) in one output of a network; the mean of a map of three colors; None if it holds no such map."""
    if result.dtype.kind not in "fiub" or result.ndim not in (2, 3, 4):
        return None
    plane = result.astype(np.float32)
    while plane.ndim > 2 and plane.shape[0] == 1:
        plane = plane[0]
    if plane.ndim == 3 and plane.shape[0] == 3:
        plane = plane.mean(axis=0)
    elif plane.ndim == 3 and plane.shape[2] == 1:
        plane = plane[:, :, 0]
    return np.ascontiguousarray(plane) if plane.ndim == 2 else None


def _reason(error: Exception) -> str:
    """The first line of what onnxruntime says, without its own prefix and source lines."""
    text = " ".join(str(error).split())
    text = text.removeprefix("[ONNXRuntimeError] : ")
    return text[:300]


def _plane(mask: "Tensor") -> Float:
    plane: Float = np.ascontiguousarray(mask[0, 0].numpy(), dtype=np.float32)
    return plane


def _at_most(image: Float, longer: int) -> Float:
    """The picture with its longer side at most `longer`, made smaller by area."""
    height, width = image.shape[:2]
    if max(height, width) <= longer:
        return image
    shrink = longer / max(height, width)
    return _resized(image, (max(round(height * shrink), 1), max(round(width * shrink), 1)))


def _resized(image: Float, size: Sequence[int]) -> Float:
    """Resize to (height, width): by area where both sides shrink, bicubically otherwise; cut at 0 and 1."""
    height, width = size[0], size[1]
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    result: Float = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)
    return np.clip(result, 0, 1)

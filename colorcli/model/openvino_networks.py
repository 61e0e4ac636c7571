"""The large networks of a frame, run by OpenVINO on the CPU instead of by torch: the same weights, in fp32.

Every network is converted once for canvases of any size. Rows of a batch are computed one after the other, so a frame
never sees its neighbors; what the networks give differs from torch by rounding.
"""

import contextlib
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from colorcli.errors import WeightsError
from colorcli.model.attention import AttentionPlan, KeyValues
from colorcli.model.build import last_features
from colorcli.model.openvino_export import EXPORT_AGAIN, NETWORKS, Export, require_openvino
from colorcli.model.reference import TaggerTower
from colorcli.model.sketch_encoder import SketchEncoder
from colorcli.model.unet import (
    PLAIN,
    ColorUNet,
    Context,
    Observer,
    Sighting,
    denoise_embedded,
    embedding,
    project_context,
    transformer_blocks,
)

if TYPE_CHECKING:
    import openvino

TRACED_CANVAS = (192, 256)   # height and width that the networks are traced at; the converted ones take any
TELEMETRY = "openvino_telemetry"


class Parts(Protocol):
    """The networks of a model, as a pipeline or `build.Components` has them."""

    @property
    def unet(self) -> ColorUNet: ...

    @property
    def sketch_encoder(self) -> Any: ...

    @property
    def tagger(self) -> TaggerTower | None: ...


class OpenVinoNetworks:
    """The networks that color a frame, compiled. Any thread may call; each network serves one at a time."""

    def __init__(
        self, unet: ColorUNet, networks: "Mapping[str, openvino.Model]", threads: int | None = None
    ) -> None:
        """unet: what the time is embedded and tokens are projected by. threads: None: as many as torch takes."""
        openvino = import_openvino()
        core = openvino.Core()
        settings = settings_of(openvino, threads or torch.get_num_threads())
        self.version = str(openvino.__version__).split("-")[0]
        self._unet = unet
        self._features = last_features(unet)
        self._networks = {name: Compiled(core.compile_model(networks[name], "CPU", settings)) for name in NETWORKS}

    def describe(self) -> str:
        """Tell the engine, for the manifest."""
        return f"openvino {self.version}"

    def denoise(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        y: Tensor | None,
        context: Context,
        sketch_maps: Sequence[Tensor] = (),
        plan: AttentionPlan = PLAIN,
        observe: Observer | None = None,
    ) -> Tensor:
        """Predict from noisy latents as `unet.denoise` does; the observer is told the last features alone."""
        assert plan.region is None and plan.injection is None, "see check_engine_settings"
        assert not (plan.bank or plan.adapters or plan.sides.hints or plan.sides.styles), "see check_engine_settings"
        known = project_context(self._unet, context) if isinstance(context, Tensor) else context
        seen = [_scaled(kv, strength) for kv, strength in zip(known, _strengths(plan, len(known)), strict=True)]
        found = []
        for row in range(len(sample)):
            # The attention of a row that sees nothing is what it is for tokens of zeros.
            reads = seen if plan.seeing_rows is None or row in plan.seeing_rows else self._blank(seen)
            found.append(self._networks["denoise"](
                _row(sample, row), self._embedded(sample, timestep, y, row),
                *(_row(level, row) for level in sketch_maps),
                *(_row(kv.keys, row) for kv in reads), *(_row(kv.values, row) for kv in reads),
            ))
        if observe is not None:
            observe(self._features, torch.cat([features for _, features in found]))
        return torch.cat([prediction for prediction, _ in found])

    def sketch(self, sketch: Tensor) -> list[Tensor]:
        """Encode line art (B, 3, H, W), paper -1 and line +1: the maps, finest first."""
        rows = [self._networks["sketch"](one) for one in sketch.split(1)]
        return [torch.cat(level) for level in zip(*rows, strict=True)]

    def tagger(self, pixels: Tensor) -> Tensor:
        """Encode pictures (B, 3, S, S), as `tagger_pixels` gives them: (B, N, C) tokens."""
        return torch.cat([self._networks["tagger"](one)[0] for one in pixels.split(1)])

    def _embedded(self, sample: Tensor, timestep: Tensor | float, y: Tensor | None, row: int) -> Tensor:
        time = timestep[row] if isinstance(timestep, Tensor) and timestep.dim() else timestep
        return embedding(self._unet, _row(sample, row), time, None if y is None else _row(y, row))

    def _blank(self, like: Sequence[KeyValues]) -> list[KeyValues]:
        zeros = torch.zeros(1, like[0].keys.shape[1], self._unet.config["cross_attention_dim"])
        return project_context(self._unet, zeros)


class Compiled:
    """One compiled network."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = len(compiled.outputs)
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run it on one row of inputs, float32 on the CPU."""
        arrays = [np.ascontiguousarray(x.detach().float().numpy()) for x in inputs]
        with self._lock:
            results = self._request.infer(arrays, share_inputs=True)   # gives copies: the next call overwrites its own
            return [torch.from_numpy(results[i]) for i in range(self._outputs)]


def settings_of(openvino: Any, threads: int) -> dict[str, Any]:
    """Give what networks are compiled with."""
    return {
        # By itself OpenVINO takes bf16 on processors that have it: another picture.
        "INFERENCE_PRECISION_HINT": openvino.Type.f32,
        "EXECUTION_MODE_HINT": "ACCURACY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Reading, finishing and writing run beside the network, and a farm runs several programs on one machine.
        "ENABLE_CPU_PINNING": False,
    }


def open_openvino(parts: Parts, export: Export | None = None, threads: int | None = None) -> OpenVinoNetworks:
    """Give the networks of a model for OpenVINO: those of an export, or converted now, which takes seconds.

    parts: on the CPU, in float32. Raises MissingExtraError, and WeightsError if OpenVINO cannot read the export.
    """
    networks = convert(parts) if export is None else {name: read_network(export.network(name)) for name in NETWORKS}
    try:
        return OpenVinoNetworks(parts.unet, networks, threads)
    except RuntimeError as error:
        if export is None:
            raise
        raise _unreadable(export.folder, error) from error


def read_network(file: Path) -> "openvino.Model":
    """Read one exported network. Raises WeightsError."""
    core = import_openvino().Core()
    try:
        return core.read_model(file)
    except RuntimeError as error:
        raise _unreadable(file, error) from error


def save_networks(networks: "Mapping[str, openvino.Model]", folder: Path) -> None:
    """Write a description and the weights of each network into a folder."""
    openvino = import_openvino()
    for name, network in networks.items():
        # Weights that were stored in 16 bit would stay the same in 16 bit; the tables of positions would not.
        openvino.save_model(network, folder / f"{name}.xml", compress_to_fp16=False)


def convert(parts: Parts) -> "dict[str, openvino.Model]":
    """Convert the networks of a model, on the CPU in float32, for canvases of any size."""
    tagger = parts.tagger
    assert tagger is not None, "see check_engine_family"
    height, width = TRACED_CANVAS
    canvas = torch.zeros(1, 3, height, width)
    latents = torch.zeros(1, parts.unet.config["in_channels"], height // 8, width // 8)
    with torch.no_grad():
        maps = tuple(parts.sketch_encoder(canvas))
        emb = embedding(parts.unet, latents, 0.0, torch.zeros(1, _y_width(parts.unet)))
        known = project_context(parts.unet, torch.zeros(1, 2, parts.unet.config["cross_attention_dim"]))
    tokens = (*(kv.keys for kv in known), *(kv.values for kv in known))
    side = tagger.config["image_size"]
    free, read = (1, None, -1, -1), (1, -1, None)   # None: as it was traced
    return {
        "denoise": _converted(_Denoise(parts.unet), (latents, emb, *maps, *tokens),
                              [free, (1, None), *[free] * len(maps), *[read] * len(tokens)]),
        "sketch": _converted(_Sketch(parts.sketch_encoder), (canvas,), [free]),
        "tagger": _converted(tagger, (torch.zeros(1, 3, side, side),), [(1, None, None, None)]),
    }


def _converted(
    network: nn.Module, example: Sequence[Tensor], shapes: Sequence[Sequence[int | None]]
) -> "openvino.Model":
    """Convert one network. shapes: of each tensor of the example; -1 may be any size, None is as in the example."""
    openvino = import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch import ConversionExtension
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    frontend.add_extension(ConversionExtension("aten::mT", _transposed))
    frontend.add_extension(ConversionExtension("aten::group_norm", _group_norm))
    with torch.no_grad(), warnings.catch_warnings():
        # That a trace holds for the sizes of its example alone is tested: other sizes give what torch gives.
        warnings.simplefilter("ignore")
        # Frozen, there is a third of the nodes to convert.
        traced = torch.jit.freeze(torch.jit.trace(network.eval(), tuple(example), check_trace=False))
        decoder = TorchScriptPythonDecoder(traced, shared_memory=False)   # has to live until all is converted
        model = frontend.load(decoder)
        for given, x, wishes in zip(model.get_inputs(), example, shapes, strict=True):
            sides = [side if wish is None else wish for side, wish in zip(x.shape, wishes, strict=True)]
            model.set_partial_shape(given, openvino.PartialShape(sides))
            model.set_element_type(given, openvino.Type.f32)
        return frontend.convert(model)


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would report the import to its makers. Raises MissingExtraError."""
    require_openvino()
    with _blocked(TELEMETRY):
        import openvino
    return openvino


@contextlib.contextmanager
def _blocked(module: str) -> Iterator[None]:
    """Let the import of a module fail: OpenVINO then takes a stand-in that sends nothing."""
    if "openvino" in sys.modules or module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


class _Denoise(nn.Module):
    """The denoising network behind its embeddings, with projected context; gives its last features beside."""

    def __init__(self, unet: ColorUNet) -> None:
        super().__init__()
        self.unet = unet
        self.blocks = len(transformer_blocks(unet))

    def forward(self, latents: Tensor, emb: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        maps, tokens = rest[: -2 * self.blocks], rest[-2 * self.blocks :]
        seen = Sighting(last_features(self.unet))
        context = [KeyValues(tokens[i], tokens[self.blocks + i]) for i in range(self.blocks)]
        prediction = denoise_embedded(self.unet, latents, emb, context, maps, observe=seen)
        return prediction, seen.features


class _Sketch(nn.Module):
    def __init__(self, encoder: SketchEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, sketch: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encoder(sketch))


def _transposed(node: Any) -> list[Any]:
    """Translate `x.mT`, which OpenVINO does not know; in these networks x is always (B, C, N)."""
    from openvino import opset13

    return [opset13.transpose(node.get_input(0), opset13.constant(np.array([0, 2, 1], np.int64))).output(0)]


def _group_norm(node: Any) -> list[Any]:
    """Translate a group norm of maps (B, C, h, w) into one whose sums do not depend on the count of threads.

    OpenVINO's own splits the numbers of a group among the threads; of a row, each thread sums whole ones.
    """
    from openvino import opset13 as op

    x, weight, bias = node.get_input(0), node.get_input(2), node.get_input(3)
    groups, epsilon = node.get_values_from_const_input(1), node.get_values_from_const_input(4)
    of_groups = op.constant(np.array([0, groups, -1], np.int64))
    rows = op.reshape(x, of_groups, special_zero=True)  # (B, groups, C / groups * h * w)
    even = op.mvn(rows, op.constant(np.array([2], np.int64)), True, epsilon, "inside_sqrt")
    maps = op.reshape(even, op.shape_of(x), special_zero=False)  # (B, C, h, w)
    of_channels = op.constant(np.array([1, -1, 1, 1], np.int64))
    scale, shift = (op.reshape(values, of_channels, special_zero=False) for values in (weight, bias))
    return [op.add(op.multiply(maps, scale), shift).output(0)]


def _y_width(unet: ColorUNet) -> int:
    return int(unet.config["projection_class_embeddings_input_dim"])


def _strengths(plan: AttentionPlan, blocks: int) -> Sequence[float]:
    return [plan.strengths] * blocks if isinstance(plan.strengths, int | float) else plan.strengths


def _scaled(kv: KeyValues, strength: float) -> KeyValues:
    """What cross-attention reads is linear in its values, so its strength may as well be theirs."""
    return kv if strength == 1 else KeyValues(kv.keys, kv.values * strength)


def _row(x: Tensor, row: int) -> Tensor:
    """One row of a tensor that may have one for all."""
    return x if x.shape[0] == 1 else x[row : row + 1]


def _unreadable(file: Path, error: Exception) -> WeightsError:
    reason = str(error).strip().splitlines()[-1][:200]
    return WeightsError(f"OpenVINO cannot read {file}: {reason}", hint=f"make it again: {EXPORT_AGAIN}")

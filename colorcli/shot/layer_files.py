"""The layers of a frame as files in OUT/layers: which there are, writing them, copying them, and taking old ones away.

They are written before the frame itself, each whole or not at all, and stand in its record: a frame that is recorded as
done has all of them.
"""

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from colorcli.errors import OutputError
from colorcli.files import open_plain
from colorcli.finish.layers import Layer, LayeredFrame
from colorcli.finish.multipart import Part, write_parts
from colorcli.finish.psd import PsdGroup, PsdLayer, require_psd_tools, write_psd
from colorcli.images import CONTAINERS, PixelFormat, decode_srgb, write_picture
from colorcli.presets import LayerFiles, LayerName, Preset
from colorcli.shot.manifest import FrameRecord, output_error, write_atomically

Float = NDArray[np.float32]

LAYERS_FOLDER = "layers"
RECOMPOSED = "line over (color over paper); color is flat times shade"


@dataclass(frozen=True)
class LayerFile:
    """One file beside a frame."""

    path: str                     # as seen from OUT, with "/"
    kind: LayerFiles
    names: tuple[LayerName, ...]  # of the layers in it


def layer_files(output: str, preset: Preset) -> tuple[LayerFile, ...]:
    """List the files that a preset wants beside the frame with the file name `output`."""
    wanted = preset.layers
    names = tuple(dict.fromkeys(wanted.names))
    if not names:
        return ()
    path = PurePosixPath(output)
    if _is_cut_out(path.suffix, preset):
        names = tuple(name for name in names if name != "paper")
    found: list[LayerFile] = []
    for kind in dict.fromkeys(wanted.files):
        if kind == "sequences":
            name = f"{path.stem}.png" if _has_no_alpha(path.suffix) else path.name
            found += [LayerFile(f"{LAYERS_FOLDER}/{layer}/{name}", kind, (layer,)) for layer in names]
        else:
            found.append(LayerFile(f"{LAYERS_FOLDER}/{path.stem}.{kind}", kind, names))
    return tuple(found)


def folders_written(out: Path) -> list[Path]:
    """The folders in which files of frames are written: OUT, and those of its layers. Links are none."""
    layers = out / LAYERS_FOLDER
    if layers.is_symlink():
        return [out]
    try:
        with os.scandir(layers) as entries:
            return [out, layers, *(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))]
    except OSError:
        return [out]


def refuse_links(out: Path, path: str) -> None:
    """Raise OutputError if a folder between OUT and one of its files is a link: what lies behind it is not OUT's.

    path: of the file as seen from OUT, with "/". OUT itself may be a link: the user has named it.
    """
    for folder in reversed(PurePosixPath(path).parents[:-1]):
        if (out / folder).is_symlink():
            raise output_error(out / folder, OSError(errno.ELOOP, "it is a link"))


def check_layers(preset: Preset) -> None:
    """Raise MissingExtraError if a file is wanted that cannot be written here."""
    if preset.layers.names and "psd" in preset.layers.files:
        require_psd_tools()


def are_recorded(files: Iterable[LayerFile], record: FrameRecord) -> bool:
    """Whether a frame was made with these files, by its record."""
    return all(set(file.names) <= set(record.layers.get(file.path, ())) for file in files)


def is_flattened(pixel_format: PixelFormat) -> bool:
    """Whether a picture loses its alpha in such a file."""
    return pixel_format.container == "jpeg"


def write_layers(
    out: Path,
    files: Sequence[LayerFile],
    layered: LayeredFrame,
    pixel_format: PixelFormat,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the layers of a frame. pixel_format: of the frame itself; layers of a JPEG are PNG, for they have alpha.

    notes: what each file says of itself, by name.
    Raises OutputError, and FrameError if a frame is too large for one of the formats.
    """
    names = list(dict.fromkeys(name for file in files for name in file.names))
    sequences = {file.names[0]: out / file.path for file in files if file.kind == "sequences"}
    files_of = {file.kind: out / file.path for file in files if file.kind != "sequences"}
    for file in files:
        _make_folder(out, file.path)
    if is_flattened(pixel_format):
        pixel_format = PixelFormat("png", "uint8")
    single = pixel_format == PixelFormat("exr", "float")
    linear = pixel_format.container == "exr"
    if "exr" in files_of or (sequences and linear):
        parts = []
        for layer in layered.layers(names, linear=True):
            if linear and layer.name in sequences:
                write_parts(sequences[layer.name], [_part(layer, "", notes)], single=single)
            if "exr" in files_of:
                # All of them wait in memory for the first one.
                parts.append(_part(layer, layer.name, notes).rounded(single))
        if "exr" in files_of:
            write_parts(files_of["exr"], [_beauty(layered, notes), *reversed(parts)], single=single)
    if "psd" in files_of or (sequences and not linear):
        made = []
        for layer in layered.layers(names, linear=False):
            if not linear and layer.name in sequences:
                _write_encoded(sequences[layer.name], layer, pixel_format, notes)
            if "psd" in files_of:
                made.append(layer)
        if "psd" in files_of:
            _write_psd(files_of["psd"], made, layered, pixel_format.depth != "uint8", notes)


def copy_layers(out: Path, leader: str, output: str, preset: Preset) -> None:
    """Give a held drawing the layers of its leader; both are file names in OUT. Raises OutputError."""
    for source, target in zip(layer_files(leader, preset), layer_files(output, preset), strict=True):
        _make_folder(out, target.path)
        try:
            with open_plain(out / source.path) as file:
                data = file.read()
        except OSError as error:
            raise output_error(out / source.path, error) from error
        write_atomically(out / target.path, data)


def with_earlier_layers(out: Path, before: FrameRecord, record: FrameRecord) -> FrameRecord:
    """Give the record of a frame that was made anew the layers of before that go with it, and take the others away.

    Those of the same picture stay. Nobody shall lay those of another one over this.
    Raises OutputError if they lie behind a link.
    """
    # What names files outside of OUT does not count as a record.
    earlier = [path for path in before.outputs if path not in record.outputs]
    kept = [path for path in earlier if before.fingerprint == record.fingerprint and (out / path).is_file()]
    for path in earlier:
        if path not in kept and PurePosixPath(path).parts[0] == LAYERS_FOLDER:
            refuse_links(out, path)
            with contextlib.suppress(OSError):
                (out / path).unlink()
    return record.model_copy(
        update={
            name: {path: getattr(before, name)[path] for path in kept if path in getattr(before, name)}
            | getattr(record, name)
            for name in ("outputs", "outputs_stamps", "layers")
        }
    )


def _is_cut_out(suffix: str, preset: Preset) -> bool:
    """Whether nothing lies behind the character."""
    cut_out = preset.background.rule == "transparent" or preset.output.alpha == "mask"
    return cut_out and preset.output.alpha != "none" and not _has_no_alpha(suffix)


def _has_no_alpha(suffix: str) -> bool:
    return CONTAINERS.get(suffix.lower()) == "jpeg"


def _make_folder(out: Path, path: str) -> None:
    """Make the folder of a file in OUT. Raises OutputError."""
    refuse_links(out, path)
    folder = (out / path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if folder.exists():
            raise OutputError(f"{folder} is a file, not a folder", hint="take it away: layers go there") from error
        raise output_error(folder, error) from error


def _write_encoded(path: Path, layer: Layer, pixel_format: PixelFormat, notes: Mapping[str, str]) -> None:
    """Write a layer into a file of sRGB-encoded, straight color."""
    color, alpha = layer.whole()
    if color is None:
        assert alpha is not None
        write_picture(path, alpha, None, pixel_format, notes)
    else:
        write_picture(path, color, alpha, pixel_format, notes)


def _part(layer: Layer, name: str, notes: Mapping[str, str]) -> Part:
    color, alpha = layer.whole()
    if color is not None and alpha is not None:
        color = color * alpha[..., None]
    how = {"shade": "multiply", "matte": "none"}.get(layer.name, "over")
    return Part(name, color, alpha, {**notes, "colorcli.layer": layer.name, "colorcli.operation": how})


def _beauty(layered: LayeredFrame, notes: Mapping[str, str]) -> Part:
    """The finished frame."""
    color, alpha = decode_srgb(np.clip(layered.color, 0, 1)), layered.alpha
    color = color if alpha is None else color * alpha[..., None]
    return Part("", color, alpha, {**notes, "colorcli.layer": "beauty", "colorcli.recomposed": RECOMPOSED})


def _write_psd(
    path: Path, layers: Sequence[Layer], layered: LayeredFrame, deep: bool, notes: Mapping[str, str]
) -> None:
    """Write layers such that those that are shown are the finished frame."""
    shown = {"paper", "color", *(["line"] if layered.preset.finish.lines == "original" else [])}
    if not any(layer.name == "color" for layer in layers):
        shown |= {"flat"}
    made = {layer.name: _psd_layer(layer, layer.name in shown) for layer in layers}
    laid: list[PsdLayer | PsdGroup] = list(made.values())
    if "flat" in made and "shade" in made:
        # Multiplied by themselves, without a soft edge, and cut out together: else programs disagree about the edge.
        flat, mask = made["flat"], made["flat"].alpha
        assert mask is not None
        both = (replace(flat, alpha=None, visible=True), replace(made["shade"], visible=True))
        group = PsdGroup("flat and shade", both, flat.left, flat.top, mask, flat.visible)
        laid = [group if layer is flat else layer for layer in laid if layer is not made["shade"]]
    write_psd(path, laid, layered.color, layered.alpha, deep=deep, notes=notes)


def _psd_layer(layer: Layer, visible: bool) -> PsdLayer:
    color, alpha, box = layer.color, layer.alpha, layer.box
    if 0 in box[2:]:   # of an empty frame
        box, color, alpha = (0, 0, 1, 1), np.ones((1, 1, 3), np.float32), np.zeros((1, 1), np.float32)
    elif color is None:
        assert alpha is not None
        color, alpha = alpha, None
    return PsdLayer(layer.name, box[0], box[1], color, alpha, visible, multiply=layer.name == "shade")

"""Layered Photoshop files, 8 or 16 bits a channel; from the package psd-tools, which the extra `psd` brings."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from colorcli.errors import FrameError, MissingExtraError
from colorcli.images import whole_file

if TYPE_CHECKING:
    from psd_tools.psd.image_resources import ImageResources
    from psd_tools.psd.layer_and_mask import ChannelImageData, LayerRecords

Float = NDArray[np.float32]

LONGEST_SIDE = 30_000   # pixels, of a PSD file


@dataclass(frozen=True)
class PsdLayer:
    """One layer of a PSD file."""

    name: str
    left: int
    top: int
    color: Float          # (h, w, 3) sRGB-encoded, straight, or (h, w) gray
    alpha: Float | None   # (h, w); None: opaque
    visible: bool = True
    multiply: bool = False   # it is multiplied with the layer right below it, and reaches no further than that


def require_psd_tools() -> None:
    """Raise MissingExtraError if psd-tools is not installed."""
    if importlib.util.find_spec("psd_tools") is None:
        raise MissingExtraError(
            "layered PSD files need the package psd-tools, which is not installed",
            hint="pip install 'colorcli[psd]', or take --layers-as exr",
        )


def write_psd(path: Path, layers: Sequence[PsdLayer], color: Float, alpha: Float | None, *, deep: bool) -> None:
    """Write a layered file whole or not at all. layers: from the bottom up.

    color, alpha: (H, W, 3) and (H, W), the finished picture, for programs that show no layers. deep: 16 bits a channel.
    Raises OutputError; FrameError if the frame is larger than a PSD file may be.
    """
    from psd_tools.constants import ColorMode, Compression, Tag
    from psd_tools.psd import PSD
    from psd_tools.psd.header import FileHeader
    from psd_tools.psd.image_data import ImageData
    from psd_tools.psd.layer_and_mask import GlobalLayerMaskInfo, LayerAndMaskInformation, LayerInfo, LayerInfoBlock
    from psd_tools.psd.tagged_blocks import TaggedBlock, TaggedBlocks

    height, width = color.shape[:2]
    if max(height, width) > LONGEST_SIDE:
        raise FrameError(
            f"{path.stem} is {width}x{height}, and a PSD file holds {LONGEST_SIDE} pixels a side",
            hint="take --layers-as exr",
        )
    depth = 16 if deep else 8
    if alpha is not None:
        color = (color - 1) * alpha[..., None] + 1   # as Photoshop keeps it: over white
    planes = _planes(color, alpha, depth)
    header = FileHeader(channels=len(planes), height=height, width=width, depth=depth, color_mode=ColorMode.RGB)
    records, channels = _records(layers, depth)
    # A count below zero says that the fourth channel of the picture is its alpha.
    count = len(layers) if alpha is None else -len(layers)
    if deep:   # layers of more than 8 bits have a place of their own
        info = LayerInfoBlock(count, records, channels)
        blocks = TaggedBlocks([(Tag.LAYER_16, TaggedBlock(key=Tag.LAYER_16, data=info))])  # type: ignore[arg-type]
        inside = LayerAndMaskInformation(LayerInfo(), GlobalLayerMaskInfo(), blocks)
    else:
        inside = LayerAndMaskInformation(LayerInfo(count, records, channels), GlobalLayerMaskInfo())
    picture = ImageData(compression=Compression.RLE)
    picture.set_data(planes, header)
    document = PSD(header, image_resources=_resources(), layer_and_mask_information=inside, image_data=picture)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        document.write(file)


def _records(layers: Sequence[PsdLayer], depth: int) -> "tuple[LayerRecords, ChannelImageData]":
    """The layers as the format has them: what is known of each, and their channels."""
    from psd_tools.constants import BlendMode, ChannelID, Clipping, Compression
    from psd_tools.psd.layer_and_mask import (
        ChannelData,
        ChannelDataList,
        ChannelImageData,
        ChannelInfo,
        LayerFlags,
        LayerRecord,
        LayerRecords,
    )

    # What Photoshop takes itself; runs of equal bytes are rare where a number has two.
    packing = Compression.RLE if depth == 8 else Compression.ZIP_WITH_PREDICTION
    records, images = LayerRecords(), ChannelImageData()
    for layer in layers:
        height, width = layer.color.shape[:2]
        color = layer.color if layer.color.ndim == 3 else np.repeat(layer.color[..., None], 3, axis=2)
        alpha = np.ones((height, width), np.float32) if layer.alpha is None else layer.alpha
        channels = ChannelDataList()
        *colors, cover = _planes(color, alpha, depth)
        for plane in (cover, *colors):
            packed = ChannelData(packing)
            packed.set_data(plane, width, height, depth)
            channels.append(packed)
        images.append(channels)
        ids = (ChannelID.TRANSPARENCY_MASK, ChannelID.CHANNEL_0, ChannelID.CHANNEL_1, ChannelID.CHANNEL_2)
        record = LayerRecord(
            layer.top,
            layer.left,
            layer.top + height,
            layer.left + width,
            [ChannelInfo(number, 2 + len(packed.data)) for number, packed in zip(ids, channels, strict=True)],
            blend_mode=BlendMode.MULTIPLY if layer.multiply else BlendMode.NORMAL,
            clipping=Clipping.NON_BASE if layer.multiply else Clipping.BASE,
            flags=LayerFlags(visible=layer.visible),
            name=layer.name,
        )
        records.append(record)
    return records, images


def _planes(color: Float, alpha: Float | None, depth: int) -> list[bytes]:
    """The channels of a picture, each as the bytes of whole numbers, the larger byte first."""
    top, kind = (255, ">u1") if depth == 8 else (65535, ">u2")
    planes = [color[..., place] for place in range(3)] + ([] if alpha is None else [alpha])
    return [np.rint(np.clip(plane, 0, 1) * np.float32(top)).astype(kind).tobytes() for plane in planes]


def _resources() -> "ImageResources":
    """What a program has to know of the picture: its colors are sRGB."""
    from psd_tools.constants import Resource
    from psd_tools.psd.image_resources import ImageResource, ImageResources, VersionInfo

    version = VersionInfo(has_composite=True, writer="colorcli", reader="colorcli")
    given: dict[Resource, Any] = {Resource.ICC_PROFILE: _srgb_profile(), Resource.VERSION_INFO: version}
    entries = [(key, ImageResource(key=key, data=data)) for key, data in given.items()]
    return ImageResources(entries)  # type: ignore[arg-type]


@cache
def _srgb_profile() -> bytes:
    """The ICC profile of sRGB, without the time at which it was made."""
    from PIL import ImageCms

    profile: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]

"""Layered Photoshop files, 8 or 16 bits a channel; from the package psd-tools, which the extra `psd` brings."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from colorcli.errors import FrameError, MissingExtraError
from colorcli.whole_file import whole_file

if TYPE_CHECKING:
    from psd_tools.constants import ChannelID, SectionDivider
    from psd_tools.psd.image_resources import ImageResources
    from psd_tools.psd.layer_and_mask import (
        ChannelDataList,
        ChannelImageData,
        ChannelInfo,
        LayerRecord,
        LayerRecords,
    )

    Entry = tuple[LayerRecord, ChannelDataList]

Float = NDArray[np.float32]

LONGEST_SIDE = 30_000   # pixels, of a PSD file


@dataclass(frozen=True)
class PsdLayer:
    """One layer of a PSD file."""

    name: str
    left: int
    top: int
    color: Float             # (h, w, 3) sRGB-encoded, straight, or (h, w) gray
    alpha: Float | None      # (h, w); None: opaque
    visible: bool = True
    multiply: bool = False   # with what lies below it


@dataclass(frozen=True)
class PsdGroup:
    """Layers that are laid over each other by themselves, and shown through a mask."""

    name: str
    layers: tuple[PsdLayer, ...]  # from the bottom up
    left: int
    top: int
    mask: Float                   # (h, w)
    visible: bool = True


def require_psd_tools() -> None:
    """Raise MissingExtraError if psd-tools is not installed."""
    if importlib.util.find_spec("psd_tools") is None:
        raise MissingExtraError(
            "layered PSD files need the package psd-tools, which is not installed",
            hint="pip install 'colorcli[psd]', or take --layers-as exr",
        )


def write_psd(
    path: Path,
    layers: Sequence[PsdLayer | PsdGroup],
    color: Float,
    alpha: Float | None,
    *,
    deep: bool,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a layered file whole or not at all. layers: from the bottom up.

    color, alpha: (H, W, 3) and (H, W), the finished picture, for programs that show no layers. deep: 16 bits a channel.
    notes: what the file says of itself, by name.
    Raises OutputError; FrameError if the frame is larger than a PSD file may be; MissingExtraError.
    """
    require_psd_tools()
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
    count = len(records) if alpha is None else -len(records)
    if deep:   # layers of more than 8 bits have a place of their own
        info = LayerInfoBlock(count, records, channels)
        blocks = TaggedBlocks([(Tag.LAYER_16, TaggedBlock(key=Tag.LAYER_16, data=info))])  # type: ignore[arg-type]
        inside = LayerAndMaskInformation(LayerInfo(), GlobalLayerMaskInfo(), blocks)
    else:
        inside = LayerAndMaskInformation(LayerInfo(count, records, channels), GlobalLayerMaskInfo())
    picture = ImageData(compression=Compression.RLE)
    picture.set_data(planes, header)
    document = PSD(header, image_resources=_resources(notes), layer_and_mask_information=inside, image_data=picture)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        document.write(file)


def _records(layers: Sequence[PsdLayer | PsdGroup], depth: int) -> "tuple[LayerRecords, ChannelImageData]":
    """The layers as the format has them: what is known of each, and their channels."""
    from psd_tools.constants import SectionDivider
    from psd_tools.psd.layer_and_mask import ChannelImageData, LayerRecords

    records, images = LayerRecords(), ChannelImageData()
    for layer in layers:
        if isinstance(layer, PsdLayer):
            entries = [_layer(layer, depth)]
        else:
            # A group is its layers between two layers without pixels.
            begin = _divider("</Layer group>", SectionDivider.BOUNDING_SECTION_DIVIDER)
            entries = [begin, *(_layer(one, depth) for one in layer.layers), _head(layer, depth)]
        for record, channels in entries:
            records.append(record)
            images.append(channels)
    return records, images


def _layer(layer: PsdLayer, depth: int) -> "Entry":
    from psd_tools.constants import BlendMode, ChannelID
    from psd_tools.psd.layer_and_mask import LayerFlags, LayerRecord

    height, width = layer.color.shape[:2]
    color = layer.color if layer.color.ndim == 3 else np.repeat(layer.color[..., None], 3, axis=2)
    alpha = np.ones((height, width), np.float32) if layer.alpha is None else layer.alpha
    *colors, cover = _planes(color, alpha, depth)
    ids = (ChannelID.TRANSPARENCY_MASK, ChannelID.CHANNEL_0, ChannelID.CHANNEL_1, ChannelID.CHANNEL_2)
    info, channels = _channels(dict(zip(ids, (cover, *colors), strict=True)), width, height, depth)
    record = LayerRecord(
        layer.top,
        layer.left,
        layer.top + height,
        layer.left + width,
        info,
        blend_mode=BlendMode.MULTIPLY if layer.multiply else BlendMode.NORMAL,
        flags=LayerFlags(visible=layer.visible),
        name=layer.name,
    )
    return record, channels


def _head(group: PsdGroup, depth: int) -> "Entry":
    """What ends a group, above its layers, and says of it what there is to say."""
    from psd_tools.constants import ChannelID, SectionDivider
    from psd_tools.psd.layer_and_mask import LayerFlags, MaskData

    record, channels = _divider(group.name, SectionDivider.OPEN_FOLDER)
    height, width = group.mask.shape
    (plane,) = _planes(group.mask[..., None], None, depth)
    info, mask = _channels({ChannelID.USER_LAYER_MASK: plane}, width, height, depth)
    record.mask_data = MaskData(group.top, group.left, group.top + height, group.left + width)
    record.flags = LayerFlags(visible=group.visible)
    record.channel_info += info
    channels.append(mask[0])
    return record, channels


def _divider(name: str, kind: "SectionDivider") -> "Entry":
    """A layer without pixels, which begins or ends a group."""
    from psd_tools.constants import BlendMode, ChannelID, Tag
    from psd_tools.psd.layer_and_mask import ChannelData, ChannelDataList, ChannelInfo, LayerRecord
    from psd_tools.psd.tagged_blocks import TaggedBlocks

    blocks = TaggedBlocks()
    # Of their own, and not laid onto what is below one by one.
    blocks.set_data(Tag.SECTION_DIVIDER_SETTING, kind=kind, signature=b"8BIM", blend_mode=BlendMode.NORMAL)
    ids = (ChannelID.TRANSPARENCY_MASK, ChannelID.CHANNEL_0, ChannelID.CHANNEL_1, ChannelID.CHANNEL_2)
    record = LayerRecord(channel_info=[ChannelInfo(number, 2) for number in ids], name=name, tagged_blocks=blocks)
    channels = ChannelDataList()
    for _ in ids:
        channels.append(ChannelData())
    return record, channels


def _channels(
    planes: "Mapping[ChannelID, bytes]", width: int, height: int, depth: int
) -> "tuple[list[ChannelInfo], ChannelDataList]":
    """Channels by what they are, packed."""
    from psd_tools.constants import Compression
    from psd_tools.psd.layer_and_mask import ChannelData, ChannelDataList, ChannelInfo

    # What Photoshop takes itself; runs of equal bytes are rare where a number has two.
    packing = Compression.RLE if depth == 8 else Compression.ZIP_WITH_PREDICTION
    info, channels = [], ChannelDataList()
    for number, plane in planes.items():
        packed = ChannelData(packing)
        packed.set_data(plane, width, height, depth)
        info.append(ChannelInfo(number, 2 + len(packed.data)))
        channels.append(packed)
    return info, channels


def _planes(color: Float, alpha: Float | None, depth: int) -> list[bytes]:
    """The channels of a picture, each as the bytes of whole numbers, the larger byte first."""
    top, kind = (255, ">u1") if depth == 8 else (65535, ">u2")
    planes = [color[..., place] for place in range(color.shape[2])] + ([] if alpha is None else [alpha])
    return [np.rint(np.clip(plane, 0, 1) * np.float32(top)).astype(kind).tobytes() for plane in planes]


def _resources(notes: Mapping[str, str]) -> "ImageResources":
    """What a program has to know of the picture: its colors are sRGB. And what the picture says of itself."""
    from psd_tools.constants import Resource
    from psd_tools.psd.image_resources import ImageResource, ImageResources, VersionInfo

    version = VersionInfo(has_composite=True, writer="colorcli", reader="colorcli")
    given: dict[Resource, Any] = {Resource.ICC_PROFILE: _srgb_profile(), Resource.VERSION_INFO: version}
    if notes:
        given[Resource.XMP_METADATA] = _xmp(notes)
    entries = [(key, ImageResource(key=key, data=data)) for key, data in given.items()]
    return ImageResources(entries)  # type: ignore[arg-type]


def _xmp(notes: Mapping[str, str]) -> bytes:
    """The notes as Adobe's XMP: a description in lines, and the two that have a place of their own."""
    lines = "\n".join(f"{name}: {text}" for name, text in notes.items())
    source = notes.get("DigitalSourceType")
    kind = f"<Iptc4xmpExt:DigitalSourceType>{escape(source)}</Iptc4xmpExt:DigitalSourceType>" if source else ""
    tool = escape(notes.get("Software", "colorcli"))
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f"<xmp:CreatorTool>{tool}</xmp:CreatorTool>{kind}<dc:description><rdf:Alt>"
        f'<rdf:li xml:lang="x-default">{escape(lines)}</rdf:li></rdf:Alt></dc:description>'
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


@cache
def _srgb_profile() -> bytes:
    """The ICC profile of sRGB, without the time at which it was made."""
    from PIL import ImageCms

    profile: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + bytes(12) + profile[36:]

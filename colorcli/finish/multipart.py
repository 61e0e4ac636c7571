"""OpenEXR files of several parts, one a layer: linear Rec.709, multiplied by alpha, and tagged so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

from colorcli.images import CHROMATICITIES
from colorcli.whole_file import whole_file

Light = NDArray[np.float32] | NDArray[np.float16]


@dataclass(frozen=True)
class Part:
    """One part of an EXR file. Of color and alpha at least one is there."""

    name: str             # empty: the only part, or the one that a program shows that knows of no others
    color: Light | None   # (H, W, 3) linear, multiplied by alpha
    alpha: Light | None   # (H, W)
    about: Mapping[str, str] = field(default_factory=dict)  # attributes of the part

    @property
    def channels(self) -> dict[str, Light]:
        """The channels as compositors name them: R, G, B, A, behind the name of the part; a matte is Y."""
        given: dict[str, Light] = {}
        if self.color is not None:
            given = {name: self.color[..., place] for place, name in enumerate("RGB")}
        if self.alpha is not None:
            given["A" if given else "Y"] = self.alpha
        return {f"{self.name}.{name}" if self.name else name: values for name, values in given.items()}

    def rounded(self, single: bool) -> "Part":
        """The same in the numbers of the file, which take half the memory if they are not single."""

        def light(values: Light | None) -> Light | None:
            return None if values is None else values.astype(np.float32) if single else values.astype(np.float16)

        return replace(self, color=light(self.color), alpha=light(self.alpha))


def write_parts(path: Path, parts: Sequence[Part], *, single: bool = False) -> None:
    """Write parts of one size into an EXR file, whole or not at all, half, or single precision (`single`).

    Raises OutputError.
    """
    number = np.float32 if single else np.float16
    specs = [_spec(part, "float" if single else "half", alone=len(parts) == 1) for part in parts]
    with whole_file(path) as temporary:
        output = oiio.ImageOutput.create("openexr")
        assert output is not None
        done = output.open(str(temporary), specs if len(specs) > 1 else specs[0])
        for place, (part, spec) in enumerate(zip(parts, specs, strict=True)):
            if place > 0:
                done = done and output.open(str(temporary), spec, "AppendSubimage")
            pixels = np.stack(list(part.channels.values()), axis=-1).astype(number)
            done = done and output.write_image(pixels)
        done = output.close() and done
        problem = output.geterror()
        if problem or not done:
            raise OSError(problem.strip().partition("\n")[0] or "the file could not be written")


def _spec(part: Part, depth: str, alone: bool) -> oiio.ImageSpec:
    channels = part.channels
    height, width = next(iter(channels.values())).shape
    spec = oiio.ImageSpec(width, height, len(channels), depth)
    spec.channelnames = tuple(channels)
    spec.alpha_channel = len(channels) - 1 if part.alpha is not None and part.color is not None else -1
    # No time of writing: a frame has the same bytes whenever it is colored.
    spec.attribute("DateTime", "")
    spec.attribute("compression", "zip")
    spec.attribute("oiio:ColorSpace", "lin_rec709_scene")
    spec.attribute("chromaticities", "float[8]", CHROMATICITIES)
    if not alone:
        spec.attribute("oiio:subimagename", part.name or "beauty")
    for name, value in part.about.items():
        spec.attribute(name, value)
    return spec

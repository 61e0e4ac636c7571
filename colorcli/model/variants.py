"""The models by name, and every number that planning and preparation need of them. No torch here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """What a model asks of its canvas."""

    name: str
    canvas_area: int      # pixels; the frame is scaled so that its canvas has about this area
    multiple_of: int      # both canvas sides are multiples of this, in pixels
    min_side: int         # shortest canvas side in pixels
    max_side: int         # longest canvas side in pixels
    license: str          # SPDX id of the weights
    shipped: bool         # the weights are inside the package


VARIANTS = {
    "mini": Variant("mini", canvas_area=320 * 320, multiple_of=32, min_side=128, max_side=1024, license="Apache-2.0", shipped=True),
}

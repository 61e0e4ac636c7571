"""Presets: every setting of a render, in groups, with unit, range and default."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class Group(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CanvasSettings(Group):
    """How a frame is laid onto the model's canvas."""

    crop: Literal["drawing", "frame"] = Field("drawing", description="what fills the canvas: the drawing's bounds, or all")
    margin: float = Field(0.05, ge=0.0, le=0.5, description="white around the drawing, as a fraction of its longer side")
    area: int | None = Field(None, ge=64 * 64, le=2048 * 2048, description="canvas area in pixels; null: the model's own")


class LineSettings(Group):
    """How a drawing is cleaned before the model sees it."""

    mode: Literal["clean", "pencil", "extract"] = Field(
        "clean", description="clean: inked lines; pencil: soft gray lines; extract: lines are found in a color drawing"
    )
    polarity: Literal["auto", "dark-on-light", "light-on-dark"] = Field("auto", description="which of the two is the line")
    paper: Unit = Field(0.92, description="luminance above this is paper")
    min_stroke_px: int = Field(4, ge=0, le=1000, description="smaller separate marks are dust, in pixels of area at source size")
    extractor: Literal["xdog", "highpass"] = Field("xdog", description="for extract: XDoG, or the high-pass line filter")


class MaskSettings(Group):
    """Where the character is."""

    source: Literal["auto", "alpha", "files", "paper", "none"] = Field(
        "auto", description="auto: --masks if given, else alpha if the picture has one that means something, else paper"
    )
    merge: Literal["union", "first"] = Field("union", description="how several mask directories become one mask")
    grow_px: int = Field(0, ge=0, le=200, description="the mask is grown by this radius, in source pixels")


class ReferenceSettings(Group):
    """How strongly the key speaks."""

    strength: Unit = Field(1.0, description="multiplies every reference attention")
    foreground_strength: Unit = Field(1.0, description="strength inside the character mask")
    background_strength: Unit = Field(1.0, description="strength outside the character mask")
    merge: Unit = Field(0.0, description="how much of the background's colors goes into the character (merging scale)")
    guidance: float = Field(1.0, ge=1.0, le=15.0, description="reference guidance scale; 1 is off")
    padding: float = Field(1.0, ge=1.0, le=2.0, description="white to the left and right of the key, as a factor of its width")
    mask_threshold: Unit = Field(0.5, description="the key's mask above this is character (bleaching)")


class SketchSettings(Group):
    """How strongly the line art speaks."""

    strength: float = Field(1.0, ge=0.0, le=3.0, description="multiplies every sketch map")
    levels: tuple[float, float, float, float] = Field((1.0, 1.0, 1.0, 1.0), description="multiplies each map, finest first")
    guidance: float = Field(1.0, ge=1.0, le=5.0, description="sketch guidance scale; 1 is off")
    mask_threshold: Unit = Field(0.05, description="the frame's mask above this is character (split attention)")


class BackgroundSettings(Group):
    """What lies outside the character."""

    rule: Literal["white", "transparent", "keep", "model"] = Field(
        "white",
        description="white or transparent paper; keep: the key's flat background color; model: what the model paints there",
    )
    split: bool = Field(False, description="split attention: the background sees only the bleached key")


class SamplingSettings(Group):
    """How the picture is drawn out of noise."""

    sampler: Literal["ddim", "euler", "dpm++2m"] = "ddim"
    steps: int = Field(6, ge=1, le=100)
    seed: int = Field(7, ge=0, lt=2**32, description="the same noise for every frame of the shot keeps the color steady")
    start: Literal["match", "noise"] = Field("match", description="match: begin from the key's colors matched to the frame's parts")
    start_level: Unit = Field(0.6, description="for match: how much of the noise schedule is run, 1 is all of it")
    window: tuple[Unit, Unit] = Field((0.0, 1.0), description="progress between which the reference is seen")
    off_window: tuple[float, float] = Field((-0.05, -0.05), description="progress between which it is not seen")


class FinishSettings(Group):
    """How the model's colors become the final picture."""

    fill: Literal["flat", "soft"] = Field("flat", description="flat: one color a closed region; soft: the model's shades, kept inside lines")
    palette: Literal["key", "off"] = Field("key", description="key: flat colors are snapped to the colors of the key")
    palette_reach: float = Field(12.0, ge=0.0, le=100.0, description="largest CIEDE2000 distance over which a color is snapped")
    lines: Literal["original", "none"] = Field("original", description="original: the frame's own lines are laid over the color")


class OutputSettings(Group):
    """The files that are written."""

    format: Literal["same", "png8", "png16", "tiff8", "tiff16", "tga", "jpeg", "exr-half", "exr-float"] = Field(
        "same", description="same: as the frame that came in"
    )
    alpha: Literal["same", "none", "mask"] = Field("same", description="same: the frame's alpha; none; mask: the character mask")


class Preset(Group):
    """Every setting of a render."""

    model: str = Field("mini", description="name of a shipped or installed model, or a folder")
    canvas: CanvasSettings = CanvasSettings()
    lines: LineSettings = LineSettings()
    masks: MaskSettings = MaskSettings()
    reference: ReferenceSettings = ReferenceSettings()
    sketch: SketchSettings = SketchSettings()
    background: BackgroundSettings = BackgroundSettings()
    sampling: SamplingSettings = SamplingSettings()
    finish: FinishSettings = FinishSettings()
    output: OutputSettings = OutputSettings()

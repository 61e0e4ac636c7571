"""Presets: every setting of a render, in groups, with unit, range and default."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from colorcli.errors import PresetError
from colorcli.settings import (
    Group,
    Key,
    Layer,
    Problem,
    build,
    keys_of,
    override_layer,
    raise_first,
    read_layer,
    shown,
)

MAX_EXTENDS = 16  # files in one chain of `extends:`

Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class CanvasSettings(Group):
    """How a frame is laid onto the model's canvas."""

    crop: Literal["drawing", "frame"] = Field(
        "drawing", description="what fills the canvas: the drawing's bounds, or all"
    )
    margin: float = Field(
        0.05, ge=0.0, le=0.5, description="white around the drawing, as a fraction of its longer side"
    )
    area: int | None = Field(
        None, ge=64 * 64, le=2048 * 2048, description="canvas area in pixels; null: the model's own"
    )


class LineSettings(Group):
    """How a drawing is cleaned before the model sees it."""

    mode: Literal["clean", "pencil", "extract"] = Field(
        "clean", description="clean: inked lines; pencil: soft gray lines; extract: lines are found in a color drawing"
    )
    polarity: Literal["auto", "dark-on-light", "light-on-dark"] = Field(
        "auto", description="which of the two is the line"
    )
    paper: Unit = Field(0.92, description="luminance above this is paper")
    min_stroke_px: int = Field(
        4, ge=0, le=1000, description="smaller separate marks are dust, in pixels of area at source size"
    )
    extractor: Literal["xdog", "highpass"] = Field(
        "xdog", description="for extract: XDoG, or the high-pass line filter"
    )


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
    padding: float = Field(
        1.0, ge=1.0, le=2.0, description="white to the left and right of the key, as a factor of its width"
    )
    mask_threshold: Unit = Field(0.5, description="the key's mask above this is character (bleaching)")


class SketchSettings(Group):
    """How strongly the line art speaks."""

    strength: float = Field(1.0, ge=0.0, le=3.0, description="multiplies every sketch map")
    levels: tuple[float, float, float, float] = Field(
        (1.0, 1.0, 1.0, 1.0), description="multiplies each map, finest first"
    )
    guidance: float = Field(1.0, ge=1.0, le=5.0, description="sketch guidance scale; 1 is off")
    mask_threshold: Unit = Field(0.05, description="the frame's mask above this is character (split attention)")


class BackgroundSettings(Group):
    """What lies outside the character."""

    rule: Literal["white", "transparent", "keep", "model"] = Field(
        "white",
        description="white or transparent paper; keep: the key's flat background color; model: what the model paints",
    )
    split: bool = Field(False, description="split attention: the background sees only the bleached key")


class SamplingSettings(Group):
    """How the picture is drawn out of noise."""

    sampler: Literal["ddim", "euler", "dpm++2m"] = Field("ddim", description="the rule of a step")
    steps: int = Field(1, ge=1, le=100, description="steps out of noise; more is slower and finer")
    seed: int = Field(
        7, ge=0, lt=2**32, description="the same noise for every frame of the shot keeps the color steady"
    )
    start: Literal["match", "noise"] = Field(
        "match", description="match: begin from the key's colors matched to the frame's parts"
    )
    start_level: Unit = Field(0.3, description="for match: how much of the noise schedule is run, 1 is all of it")
    window: tuple[Unit, Unit] = Field((0.0, 1.0), description="progress between which the reference is seen")
    off_window: tuple[float, float] = Field((-0.05, -0.05), description="progress between which it is not seen")


class FinishSettings(Group):
    """How the model's colors become the final picture."""

    fill: Literal["flat", "soft"] = Field(
        "flat", description="flat: one color a closed region; soft: the model's shades, kept inside lines"
    )
    palette: Literal["key", "off"] = Field("key", description="key: flat colors are snapped to the colors of the key")
    palette_reach: float = Field(
        12.0, ge=0.0, le=100.0, description="largest CIEDE2000 distance over which a color is snapped"
    )
    lines: Literal["original", "none"] = Field(
        "original", description="original: the frame's own lines are laid over the color"
    )


class OutputSettings(Group):
    """The files that are written."""

    format: Literal["same", "png8", "png16", "tiff8", "tiff16", "tga", "jpeg", "exr-half", "exr-float"] = Field(
        "same", description="same: as the frame that came in"
    )
    alpha: Literal["same", "none", "mask"] = Field(
        "same", description="same: the frame's alpha; none; mask: the character mask"
    )


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


@dataclass(frozen=True)
class ExplainedPreset:
    """A preset, and where each of its values came from."""

    name: str  # as it was asked for: a shipped name or a file
    description: str  # what the file says it is for
    preset: Preset
    origins: Mapping[str, str]  # dotted path -> "default", "cel.yaml:7" or "--set sampling.steps=12"


def load_preset(name_or_path: str, overrides: Sequence[str] = ()) -> Preset:
    """Load a shipped preset by name, or a preset file, with overrides such as "sampling.steps=12" on top.

    Raises PresetError naming the file, the line and the setting.
    """
    return explain_preset(name_or_path, overrides).preset


def explain_preset(name_or_path: str, overrides: Sequence[str] = ()) -> ExplainedPreset:
    """Load a preset as `load_preset` does, and keep where each value came from."""
    preset, origins, description, problems = _assemble(name_or_path, overrides)
    raise_first(problems, f"colorcli presets check {name_or_path}")
    assert preset is not None
    return ExplainedPreset(name_or_path, description, preset, origins)


def check_preset(name_or_path: str) -> list[Problem]:
    """Everything that is wrong with a preset. Raises PresetError if it cannot be read at all."""
    return _assemble(name_or_path, ())[3]


def effective_settings(preset: Preset) -> dict[str, Any]:
    """Every setting as plain JSON values, group by group: what the manifest records and the fingerprint covers."""
    return preset.model_dump(mode="json")


def preset_keys() -> tuple[Key, ...]:
    """Every setting of a preset: path, allowed values, default, meaning."""
    return keys_of(Preset)


def flat_settings(preset: Preset) -> dict[str, Any]:
    """Every setting by its dotted path: {"sampling.steps": 6, ...}."""
    flat: dict[str, Any] = {}
    for key in preset_keys():
        value: Any = preset
        for name in key.path.split("."):
            value = getattr(value, name)
        flat[key.path] = value
    return flat


def shipped_presets() -> dict[str, Path]:
    """The presets that come with colorcli: name -> file, sorted by name with the default `cel` first."""
    files = {path.stem: path for path in _shipped_folder().glob("*.yaml")}
    return {name: files[name] for name in sorted(files, key=lambda name: (name != "cel", name))}


def preset_source(name_or_path: str) -> Path:
    """The file of a preset: a shipped name, or a path (it holds a slash or ends in .yaml or .yml).

    Raises PresetError with the nearest name if there is no such preset.
    """
    if "/" in name_or_path or "\\" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    shipped = shipped_presets()
    if name_or_path in shipped:
        return shipped[name_or_path]
    near = difflib.get_close_matches(name_or_path, shipped, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"shipped are {', '.join(shipped)}; a file ends in .yaml"
    beside = next((name for name in (f"{name_or_path}.yaml", f"{name_or_path}.yml") if Path(name).is_file()), None)
    raise PresetError(
        f"there is no preset called {shown(name_or_path)}", hint=f"for the file write {beside}" if beside else hint
    )


def _shipped_folder() -> Path:
    package = Path(__file__).parent
    in_wheel = package / "presets_shipped"
    return in_wheel if in_wheel.is_dir() else package.parent / "presets"  # an editable install reads the checkout


def _assemble(
    name_or_path: str, overrides: Sequence[str]
) -> tuple[Preset | None, Mapping[str, str], str, list[Problem]]:
    """(preset or None if there are problems, origins, description, problems)."""
    layers, description, problems = _chain(name_or_path)
    command_line, key_problems = override_layer(Preset, overrides)
    preset, origins, value_problems = build(Preset, [*layers, command_line])
    problems = [*problems, *key_problems, *value_problems]
    return (None if problems else preset), origins, description, problems


def _chain(name_or_path: str) -> tuple[list[Layer], str, list[Problem]]:
    """The layers of a preset and of what it extends, the furthest first; the description of the nearest."""
    layers: list[Layer] = []
    problems: list[Problem] = []
    descriptions: list[str] = []
    seen: dict[Path, str] = {}
    source = preset_source(name_or_path)
    while True:
        label = source.name if source.parent == _shipped_folder() else str(source)
        resolved = source.resolve()
        if resolved in seen or len(seen) >= MAX_EXTENDS:
            chain = " -> ".join([*seen.values(), label])
            raise PresetError(
                f"{label} extends itself: {chain}" if resolved in seen else f"{chain}: too long a chain",
                hint="take one `extends:` out of the chain",
            )
        seen[resolved] = label
        layer, about, found = read_layer(Preset, source, label)
        layers.insert(0, layer)
        problems = [*found, *problems]
        descriptions.append(about.get("description", ""))
        parent = about.get("extends")
        if not parent:
            return layers, descriptions[0], problems
        try:
            next_source = preset_source(parent)
        except PresetError as failure:
            raise PresetError(f"{label} extends {shown(parent)}, but {failure.message}", hint=failure.hint) from None
        # A path in a preset is meant from that preset's folder, wherever colorcli is started.
        source = next_source if parent in shipped_presets() else source.parent / next_source
        if not source.exists():
            raise PresetError(
                f"{label} extends {shown(parent)}, but there is no file {source}",
                hint="the path is read from the folder of the preset",
            )

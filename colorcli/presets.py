"""Presets: every setting of a render, in groups, with unit, range and default."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

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
from colorcli.variants import VARIANTS, Variant

MAX_EXTENDS = 16  # files in one chain of `extends:`

# Settings that name files: in a preset file they are meant from its folder, on the command line from the working one.
PATH_KEYS = ("background.image", "masks.network", "masks.key_network", "lines.network", "finish.palette_file")

# The same in the entries of lists of groups: list -> the setting in each entry.
PATH_ENTRIES = {"lora": "file"}

TRAINING_STEPS = 1000  # in the noise schedule of every model

LayerName = Literal["color", "line", "matte", "flat", "shade", "paper"]
LayerFiles = Literal["sequences", "exr", "psd"]

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Level = Annotated[float, Field(ge=0.0, le=3.0)]
Side = Annotated[int, Field(ge=64, le=2048)]
Progress = Annotated[float, Field(ge=-0.05, le=1.0)]


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
    size: tuple[Side, Side] | None = Field(
        None, description="canvas width and height in pixels; null: of that area, with the drawing's aspect"
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
    gap_px: float = Field(
        12.0,
        ge=0,
        le=100,
        description="gaps in lines up to this wide part two regions, in pixels of a frame of 1280; 0: none do",
    )
    extractor: Literal["xdog", "highpass", "network"] = Field(
        "xdog", description="for extract: XDoG, the high-pass line filter, or the network of lines.network"
    )
    network: str | None = Field(None, min_length=1, description="an ONNX file that finds lines in a color drawing")
    network_values: Literal["auto", "0..1", "-1..1", "0..255"] = Field(
        "auto", description="what that network wants black..white to be; auto: told from the file, else 0..1"
    )


class MaskSettings(Group):
    """Where the character is."""

    source: Literal["auto", "alpha", "files", "paper", "network", "none"] = Field(
        "auto",
        description="auto: --masks if given, else alpha if the picture has one that means something, else paper; "
        "network: the networks below",
    )
    network: str | None = Field(
        None, min_length=1, description="an ONNX file that finds the character in line art; null: as auto does"
    )
    key_network: str | None = Field(
        None, min_length=1, description="an ONNX file that finds the character in the key; null: as auto does"
    )
    network_kind: Literal["auto", "isnet", "birefnet"] = Field(
        "auto", description="what the networks expect and give; auto: told from the file"
    )
    merge: Literal["union", "first"] = Field("union", description="how several mask directories become one mask")
    grow_px: int = Field(0, ge=0, le=200, description="the mask is grown by this radius, in source pixels")


class ReferenceSettings(Group):
    """How strongly the key speaks."""

    strength: Unit = Field(1.0, description="multiplies every reference attention")
    encoder: Unit = Field(1.0, description="multiplies strength in the network's first half")
    middle: Unit = Field(1.0, description="multiplies strength in the network's middle")
    low: Unit = Field(1.0, description="multiplies strength in the blocks with the smallest maps: what is where")
    high: Unit = Field(1.0, description="multiplies strength in the blocks with the larger maps: color and texture")
    blocks: tuple[Unit, ...] | None = Field(
        None, description="multiplies strength block by block, in the network's order; null: 1 everywhere"
    )
    foreground_strength: Unit = Field(1.0, description="strength inside the character mask")
    background_strength: Unit = Field(1.0, description="strength outside the character mask")
    merge: Unit = Field(0.0, description="how much of the background's colors goes into the character (merging scale)")
    guidance: float = Field(1.0, ge=1.0, le=15.0, description="reference guidance scale; 1 is off")
    guidance_window: tuple[Unit, Unit] = Field(
        (0.0, 1.0), description="progress between which reference and sketch are guided; outside it a step costs half"
    )
    padding: float = Field(
        1.0, ge=1.0, le=2.0, description="white to the left and right of the key, as a factor of its width"
    )
    mask_threshold: Unit = Field(0.5, description="the key's mask above this is character (bleaching)")


class SketchSettings(Group):
    """How strongly the line art speaks."""

    strength: float = Field(1.0, ge=0.0, le=3.0, description="multiplies every sketch map")
    levels: tuple[Level, Level, Level, Level] = Field(
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
    split: bool = Field(False, description="split attention: the background sees only the bleached key, or the image")
    image: str | None = Field(
        None, min_length=1, description="a picture of the background, for split; {shot} is the shot's name"
    )
    remove_foreground: bool = Field(False, description="the character in the background picture is painted white")
    reference_net: bool = Field(True, description="with split, on a model that has one: texture through ReferenceNet")
    adapter: float = Field(
        1.0, ge=0.0, le=2.0, description="with split, on a model that has one: strength of its low-rank adapter"
    )
    hints: float = Field(
        1.0, ge=0.0, le=2.0, description="with split, on a model with side encoders: strength of the background's hints"
    )
    latent_copy: bool = Field(
        False, description="instead of reference_net: the image itself is laid in, after every step but the last"
    )


class StyleSettings(Group):
    """How the key's light and colors as a whole carry over; for models with side encoders."""

    enhance: bool = Field(False, description="the style encoder modulates every block of the decoder")


class EditSettings(Group):
    """One change by words of what is taken from the key."""

    target: str = Field(min_length=1, max_length=300, description="what the key shall show: \"red hair\"")
    scale: float = Field(ge=0.0, le=15.0, description="likeness to the target that is asked for; 0 none, 15 much")
    anchor: str | None = Field(
        None, min_length=1, max_length=300, description="what it shows now, to lead away from; null: nothing"
    )
    control: str | None = Field(
        None, min_length=1, max_length=300, description="what the places show that change; null: all places change"
    )
    enhance: bool = Field(False, description="with an anchor: all that is like it is turned towards the target")
    thresholds: tuple[Unit, Unit, Unit, Unit] = Field(
        (0.5, 0.55, 0.65, 0.95),
        description="likeness of a place to the control, rising: up to the first it is led away, from the last on it "
        "changes in full",
    )


class InjectionSettings(Group):
    """Reference-only attention: the network reads the noised key itself; twice the time."""

    on: bool = Field(False, description="read the key in every self-attention too")
    fidelity: Unit = Field(0.5, description="how much the rows without a reference keep to themselves")
    sketch: float = Field(0.0, ge=0.0, le=2.0, description="strength of the key's own lines while it is read")
    start: Unit = Field(0.0, description="progress from which the key is read")


class LoraSettings(Group):
    """A LoRA file, which changes the model's networks a little: a show's own style and colors."""

    file: str = Field(min_length=1, description="a .safetensors file, of `colorcli train` or of other LoRA trainers")
    strength: float = Field(1.0, ge=0.0, le=2.0, description="how much of the change: 0 none, 1 as it was trained")
    any_base: bool = Field(
        False, description="take it although it was trained on other weights of this kind of model"
    )


SamplerName = Literal[
    "ddim", "euler", "euler-a", "heun", "lms", "dpm2", "dpm2-a", "dpm-fast", "dpm-adaptive", "dpm++2m", "dpm++2s-a",
    "dpm++sde", "dpm++2m-sde", "dpm++2m-sde-heun", "dpm++3m-sde", "diffusers-dpm", "diffusers-dpm-sde",
    "diffusers-euler", "diffusers-pndm", "diffusers-lms",
]  # fmt: skip
ScheduleName = Literal["automatic", "karras", "exponential", "polyexponential", "uniform", "sgm-uniform"]

# Samplers that choose their steps themselves, and those that know one other spread.
KNOW_NO_SCHEDULE = ("ddim", "diffusers-pndm", "dpm-fast", "dpm-adaptive")
LEAST_PNDM_STEPS = 4
KNOW_KARRAS = ("diffusers-dpm", "diffusers-dpm-sde", "diffusers-euler", "diffusers-lms")


class SamplingSettings(Group):
    """How the picture is drawn out of noise."""

    sampler: SamplerName = Field("ddim", description="the rule of a step")
    schedule: ScheduleName = Field(
        "automatic", description="how the steps are spread over the noise levels; automatic: what suits the sampler"
    )
    steps: int = Field(
        1, ge=0, le=100, description="steps out of noise; more is slower and finer; dpm-adaptive chooses them itself; "
        "0: the match as it is"
    )
    seed: int = Field(
        7, ge=0, lt=2**32, description="the same noise for every frame of the shot keeps the color steady"
    )
    start: Literal["match", "noise"] = Field(
        "match", description="match: begin from the key's colors matched to the frame's parts"
    )
    start_level: float = Field(
        0.3, gt=0.0, le=1.0, description="for match: how much of the noise schedule is run, 1 is all of it"
    )
    window: tuple[Unit, Unit] = Field((0.0, 1.0), description="progress between which the reference is seen")
    off_window: tuple[Progress, Progress] = Field(
        (-0.05, -0.05), description="progress between which it is not seen; below 0: never"
    )


class WarmStartSettings(Group):
    """A frame begins from the finished colors of the one before it, and makes only the last steps; in single file."""

    on: bool = Field(False, description="begin from the frame before, for runs that start from noise")
    every: int = Field(
        8, ge=2, le=1000, description="frame numbers after which a drawing starts from noise again; holds stay whole"
    )
    level: float = Field(
        0.5, gt=0.0, lt=1.0, description="how much of the steps is made from the frame before; less is faster, and "
        "leaves more of its colors where the drawing moved"
    )


class SteadySettings(Group):
    """The drawings around a frame have a say in the color of each of its regions, so that a shot does not flicker."""

    on: bool = Field(False, description="decide colors with the drawings around, for runs that start from the match")
    reach: int = Field(12, ge=1, le=100, description="how many drawings before and after have a say; holds count once")


class FinishSettings(Group):
    """How the model's colors become the final picture."""

    fill: Literal["flat", "soft", "model"] = Field(
        "flat",
        description="flat: one color a closed region; soft: the model's shades, kept inside lines; model: the model's "
        "picture as it is",
    )
    palette: Literal["key", "off"] = Field("key", description="key: flat colors are snapped to the colors of the key")
    palette_reach: float = Field(
        12.0, ge=0.0, le=100.0, description="largest CIEDE2000 distance over which a color is snapped"
    )
    palette_margin: float = Field(
        2.5, ge=0.0, le=100.0, description="two colors of the key are about equally near if their CIEDE2000 distances "
        "differ by no more: then tones of one surface stay together, or the neighbors decide"
    )
    palette_file: str | None = Field(
        None, min_length=1, description="a .ase, .gpl or .json file of the production's colors, or one a shot as "
        "palettes/{shot}.gpl: what has a color of the key gets the nearest of these, if that is within palette_reach; "
        "shadows go with their colors. A .json of old colors and new ones, {\"#f3c8a0\": \"#7a6f9e\"}, swaps them"
    )
    lines: Literal["original", "none"] = Field(
        "original", description="original: the frame's own lines are laid over the color"
    )
    separation_lines: Literal["keep", "remove"] = Field(
        "keep", description="lines in a clear color (red, blue, green), drawn to part light from shadow; remove: they "
        "part two colors, and are not seen"
    )


class OutputSettings(Group):
    """The files that are written."""

    format: Literal["same", "png8", "png16", "tiff8", "tiff16", "tga", "jpeg", "exr-half", "exr-float"] = Field(
        "same", description="same: as the frame that came in"
    )
    alpha: Literal["same", "none", "mask"] = Field(
        "same", description="same: the frame's alpha; none; mask: the character mask"
    )


class LayerSettings(Group):
    """What is written beside each finished frame, for a compositor; it changes nothing in the frame itself."""

    names: tuple[LayerName, ...] = Field(
        (),
        description="color: without lines; line: the lines alone; matte: how much of a pixel is character or line; "
        "flat: one color a surface; shade: what flat is multiplied by to give color; paper: what lies behind",
    )
    files: tuple[LayerFiles, ...] = Field(
        ("sequences",),
        min_length=1,
        description="sequences: a folder of pictures for each layer; exr: a file of many parts a frame; psd: a layered "
        "file a frame; several: each of them",
    )


class CheckSettings(Group):
    """What is told of a finished frame; it changes nothing in the frame itself."""

    unsure_below: Unit = Field(
        0.6, description="a region whose color is right with less than this chance is told, for a person to look at; "
        "in runs that start from noise one whose palette color is a guess; 0: nothing is looked for"
    )


class Preset(Group):
    """Every setting of a render."""

    model: str = Field("mini", description="name of a shipped or installed model, or a folder")
    compat: Literal["none", "published"] = Field(
        "none", description="published: the quirks of the published program too, to compare pictures with it"
    )
    lora: tuple[LoraSettings, ...] = Field(
        (), max_length=8, description="LoRA files that change the model; their changes add up"
    )
    canvas: CanvasSettings = CanvasSettings()
    lines: LineSettings = LineSettings()
    masks: MaskSettings = MaskSettings()
    reference: ReferenceSettings = ReferenceSettings()
    sketch: SketchSettings = SketchSettings()
    background: BackgroundSettings = BackgroundSettings()
    style: StyleSettings = StyleSettings()
    manipulate: tuple[EditSettings, ...] = Field(
        (), max_length=20, description="changes by words of what is taken from the key, one after the other; for "
        "models with a text encoder"
    )
    injection: InjectionSettings = InjectionSettings()
    sampling: SamplingSettings = SamplingSettings()
    warm_start: WarmStartSettings = WarmStartSettings()
    steady: SteadySettings = SteadySettings()
    finish: FinishSettings = FinishSettings()
    output: OutputSettings = OutputSettings()
    layers: LayerSettings = LayerSettings()
    checks: CheckSettings = CheckSettings()


@dataclass(frozen=True)
class ExplainedPreset:
    """A preset, and where each of its values came from."""

    name: str  # as it was asked for: a shipped name or a file
    description: str  # what the file says it is for
    preset: Preset
    origins: Mapping[str, str]  # dotted path -> "default", "cel.yaml:7" or "--set sampling.steps=12"


FamilyOf = Callable[[str], str]


def load_preset(name_or_path: str, overrides: Sequence[str] = (), family: FamilyOf | None = None) -> Preset:
    """Load a shipped preset by name, or a preset file, with overrides such as "sampling.steps=12" on top.

    family: tells of a model (a name, folder, file) which of `VARIANTS` it is: that variant's own settings are laid
    under the preset. None: only the names of `VARIANTS` are known.
    Raises PresetError naming the file, the line and the setting; and what `family` raises.
    """
    return explain_preset(name_or_path, overrides, family).preset


def explain_preset(
    name_or_path: str, overrides: Sequence[str] = (), family: FamilyOf | None = None
) -> ExplainedPreset:
    """Load a preset as `load_preset` does, and keep where each value came from."""
    preset, origins, description, problems = _assemble(name_or_path, overrides, family)
    raise_first(problems, f"colorcli presets check {name_or_path}")
    assert preset is not None
    return ExplainedPreset(name_or_path, description, preset, origins)


def files_of(preset: Preset) -> dict[str, str]:
    """The files that settings name, by setting; entries of lists are counted from 1: {"lora.1.file": ...}."""
    flat = flat_settings(preset)
    found = {path: flat[path] for path in PATH_KEYS if flat[path] is not None}
    for path, name in PATH_ENTRIES.items():
        found |= {f"{path}.{number}.{name}": getattr(entry, name) for number, entry in enumerate(flat[path], 1)}
    return found


def with_files(preset: Preset, places: Sequence[str]) -> Preset:
    """The preset with other places for files that it names: "lora.1.file=/mnt/show.safetensors", as they are.

    The text after the first "=" is the path, whatever is in it. Raises PresetError for a setting that names no file.
    """
    named = files_of(preset)
    for place in places:
        key, _, file = place.partition("=")
        if not file:
            raise PresetError(f"--set-file {place} is not of the form KEY=FILE",
                              hint="for example --set-file background.image=wall.png")
        if key not in named:
            hint = f"it names {', '.join(named)}" if named else "it names none"
            raise PresetError(f"--set-file {place}: the preset names no file for {key}", hint=hint)
        group, *inner = key.split(".")
        value: Any = getattr(preset, group)
        if len(inner) == 1:
            value = value.model_copy(update={inner[0]: file})
        else:
            at, name = int(inner[0]) - 1, inner[1]
            value = (*value[:at], value[at].model_copy(update={name: file}), *value[at + 1 :])
        preset = preset.model_copy(update={group: value})
    return preset


def default_preset(variant: Variant | str) -> Preset:
    """Give the settings a model is best at: the defaults, with the variant's own on top."""
    known = variant if isinstance(variant, Variant) else VARIANTS[variant]
    own = variant_layer(known)
    named = Layer(own.label, {"model": (known.name, own.label), **own.values})
    preset, _, problems = build(Preset, [named])
    assert preset is not None, problems
    return preset


def variant_layer(variant: Variant) -> Layer:
    """Give a variant's own settings as the layer that lies under every preset."""
    label = f"model {variant.name}"
    return Layer(label, {path: (value, label) for path, value in variant.settings.items()})


def check_preset(
    name_or_path: str, overrides: Sequence[str] = (), family: FamilyOf | None = None
) -> list[Problem]:
    """Everything that is wrong with a preset, for its model too. Raises PresetError if it cannot be read at all."""
    return _assemble(name_or_path, overrides, family)[3]


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


def is_preset_file(name_or_path: str) -> bool:
    """Tell whether a preset is named by its file: that holds a slash, or ends in .yaml or .yml."""
    return "/" in name_or_path or "\\" in name_or_path or name_or_path.endswith((".yaml", ".yml"))


def preset_source(name_or_path: str) -> Path:
    """The file of a preset: a shipped name, or a path, see `is_preset_file`.

    Raises PresetError with the nearest name if there is no such preset.
    """
    if is_preset_file(name_or_path):
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


def check_for_variant(preset: Preset, variant: Variant) -> None:
    """Raise PresetError if settings disagree with each other, or ask for what the model does not have.

    For presets that were made in Python; `load_preset` does it for files.
    """
    problems = [*disagreements(preset), *missing_in(variant, preset)]
    raise_first(problems, "colorcli presets explain")


def disagreements(preset: Preset, origins: Mapping[str, str] | None = None) -> list[Problem]:
    """Everything in which two settings of a preset disagree; `origins` say where a value came from."""
    lines, masks, background, sampling = preset.lines, preset.masks, preset.background, preset.sampling
    found: list[Problem] = []

    def disagree(path: str, says: str, hint: str) -> None:
        found.append(Problem(f"{_where(path, origins)}{path} {says}", hint))

    if background.image is not None and not background.split:
        disagree("background.image", "is set, but only split attention sees it", "--set background.split=true")
    if background.remove_foreground and background.image is None:
        disagree("background.remove_foreground", "is true, but there is no background.image to take a character out of",
                 "--set background.image=PICTURE")
    if background.latent_copy and background.image is None:
        disagree("background.latent_copy", "is true, but there is no background.image to copy",
                 "--set background.image=PICTURE")
    if masks.source == "network" and masks.network is None and masks.key_network is None:
        disagree("masks.source", "is network, but neither masks.network nor masks.key_network names a file",
                 "--set masks.network=FILE.onnx")
    if preset.finish.palette_file is not None and (preset.finish.fill != "flat" or preset.finish.palette == "off"):
        disagree("finish.palette_file", "is set, but only flat colors that are snapped to the key's get its colors",
                 "--set finish.fill=flat --set finish.palette=key")
    if lines.extractor == "network" and lines.network is None:
        disagree("lines.extractor", "is network, but lines.network names no file", "--set lines.network=FILE.onnx")
    allowed = schedules_of(sampling.sampler)
    if sampling.schedule not in allowed:
        disagree("sampling.schedule", f"is {sampling.schedule}, but the sampler {sampling.sampler} knows only "
                 f"{' and '.join(allowed)}", f"--set sampling.schedule={allowed[-1]}")
    if sampling.sampler == "diffusers-pndm" and sampling.start == "match":
        disagree("sampling.sampler", "is diffusers-pndm, whose first steps lead out of noise, but start is match",
                 "--set sampling.start=noise")
    elif sampling.sampler == "diffusers-pndm" and sampling.steps < LEAST_PNDM_STEPS:
        disagree("sampling.steps", f"is {sampling.steps}, but diffusers-pndm needs {LEAST_PNDM_STEPS} or more",
                 f"--set sampling.steps={LEAST_PNDM_STEPS}")
    if sampling.start == "noise" and sampling.steps == 0:
        disagree("sampling.steps", "is 0, but sampling.start is noise, which nothing would then be made of",
                 "--set sampling.steps=12")
    if sampling.start == "match" and sampling.steps / sampling.start_level > TRAINING_STEPS:
        disagree("sampling.start_level", f"is {sampling.start_level:g}, and {sampling.steps} steps in it are more than "
                 "the noise schedule has", "--set sampling.steps=12")
    for number, edit in enumerate(preset.manipulate, 1):
        if list(edit.thresholds) != sorted(edit.thresholds):
            disagree("manipulate", f"has thresholds that fall, {shown(edit.thresholds)}, in entry {number}",
                     "write them rising, for example [0.5, 0.55, 0.65, 0.95]")
        if edit.enhance and edit.anchor is None:
            disagree("manipulate", f"has enhance in entry {number}, but no anchor there whose likeness it turns",
                     "write an anchor, or take enhance out")
    if sampling.window[0] > sampling.window[1]:
        disagree("sampling.window", f"begins at {sampling.window[0]:g}, after its end at {sampling.window[1]:g}",
                 "write the smaller number first")
    guided = preset.reference.guidance_window
    if guided[0] > guided[1]:
        disagree("reference.guidance_window", f"begins at {guided[0]:g}, after its end at {guided[1]:g}",
                 "write the smaller number first")
    if preset.steady.on and sampling.start != "match":
        disagree("steady.on", "is true, but sampling.start is noise: such a run has no regions to vote on",
                 "leave --steady out, or --set steady.on=false")
    if preset.warm_start.on:
        if sampling.start == "match":
            disagree("warm_start.on", "is true, but sampling.start is match: such a run begins from the key's colors "
                     "already, and gains nothing", "--set warm_start.on=false")
        elif preset.canvas.crop == "drawing":
            disagree("warm_start.on", "is true, but canvas.crop is drawing: the canvas would move between the frames",
                     "--set canvas.crop=frame")
        if sampling.sampler == "diffusers-pndm":
            disagree("warm_start.on", "is true, but sampling.sampler is diffusers-pndm, whose first steps lead out of "
                     "noise", "--set sampling.sampler=dpm++2m")
    return found


def schedules_of(sampler: str) -> tuple[ScheduleName, ...]:
    """Name the step schedules that a sampler knows."""
    if sampler in KNOW_NO_SCHEDULE:
        return ("automatic",)
    if sampler in KNOW_KARRAS:
        return ("automatic", "karras")
    return get_args(ScheduleName)


def missing_in(variant: Variant, preset: Preset, origins: Mapping[str, str] | None = None) -> list[Problem]:
    """Everything that a preset asks of a model which it does not have; `origins` say where a value came from.

    What is only a default, or is not looked at without split attention, is no problem.
    """
    background, blocks = preset.background, preset.reference.blocks
    given = background.model_fields_set if background.split else set()
    found: list[Problem] = []

    def lacks(path: str, value: str, what: str, has: Callable[[Variant], bool], hint: str) -> None:
        others = ", ".join(name for name, other in VARIANTS.items() if has(other)) or "no model"
        found.append(Problem(
            f"{_where(path, origins)}{path} is {value}, but the model {variant.name} has no {what} (has one: {others})",
            hint,
        ))

    size, side = preset.canvas.size, variant.multiple_of
    if size is not None and any(n % side for n in size):
        near = ", ".join(str(max(round(n / side), 2) * side) for n in size)
        found.append(Problem(
            f"{_where('canvas.size', origins)}canvas.size is {size[0]} x {size[1]}, but the model {variant.name} takes "
            f"multiples of {side}", f"--set canvas.size=[{near}]"))
    if preset.sampling.start == "match" and not variant.has_match:
        lacks("sampling.start", "match", "color match", lambda other: other.has_match, "--set sampling.start=noise")
    if "reference_net" in given and background.reference_net and not variant.has_reference_net:
        lacks("background.reference_net", "true", "ReferenceNet", lambda other: other.has_reference_net,
              "--set background.reference_net=false")
    if "adapter" in given and background.adapter not in (0.0, 1.0) and not variant.has_adapter:
        lacks("background.adapter", f"{background.adapter:g}", "low-rank adapter", lambda other: other.has_adapter,
              "--set background.adapter=1")
    if "hints" in given and background.hints != 1.0 and not variant.has_side_encoders:
        lacks("background.hints", f"{background.hints:g}", "background encoder", lambda other: other.has_side_encoders,
              "--set background.hints=1")
    if preset.style.enhance and not variant.has_side_encoders:
        lacks("style.enhance", "true", "style encoder", lambda other: other.has_side_encoders,
              "--set style.enhance=false")
    if preset.manipulate and not variant.has_text_encoder:
        lacks("manipulate", f"set ({_counted(len(preset.manipulate), 'edit')})", "text encoder",
              lambda other: other.has_text_encoder, "--set manipulate=[]")
    reads_net = background.split and background.reference_net and not background.latent_copy
    if variant.has_reference_net and preset.injection.on and reads_net:
        found.append(Problem(
            f"{_where('injection.on', origins)}injection.on is true, but the model {variant.name} reads the background "
            "in self-attention already (background.reference_net)", "--set background.reference_net=false"))
    if blocks is not None and len(blocks) != variant.transformer_blocks:
        found.append(Problem(
            f"{_where('reference.blocks', origins)}reference.blocks holds {len(blocks)} numbers, but the model "
            f"{variant.name} has {variant.transformer_blocks} transformer blocks", "write one number for each"))
    return found


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _where(path: str, origins: Mapping[str, str] | None) -> str:
    origin = (origins or {}).get(path, "default")
    return "" if origin == "default" else f"{origin}: "


def _assemble(
    name_or_path: str, overrides: Sequence[str], family: FamilyOf | None
) -> tuple[Preset | None, Mapping[str, str], str, list[Problem]]:
    """(preset or None if there are problems, origins, description, problems)."""
    layers, description, problems = _chain(name_or_path)
    command_line, key_problems = override_layer(Preset, overrides)
    layers.append(_with_paths(command_line, Path()))
    model = next((layer.values["model"][0] for layer in reversed(layers) if "model" in layer.values), Preset().model)
    name = family(model) if family is not None and isinstance(model, str) else model
    variant = VARIANTS.get(name) if isinstance(name, str) else None
    if variant is not None:
        layers.insert(0, variant_layer(variant))
    preset, origins, value_problems = build(Preset, layers)
    if preset is not None:
        missing = missing_in(variant, preset, origins) if variant is not None else []
        value_problems = [*disagreements(preset, origins), *missing]
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
        layers.insert(0, _with_paths(layer, source.parent))
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


def _with_paths(layer: Layer, folder: Path) -> Layer:
    """The layer with the files it names seen from `folder`; ~/ is the user's own."""

    def seen(name: Any) -> Any:
        if not isinstance(name, str) or not name:
            return name  # refused when the preset is built
        return str(Path(name).expanduser() if name.startswith("~/") else folder / name)

    def resolved(path: str, value: Any) -> Any:
        if path in PATH_KEYS:
            return seen(value)
        if path not in PATH_ENTRIES or not isinstance(value, tuple):
            return value
        name = PATH_ENTRIES[path]
        is_group = [isinstance(entry, dict) and name in entry for entry in value]
        return tuple(
            {**entry, name: seen(entry[name])} if given else entry for entry, given in zip(value, is_group, strict=True)
        )

    values = {path: (resolved(path, value), where) for path, (value, where) in layer.values.items()}
    return replace(layer, values=values)

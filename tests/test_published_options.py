"""Every option of the published interfaces: the setting it has become, with the same default and range."""

from typing import Any

import pytest

from colorcli.presets import default_preset, flat_settings, load_preset, preset_keys
from tests.golden.published_names import PUBLISHED_SAMPLERS, PUBLISHED_STEPS

# option -> (setting, published default, lowest, highest); the last two None where it is no number
SETTINGS: dict[str, tuple[str, Any, float | None, float | None]] = {
    "Low-level injection": ("background.split", False, None, None),
    "Attention injection": ("injection.on", False, None, None),
    "Background image": ("background.image", None, None, None),
    "Reference guidance scale": ("reference.guidance", 4.0, 1, 15),
    "Reference strength": ("reference.strength", 1.0, 0, 1),
    "Foreground strength": ("reference.foreground_strength", 1.0, 0, 1),
    "Background strength": ("reference.background_strength", 1.0, 0, 1),
    "Sketch guidance scale": ("sketch.guidance", 1.0, 1, 5),
    "Sketch strength": ("sketch.strength", 1.0, 0, 3),
    "Merging scale": ("reference.merge", 0.0, 0, 1),
    "Step": ("sampling.steps", 20, 1, 100),
    "Injection fidelity (sketch)": ("injection.sketch", 0.0, 0, 2),
    "Injection fidelity (reference)": ("injection.fidelity", 0.5, 0, 1),
    "Injection start step": ("injection.start", 0.0, 0, 1),
    "Sketch strength 1-4": ("sketch.levels", (1.0, 1.0, 1.0, 1.0), None, None),
    "Semantics crossattn scale": ("reference.low", 1.0, 0, 1),
    "Color crossattn scale": ("reference.middle", 1.0, 0, 1),
    "Encoder crossattn scale": ("reference.encoder", 1.0, 0, 1),
    "Accurate crossattn control": ("reference.blocks", None, None, None),
    "Remove foreground in background input": ("background.remove_foreground", False, None, None),
    "Latent copy BG input": ("background.latent_copy", False, None, None),
    "Guidance start / end step": ("sampling.window", (0.0, 1.0), None, None),
    "No-guidance start / end step": ("sampling.off_window", (-0.05, -0.05), None, None),
    "Reference mask threshold": ("reference.mask_threshold", 0.5, 0, 1),
    "Sketch mask threshold": ("sketch.mask_threshold", 0.05, 0, 1),
    "Reference padding scale": ("reference.padding", 1.0, 1, 2),
}
# Of the published interface for SD2.1, what differs from XL's.
SETTINGS_V2: dict[str, tuple[str, Any, float | None, float | None]] = {
    "BG enhance": ("background.split", False, None, None),
    "Style enhance": ("style.enhance", False, None, None),
    "Background factor": ("background.hints", 1.0, 0, 2),
    "Sampler": ("sampling.sampler", "diffusers-dpm", None, None),
    "Text manipulation": ("manipulate", (), None, None),
}
# Where the published default is another, because the work is another.
OF_OUR_OWN: dict[str, tuple[str, str]] = {
    "Width, Height": ("canvas.size", "null: about 1024 x 1024 pixels in the aspect of the drawing"),
    "Autofit size": ("canvas.area", "always; `compat: published` rounds as the published program does"),
    "Seed": ("sampling.seed", "7 instead of a new one each time: a shot is colored twice the same"),
    "Model": ("model", "by name, folder or file"),
    "Line extractor": ("lines.network", "an ONNX file; XDoG and the high-pass filter are built in"),
    "Reference mask extractor": ("masks.key_network", "an ONNX file; alpha, files or paper without one"),
    "Sketch preprocessor": ("lines.mode", "clean is invert, extract is extract, highpass is invert-webui"),
    "Remove background in result": ("background.rule", "white is the default"),
    "Sampler": ("sampling.sampler", "dpm++3m-sde, as published, under the names of this project"),
    "Noise scheduler": ("sampling.schedule", "automatic, as published"),
}
# Options of the command, or nothing that anybody could set.
NO_SETTING: dict[str, str] = {
    "Sketch / Reference image": "SHOT and --ref",
    "Batch size": "--batch: frames of a shot, instead of many pictures of one drawing",
    "Save memory": "--memory",
    "fp16/fp32 unet, fp16/fp32 vae": "--precision",
    "Crop result": "always: a frame comes back at its own size",
    "Deterministic batch seed": "always: every frame has noise of its own",
    "Background factor": "has no effect in the XL models",
    "Disentangle scale": "has no effect: its encoder was not published",
    "Check intermediates": "has no effect",
    "Text manipulation": "the XL models know no text",
}


@pytest.mark.parametrize("option", SETTINGS)
def test_an_option_has_its_published_default_and_takes_its_published_range(option: str) -> None:
    path, default, low, high = SETTINGS[option]
    assert flat_settings(default_preset("xl"))[path] == default
    for value in (low, high):
        if value is not None:
            found = load_preset("cel", ["model=xl", f"{path}={value}"])
            assert flat_settings(found)[path] == value


@pytest.mark.parametrize("option", SETTINGS_V2)
def test_an_option_of_v2_has_its_published_default_and_takes_its_published_range(option: str) -> None:
    path, default, low, high = SETTINGS_V2[option]
    assert flat_settings(default_preset("v2"))[path] == default
    for value in (low, high):
        if value is not None:
            found = load_preset("cel", ["model=v2", "background.split=true", f"{path}={value}"])
            assert flat_settings(found)[path] == value


def test_an_edit_by_words_has_the_published_defaults_and_takes_the_published_range() -> None:
    for scale in (0, 0.25, 15):
        (edit,) = load_preset("cel", ["model=v2", f"manipulate=[{{target: a, scale: {scale}}}]"]).manipulate
        assert (edit.scale, edit.enhance, edit.thresholds) == (scale, False, (0.5, 0.55, 0.65, 0.95))


def test_every_option_that_became_a_setting_names_one_that_there_is() -> None:
    paths = {key.path for key in preset_keys()}
    named = {path for path, *_ in (*SETTINGS.values(), *SETTINGS_V2.values())}
    assert named | {path for path, _ in OF_OUR_OWN.values()} <= paths


def test_the_published_sampler_and_schedule_are_those_of_xl() -> None:
    sampling = default_preset("xl").sampling
    assert (sampling.sampler, sampling.schedule) == (PUBLISHED_SAMPLERS["DPM++ 3M SDE"], PUBLISHED_STEPS["Automatic"])
    assert sampling.start == "noise"


def test_no_option_is_told_of_twice() -> None:
    assert not (set(SETTINGS) & set(OF_OUR_OWN) or set(NO_SETTING) & {*SETTINGS, *OF_OUR_OWN})

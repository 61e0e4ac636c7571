"""A preset in the terms of the networks: how strongly each picture speaks, and where."""

from colorcli.model.conditions import ConditionSettings
from colorcli.model.conditions_v2 import SideSettings
from colorcli.model.unet import ColorUNet, group_strengths, published_strengths, published_strengths_v2
from colorcli.presets import Preset


def condition_settings(preset: Preset, unet: ColorUNet, *, has_adapter: bool, has_sides: bool) -> ConditionSettings:
    """Give the settings of a preset's conditions; has_sides: for a model with side encoders, without edits by words."""
    sketch, reference, background = preset.sketch, preset.reference, preset.background
    published = preset.compat == "published"
    settings = ConditionSettings(
        sketch_levels=tuple(sketch.strength * level for level in sketch.levels),
        split=background.split,
        merge=reference.merge,
        foreground=reference.foreground_strength,
        background=reference.background_strength,
        reference_threshold=reference.mask_threshold,
        sketch_threshold=sketch.mask_threshold,
        strengths=reference_strengths(preset, unet, has_adapter=has_adapter, has_sides=has_sides),
        blank=sketch.guidance > 1,
        latent_copy=background.latent_copy,
        compat=published and not has_sides,
    )
    if not has_sides:
        return settings
    # The last two of this model's maps have one size, and share a level.
    return SideSettings(**vars(settings) | {
        "sketch_levels": (*settings.sketch_levels, settings.sketch_levels[-1]),
        "style": preset.style.enhance, "hints": background.hints,
    })


def reference_strengths(
    preset: Preset, unet: ColorUNet, *, has_adapter: bool, has_sides: bool
) -> float | list[float]:
    """Give how strongly the reference speaks: one number, or one for each transformer block."""
    reference = preset.reference
    groups = {name: getattr(reference, name) for name in ("encoder", "middle", "low", "high")}
    if preset.compat == "published" and reference.blocks is None:
        scales = {name: reference.strength * factor for name, factor in groups.items()}
        if has_sides:
            return published_strengths_v2(unet, {name: scales[name] for name in ("encoder", "middle", "low")})
        return published_strengths(unet, {name: scales[name] for name in ("encoder", "low")}, adapter=has_adapter)
    if reference.blocks is None and all(factor == 1.0 for factor in groups.values()):
        return reference.strength
    found = group_strengths(unet, reference.strength, **groups)
    blocks = reference.blocks or [1.0] * len(found)
    return [strength * block for strength, block in zip(found, blocks, strict=True)]

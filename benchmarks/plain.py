"""The plain loop that everyone would write, to measure against: `python -m benchmarks.plain SHOT --ref KEY -o OUT`.

The same weights, settings, preparation and finishing as the product; and one frame after the other, Pillow reads and
saves, the key is read anew for every frame, its tokens are projected anew in every step, guidance doubles the batch,
nothing is kept or overlapped, a held drawing is colored like any other, and threads wait as torch has them wait.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from colorcli.finish.finish import finish_frame
from colorcli.images import Picture
from colorcli.model.attention import AttentionPlan
from colorcli.model.conditions import Conditions
from colorcli.model.match import KeyMap, Painted, paint_match, part_map
from colorcli.model.memory import MemoryProfile
from colorcli.model.preprocess import mask_tensor, picture_tensor, sketch_tensor, tagger_pixels
from colorcli.model.reading import PartReader
from colorcli.model.weights import family_of
from colorcli.pipeline import LAST_TIME, UNSURE_CELLS, ColorizePipeline, picture_of
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.presets import Preset, load_preset
from colorcli.sampling import SCHEDULERS, frame_noise, make_scheduler, skipped_steps

Floats = NDArray[np.float32]
PLAIN = replace(MemoryProfile("full"), keep_projected=False)


def plain_shot(shot: Path, key: Path, out: Path, pipeline: ColorizePipeline, preset: Preset) -> None:
    """Color every picture of a folder into another."""
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(shot.iterdir()):
        color, alpha = plain_frame(read(file), read(key), pipeline, preset)
        save(out / file.name, color, alpha)


def plain_frame(
    picture: Picture, key_picture: Picture, pipeline: ColorizePipeline, preset: Preset
) -> tuple[Floats, Floats | None]:
    """Color one drawing, the key included: color (H, W, 3) in 0..1 and alpha (H, W) or None."""
    key = prepare_key(key_picture, preset, pipeline.variant)
    frame = prepare_frame(picture, preset, pipeline.variant)
    return finish_frame(plain_layer(key, frame, pipeline, preset), frame, key, preset)


@torch.inference_mode()
def plain_layer(key: PreparedKey, frame: PreparedFrame, pipeline: ColorizePipeline, preset: Preset) -> Floats:
    """Give the color layer (h, w, 3), 0..1, of a frame. The preset asks for no split and for a diffusers scheduler."""
    sampling = preset.sampling
    assert not preset.background.split and sampling.sampler in SCHEDULERS, "the plain loop knows only the plain cases"
    reference = pipeline.encode_reference(key, preset)
    conditions = pipeline.conditions(frame, reference, preset)
    scale = float(pipeline.vae.config["scaling_factor"])
    height, width = frame.ink_canvas.shape
    noise = frame_noise([sampling.seed], (pipeline.unet.config["in_channels"], height // 8, width // 8))
    painted, start = None, None
    if reference.match is not None:
        painted = _match(reference.match, frame, conditions, noise, pipeline)
        start = pipeline.encode_picture(painted.color)
    latents = _denoised(noise, start, _predictor(pipeline.unet, conditions, preset), pipeline, preset)
    layer = pipeline.vae.decode(latents / scale).sample
    if painted is not None and start is not None:
        trust = mask_tensor(painted.cells / (painted.cells + UNSURE_CELLS))
        layer = picture_tensor(painted.color) + trust * (layer - pipeline.vae.decode(start / scale).sample)
    return np.asarray(((layer[0].clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy(), np.float32)


def _denoised(
    noise: Tensor, start: Tensor | None, predict: Callable[[Tensor, Tensor], Tensor], pipeline: ColorizePipeline,
    preset: Preset,
) -> Tensor:
    """Run the scheduler as every pipeline of diffusers does."""
    sampling = preset.sampling
    scheduler = make_scheduler(sampling.sampler, pipeline.scheduler.config, steps=sampling.schedule)
    skipped = skipped_steps(sampling.steps, 1.0 if start is None else sampling.start_level)
    scheduler.set_timesteps(sampling.steps + skipped)
    times = scheduler.timesteps[skipped:]
    x = noise * scheduler.init_noise_sigma if start is None else scheduler.add_noise(start, noise, times[:1])
    for time in times:
        x = scheduler.step(predict(scheduler.scale_model_input(x, time), time), time, x).prev_sample
    return x


def _predictor(unet: torch.nn.Module, conditions: Conditions, preset: Preset) -> Callable[[Tensor, Tensor], Tensor]:
    """Give the prediction with classifier-free guidance, its two rows in one batch."""
    tokens, scale, y = conditions.context, preset.reference.guidance, conditions.y
    assert isinstance(tokens, Tensor) and preset.sketch.guidance <= 1
    plan = AttentionPlan(strengths=conditions.strengths)

    def predict(x: Tensor, time: Tensor) -> Tensor:
        if scale <= 1:
            return unet(x, float(time), y, tokens, conditions.sketch_maps, plan)
        both = torch.cat([x, x])
        maps = [torch.cat([level, level]) for level in conditions.sketch_maps]
        rows = unet(both, float(time), None if y is None else torch.cat([y, y]),
                    torch.cat([tokens, torch.zeros_like(tokens)]), maps, plan)
        cond, uncond = rows.chunk(2)
        return uncond + scale * (cond - uncond)

    return predict


def _match(
    known: KeyMap, frame: PreparedFrame, conditions: Conditions, noise: Tensor, pipeline: ColorizePipeline
) -> Painted:
    """Paint the color match that a run of mini begins from."""
    reader = PartReader(
        pipeline.unet,
        lambda shown: pipeline.tagger(tagger_pixels(shown, pipeline.tagger.config["image_size"])),
        pipeline.feature_head, pipeline.map_head, pipeline.token_head,
    )
    (parts,), (features,) = reader.read(-sketch_tensor(frame.ink_canvas), conditions, noise, LAST_TIME)
    return paint_match(part_map(parts, frame.mask_canvas, features), frame, known, pipeline.matcher)


def read(file: Path) -> Picture:
    """Read a picture with Pillow."""
    with PIL.Image.open(file) as image:
        return picture_of(image)


def save(file: Path, color: Floats, alpha: Floats | None) -> None:
    """Save a picture with Pillow as it comes, 8 bits."""
    pixels = color if alpha is None else np.dstack([color, alpha])
    PIL.Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(file)


def load(model: str, preset_name: str) -> tuple[ColorizePipeline, Preset]:
    """Load a model that keeps no projected tokens, and the settings of a preset for it."""
    preset = load_preset(preset_name, [f"model={model}"], family_of)
    return ColorizePipeline.from_pretrained(preset.model).keep_within(PLAIN, "cpu"), preset


def main() -> None:
    """Color a shot the plain way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shot", type=Path, help="folder of drawings")
    parser.add_argument("--ref", type=Path, required=True, metavar="KEY")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--preset", default="cel")
    options = parser.parse_args()
    plain_shot(options.shot, options.ref, options.out, *load(options.model, options.preset))


if __name__ == "__main__":
    main()

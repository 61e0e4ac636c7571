"""`ColorizePipeline`: from a key and line art to color layers, as a diffusers pipeline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor

from colorcli.errors import DeviceError, WeightsError
from colorcli.model.build import Components, reference_context, size_condition
from colorcli.model.match import KeyMap, PartMap, key_map, match_cells, paint_match, part_map
from colorcli.model.reference import tagger_pixels
from colorcli.model.weights import weights_digest, weights_folder
from colorcli.prepare.frame import PreparedFrame
from colorcli.prepare.key import PreparedKey
from colorcli.prepare.palette import find_palette
from colorcli.presets import Preset

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """What the model has read of a key: computed once for a shot, used by every frame."""

    context: Tensor           # (1, tokens, C) conditional context
    match: KeyMap | None      # parts and colors of the key, if the model can match them


class ColorizePipeline(DiffusionPipeline):
    """Colors line art from a reference.

        pipe = ColorizePipeline.from_pretrained("mini")
        reference = pipe.encode_reference(key, preset)
        layers = pipe.color(frames, reference, preset)

    A frame's layer depends on its own pixels, the reference and the settings only: its noise is drawn on the CPU from the
    seed, and frames do not meet in a batch on the CPU.
    """

    def __init__(
        self, vae: Any, tagger: Any, token_head: Any, image_encoder: Any, projection: Any, sketch_encoder: Any, map_head: Any,
        unet: Any, scheduler: Any,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, tagger=tagger, token_head=token_head, image_encoder=image_encoder, projection=projection,
            sketch_encoder=sketch_encoder, map_head=map_head, unet=unet, scheduler=scheduler,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "ColorizePipeline":
        """Load a model by name ("mini"), from a folder in the diffusers layout, or by what diffusers takes."""
        return super().from_pretrained(weights_folder(str(pretrained_model_name_or_path)), **kwargs)

    @property
    def networks(self) -> Components:
        """The networks as one value."""
        return Components(**self.components)

    @torch.inference_mode()
    def encode_reference(self, key: PreparedKey, preset: Preset) -> Reference:
        """Read a prepared key."""
        context = reference_context(self.networks, _picture(key.color_canvas).to(self.device))
        parts = self._parts(key.ink_canvas, key.mask_canvas, key.color_canvas)
        palette = find_palette(key.color_canvas, key.ink_canvas, key.mask_canvas)
        return Reference(context, key_map(parts, palette))

    @torch.inference_mode()
    def color(self, frames: Sequence[PreparedFrame], reference: Reference, preset: Preset) -> list[Floats]:
        """Give the color layer (h, w, 3), 0..1, without lines, of each frame, at the size of its canvas."""
        return [self._color(frame, reference, preset) for frame in frames]

    def match(self, frame: PreparedFrame, reference: Reference) -> Floats:
        """Paint the color match (h, w, 3), 0..1: where the model starts from."""
        assert reference.match is not None
        parts = self._parts(frame.ink_canvas, frame.mask_canvas, None)
        votes = match_cells(parts, reference.match)
        return paint_match(votes, reference.match.palette, frame.ink_canvas, frame.mask_canvas)

    def _parts(self, ink: Floats, mask: Floats, color: Floats | None) -> PartMap:
        """Read the parts of a canvas from its lines, and from its color if it has any, as the mean of both readings."""
        sketch = _sketch(ink).to(self.device)
        lines = self.map_head(self.sketch_encoder(sketch))[0].softmax(1)  # (1, parts, h/8, w/8)
        shown = -sketch if color is None else _picture(color).to(self.device)
        tokens = self.tagger(tagger_pixels(shown, self.tagger.config["image_size"]))
        whole = self.token_head.part_logits(tokens).softmax(1)
        whole = torch.nn.functional.interpolate(whole, lines.shape[-2:], mode="bilinear", align_corners=False)
        return part_map((0.5 * (lines + whole))[0].cpu(), mask)

    def _color(self, frame: PreparedFrame, reference: Reference, preset: Preset) -> Floats:
        height, width = frame.ink_canvas.shape
        sampling = preset.sampling
        generator = torch.Generator("cpu").manual_seed(sampling.seed)
        # Drawn on the CPU: one seed has to give one and the same frame on every machine of the farm.
        noise = torch.randn((1, 4, height // 8, width // 8), generator=generator).to(self.device)
        begun = sampling.start == "match" and reference.match is not None
        steps = math.ceil(sampling.steps / sampling.start_level) if begun else sampling.steps
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=self.device)
        timesteps = scheduler.timesteps[-sampling.steps:]
        latents = noise
        if begun:
            painted = _picture(self.match(frame, reference)).to(self.device)
            start = self.vae.encode(painted).latents * self.vae.config["scaling_factor"]
            latents = scheduler.add_noise(start, noise, timesteps[:1])
        maps = self.sketch_encoder(_sketch(frame.ink_canvas).to(self.device))
        y = size_condition(height, width).to(self.device)
        for timestep in timesteps:
            predicted = self.unet(latents, timestep.float(), y, reference.context, maps)
            latents = scheduler.step(predicted, timestep, latents).prev_sample
        decoded = self.vae.decode(latents / self.vae.config["scaling_factor"]).sample
        return np.asarray(((decoded[0].float().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu().numpy(), np.float32)


def _picture(color: Floats) -> Tensor:
    """Turn (h, w, 3) in 0..1 into (1, 3, h, w) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(color)).permute(2, 0, 1)[None] * 2 - 1


def _sketch(ink: Floats) -> Tensor:
    """Turn ink (h, w), 1 on lines, into the model's sketch (1, 3, h, w): paper -1, line +1."""
    return (torch.from_numpy(np.ascontiguousarray(ink)) * 2 - 1).expand(1, 3, -1, -1)

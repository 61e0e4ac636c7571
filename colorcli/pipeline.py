"""`ColorizePipeline`: from a key and line art to color layers, as a diffusers pipeline."""

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging as transformers_logging

from colorcli.errors import DeviceError, WeightsError
from colorcli.images import FORMATS, Picture
from colorcli.model.attention import AttentionPlan
from colorcli.model.autoencoder import MeanColorAutoencoder
from colorcli.model.build import last_features
from colorcli.model.conditions import (
    Conditions,
    ConditionSettings,
    Encoders,
    KeyPictures,
    KeyTokens,
    frame_conditions,
    read_key,
)
from colorcli.model.match import KeyMap, Painted, PartMap, key_map, paint_match, part_map
from colorcli.model.parts import FeaturePartHead, MapPartHead, TokenPartHead
from colorcli.model.preprocess import clip_pixels, tagger_pixels
from colorcli.model.reference import ClusterProjection, TaggerTower, clip_tokens
from colorcli.model.sketch_encoder import SketchEncoder
from colorcli.model.unet import ColorUNet, Sighting
from colorcli.model.weights import require_whole, weights_folder
from colorcli.prepare.canvas import from_canvas
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.presets import Preset
from colorcli.sampling import Guidance, frame_noise, guided, sample
from colorcli.variants import VARIANTS

Floats = NDArray[np.float32]

LAST_TIME = 999                      # of the noise schedule: pure noise
KEY_TIME = 300                       # at which the colors of a key are still seen well
READING_WEIGHTS = (0.6, 0.2, 0.2)    # of the network's, the sketch maps' and the tagger's reading of the parts
UNSURE_CELLS = 64.0                  # a region of so many latents is colored half by the match, half by the model

Image = Picture | PIL.Image.Image | NDArray[Any]  # an array is (H, W) or (H, W, 3 or 4), uint8 or 0..1
DEFAULT = Preset()


@dataclass(frozen=True)
class ColorizeOutput:
    """What a call of the pipeline gives."""

    images: list[Floats]   # (H, W, 3) in 0..1, one for each drawing


@dataclass(frozen=True)
class Reference:
    """What the model has read of a key: computed once for a shot, used by every frame."""

    tokens: KeyTokens  # what the cross-attention sees
    match: KeyMap  # parts and colors of the key: what a frame's colors are matched with


class ColorizePipeline(DiffusionPipeline):
    """Colors line art from a reference.

        pipe = ColorizePipeline.from_pretrained("mini")
        reference = pipe.encode_reference(PIL.Image.open("key.png"))
        layers = pipe(PIL.Image.open("walk.0001.png"), reference=reference).images

    A frame's layer depends on its own pixels, the reference and the settings only: its noise is drawn on the CPU from
    the seed, and frames never meet in a batch.
    """

    def __init__(
        self,
        vae: MeanColorAutoencoder,
        tagger: TaggerTower,
        token_head: TokenPartHead,
        image_encoder: CLIPVisionModelWithProjection,
        projection: ClusterProjection,
        sketch_encoder: SketchEncoder,
        map_head: MapPartHead,
        unet: ColorUNet,
        feature_head: FeaturePartHead,
        scheduler: DDIMScheduler,
    ) -> None:
        super().__init__()
        self.attention = "sdpa"   # a name of BACKENDS
        self.register_modules(
            vae=vae,
            tagger=tagger,
            token_head=token_head,
            image_encoder=image_encoder,
            projection=projection,
            sketch_encoder=sketch_encoder,
            map_head=map_head,
            unet=unet,
            feature_head=feature_head,
            scheduler=scheduler,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "ColorizePipeline":
        """Load a model by name ("mini") or from a folder in the diffusers layout. Raises WeightsError without one."""
        return super().from_pretrained(weights_folder(str(pretrained_model_name_or_path)), **kwargs)

    @property
    def encoders(self) -> Encoders:
        """What turns pictures into tokens, latents and maps."""
        return Encoders(
            clip=lambda picture: clip_tokens(
                self.image_encoder, clip_pixels(picture, self.image_encoder.config.image_size)
            ),
            tagger=lambda picture: self.tagger(tagger_pixels(picture, self.tagger.config["image_size"])),
            latents=lambda picture: self.vae.encode(picture).latents,
            projection=self.projection,
            sketch=self.sketch_encoder,
            latent_scale=self.vae.config["scaling_factor"],
        )

    def __call__(
        self, lines: Image | Sequence[Image], reference: Reference | Image, preset: Preset = DEFAULT
    ) -> ColorizeOutput:
        """Color line art: the model's layers at the size of the drawings, not yet finished along the lines.

        lines: one drawing or several; reference: the key, or what `encode_reference` gave for it.
        """
        drawings = [lines] if not isinstance(lines, Sequence) else lines
        variant = VARIANTS["mini"]
        known = reference if isinstance(reference, Reference) else self.encode_reference(reference, preset)
        frames = [prepare_frame(picture_of(drawing), preset, variant) for drawing in drawings]
        layers = self.color(frames, known, preset)
        return ColorizeOutput([from_canvas(layer, f.canvas, 1.0) for layer, f in zip(layers, frames, strict=True)])

    @torch.inference_mode()
    def encode_reference(self, key: PreparedKey | Image, preset: Preset = DEFAULT) -> Reference:
        """Read a key, as a picture or prepared: once for a shot."""
        if not isinstance(key, PreparedKey):
            key = prepare_key(picture_of(key), preset, VARIANTS["mini"])
        pictures = KeyPictures(_picture(key.color_canvas).to(self.device), _mask(key.mask_canvas).to(self.device))
        tokens = read_key(self.encoders, pictures, condition_settings(preset))
        return Reference(tokens, key_map(self._key_parts(key, tokens, preset), key))

    @torch.inference_mode()
    def color(self, frames: Sequence[PreparedFrame], reference: Reference, preset: Preset) -> list[Floats]:
        """Give the color layer (h, w, 3), 0..1, without lines, of each frame, at the size of its canvas.

        Raises DeviceError if a frame does not fit into the device's memory.
        """
        try:
            return [self._color(frame, reference, preset) for frame in frames]
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                "one frame does not fit in the memory of the device", hint="--set canvas.area=65536"
            ) from error

    @torch.inference_mode()
    def match(self, frame: PreparedFrame, reference: Reference, preset: Preset) -> Floats:
        """Paint the color match (h, w, 3), 0..1: the key's colors on the frame's closed regions, by part and place."""
        return self._match(frame, reference, self._conditions(frame, reference.tokens, preset), preset).color

    def describe(self) -> dict[str, str]:
        """Tell the device and the attention backend, for the manifest."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {"device": name, "attention": self.attention, "threads": str(torch.get_num_threads())}

    def _color(self, frame: PreparedFrame, reference: Reference, preset: Preset) -> Floats:
        sampling, scale = preset.sampling, self.vae.config["scaling_factor"]
        conditions = self._conditions(frame, reference.tokens, preset)
        painted = start = None
        if sampling.start == "match":
            painted = self._match(frame, reference, conditions, preset)
            start = self.vae.encode(_picture(painted.color).to(self.device)).latents * scale
        latents = sample(
            guided(
                self.unet,
                conditions,
                Guidance(preset.reference.guidance, preset.sketch.guidance, sampling.window, sampling.off_window),
            ),
            self._noise(frame.ink_canvas, preset),
            sampler=sampling.sampler,
            count=sampling.steps,
            schedule=self.scheduler.config,
            seeds=[sampling.seed],
            start=start,
            level=sampling.start_level if start is not None else 1.0,
        )
        layer = self.vae.decode(latents / scale).sample
        if painted is not None and start is not None:
            # What the model changed is laid over the match. A region of few latents is left to the match, which knows
            # it at full size.
            change = layer - self.vae.decode(start / scale).sample
            trust = _mask(painted.cells / (painted.cells + UNSURE_CELLS)).to(self.device)
            layer = _picture(painted.color).to(self.device) + trust * change
        return np.asarray(((layer[0].float().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu().numpy(), np.float32)

    def _conditions(self, picture: PreparedFrame | PreparedKey, tokens: KeyTokens, preset: Preset) -> Conditions:
        sketch, mask = _sketch(picture.ink_canvas).to(self.device), _mask(picture.mask_canvas).to(self.device)
        conditions = frame_conditions(self.encoders, tokens, sketch, mask, condition_settings(preset))
        return replace(conditions, backend=self.attention)

    def _noise(self, ink: Floats, preset: Preset) -> Tensor:
        """Draw the noise of a canvas (h, w): (1, C, h/8, w/8) of unit variance."""
        shape = (self.unet.config.in_channels, ink.shape[0] // 8, ink.shape[1] // 8)
        return frame_noise([preset.sampling.seed], shape).to(self.device)

    def _match(self, frame: PreparedFrame, reference: Reference, conditions: Conditions, preset: Preset) -> Painted:
        white = -_sketch(frame.ink_canvas).to(self.device)
        parts = self._parts(white, conditions, self._noise(frame.ink_canvas, preset), LAST_TIME)
        return paint_match(part_map(parts, frame.mask_canvas), frame, reference.match)

    def _key_parts(self, key: PreparedKey, tokens: KeyTokens, preset: Preset) -> PartMap:
        """Read the parts of a key from its lines and its colors."""
        conditions = self._conditions(key, tokens, preset)
        shown = _picture(key.color_canvas).to(self.device)
        latents = self.vae.encode(shown).latents * self.vae.config["scaling_factor"]
        noised = self.scheduler.add_noise(latents, self._noise(key.ink_canvas, preset), torch.tensor([KEY_TIME]))
        return part_map(self._parts(shown, conditions, noised, KEY_TIME), key.mask_canvas)

    def _parts(self, shown: Tensor, conditions: Conditions, latents: Tensor, time: int) -> Tensor:
        """Read the parts of a canvas in three ways: the weighted mean of their probabilities, (parts, h/8, w/8).

        By the denoising network's last features, which see pure noise with a drawing's lines, or a key's colors under
        some noise; by the sketch maps; by the tagger, which sees the picture `shown`, line art as dark on white.
        """
        seen = Sighting(last_features(self.unet))
        plan = AttentionPlan(backend=conditions.backend)
        self.unet(latents, float(time), conditions.y, conditions.context, conditions.sketch_maps, plan, seen)
        by_network = self.feature_head(seen.features).softmax(1)  # (1, parts, h/8, w/8)
        by_lines = self.map_head(list(conditions.sketch_maps))[0].softmax(1)
        by_tagger = self.token_head.part_logits(self.encoders.tagger(shown)).softmax(1)  # (1, parts, rows, columns)
        by_tagger = F.interpolate(by_tagger, by_lines.shape[-2:], mode="bilinear", align_corners=False)
        readings = zip(READING_WEIGHTS, (by_network, by_lines, by_tagger), strict=True)
        return torch.stack([weight * reading[0] for weight, reading in readings]).sum(0).cpu()


def load_pipeline(model: str, device: str = "auto", attention: str = "auto") -> ColorizePipeline:
    """Load a model by name or folder onto a device: "auto" (the GPU if there is one), "cpu", "cuda", "cuda:1".

    attention: "sdpa", "xformers", or "auto": xformers where it is installed and the device is a CUDA one.
    Raises WeightsError if the weights are missing or cut off, DeviceError if there is no such device.
    """
    folder = weights_folder(model)
    require_whole(folder)
    chosen = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if chosen.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"there is no device {chosen} here", hint="--device cpu, or see `colorcli doctor`")
    try:
        with quiet_libraries():
            pipeline = ColorizePipeline.from_pretrained(folder)
        has_xformers = chosen.startswith("cuda") and importlib.util.find_spec("xformers") is not None
        pipeline.attention = ("xformers" if has_xformers else "sdpa") if attention == "auto" else attention
        return pipeline.to(chosen)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"{folder} cannot be loaded: {error}", hint="see `colorcli models verify`") from error
    except RuntimeError as error:
        raise DeviceError(f"the model cannot be put on {chosen}: {error}", hint="see `colorcli doctor`") from error


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the loading bars of diffusers and transformers off the terminal, where a farm reads our own lines."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.enable_progress_bar()
        transformers_logging.enable_progress_bar()


def condition_settings(preset: Preset) -> ConditionSettings:
    """Give the preset's strengths in the terms of the networks."""
    reference, sketch = preset.reference, preset.sketch
    return ConditionSettings(
        sketch_levels=tuple(sketch.strength * level for level in sketch.levels),
        split=preset.background.split,
        merge=reference.merge,
        foreground=reference.foreground_strength,
        background=reference.background_strength,
        reference_threshold=reference.mask_threshold,
        sketch_threshold=sketch.mask_threshold,
        strengths=reference.strength,
        blank=sketch.guidance > 1,
    )


def picture_of(image: Image) -> Picture:
    """Take a picture as it comes in Python: our own, Pillow's, or an array (H, W), (H, W, 3) or (H, W, 4)."""
    if isinstance(image, Picture):
        return image
    if isinstance(image, PIL.Image.Image):
        image = np.asarray(image.convert("RGBA" if "A" in image.getbands() else "RGB"))
    array = image.astype(np.float32) / (255.0 if image.dtype == np.uint8 else 1.0)
    color = array[..., :3] if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)
    alpha = array[..., 3] if array.ndim == 3 and array.shape[2] == 4 else None
    return Picture(np.ascontiguousarray(color), alpha, FORMATS["png8"], 3 if alpha is None else 4)


def _picture(color: Floats) -> Tensor:
    """Turn (h, w, 3) in 0..1 into (1, 3, h, w) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(color)).permute(2, 0, 1)[None] * 2 - 1


def _mask(mask: Floats) -> Tensor:
    """Turn (h, w) into (1, 1, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(mask))[None, None]


def _sketch(ink: Floats) -> Tensor:
    """Turn ink (h, w), 1 on lines, into the model's sketch (1, 3, h, w): paper -1, line +1."""
    return (torch.from_numpy(np.ascontiguousarray(ink)) * 2 - 1).expand(1, 3, -1, -1)

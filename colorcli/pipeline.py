"""`ColorizePipeline`: from a key and line art to color layers, as a diffusers pipeline."""

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from colorcli.model.autoencoder import MeanColorAutoencoder
from colorcli.model.build import last_features
from colorcli.model.conditions import ConditionSettings, Encoders, KeyPictures, KeyTokens, frame_conditions, read_key
from colorcli.model.match import KeyMap, PartMap, key_map, match_cells, paint_match, part_map
from colorcli.model.parts import FeaturePartHead, MapPartHead, TokenPartHead
from colorcli.model.reference import ClusterProjection, TaggerTower, clip_pixels, clip_tokens, tagger_pixels
from colorcli.model.sketch_encoder import SketchEncoder
from colorcli.model.unet import ColorUNet, Sighting
from colorcli.model.weights import require_whole, weights_folder
from colorcli.prepare.canvas import from_canvas
from colorcli.prepare.frame import PreparedFrame, prepare_frame
from colorcli.prepare.key import PreparedKey, prepare_key
from colorcli.prepare.palette import find_palette
from colorcli.presets import Preset
from colorcli.sampling import Guidance, frame_noise, guided, sample
from colorcli.variants import VARIANTS

Floats = NDArray[np.float32]


LAST_TIME = 999                      # of the noise schedule: pure noise
KEY_TIME = 300                       # at which the colors of a key are still seen well
READING_WEIGHTS = (0.6, 0.2, 0.2)    # of the network's, the sketch maps' and the tagger's reading of the parts

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
        """Load a model by name ("mini"), from a folder in the diffusers layout, or by what diffusers takes."""
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
        parts = self._parts(key.ink_canvas, key.mask_canvas, key.color_canvas, tokens, preset)
        palette = find_palette(key.color_canvas, key.ink_canvas, key.mask_canvas)
        return Reference(tokens, key_map(parts, palette))

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
        parts = self._parts(frame.ink_canvas, frame.mask_canvas, None, reference.tokens, preset)
        votes = match_cells(parts, reference.match)
        return paint_match(votes, reference.match.palette, frame)

    def describe(self) -> dict[str, str]:
        """Tell the device and the attention backend, for the manifest."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {"device": name, "attention": self.attention, "threads": str(torch.get_num_threads())}

    def _color(self, frame: PreparedFrame, reference: Reference, preset: Preset) -> Floats:
        height, width = frame.ink_canvas.shape
        sampling, scale = preset.sampling, self.vae.config["scaling_factor"]
        noise = frame_noise([sampling.seed], (self.unet.config.in_channels, height // 8, width // 8)).to(self.device)
        start = None
        if sampling.start == "match":
            painted = _picture(self.match(frame, reference, preset)).to(self.device)
            start = self.vae.encode(painted).latents * scale
        conditions = frame_conditions(
            self.encoders,
            reference.tokens,
            _sketch(frame.ink_canvas).to(self.device),
            _mask(frame.mask_canvas).to(self.device),
            condition_settings(preset),
        )
        guidance = Guidance(preset.reference.guidance, preset.sketch.guidance, sampling.window, sampling.off_window)
        latents = sample(
            guided(self.unet, conditions, guidance),
            noise,
            sampler=sampling.sampler,
            count=sampling.steps,
            schedule=self.scheduler.config,
            seeds=[sampling.seed],
            start=start,
            level=sampling.start_level if start is not None else 1.0,
        )
        decoded = self.vae.decode(latents / scale).sample
        return np.asarray(((decoded[0].float().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu().numpy(), np.float32)

    def _parts(self, ink: Floats, mask: Floats, color: Floats | None, tokens: KeyTokens, preset: Preset) -> PartMap:
        """Read the parts of a canvas in three ways, and take the weighted mean of the probabilities.

        By the denoising network's last features, which see pure noise with the drawing's lines, or a key's colors under
        some noise; by the sketch maps; by the tagger, which sees the whole picture, line art as white.
        """
        sketch = _sketch(ink).to(self.device)
        shown = -sketch if color is None else _picture(color).to(self.device)
        conditions = frame_conditions(self.encoders, tokens, sketch, _mask(mask).to(self.device), ConditionSettings())
        height, width = ink.shape
        noise = frame_noise([preset.sampling.seed], (self.unet.config.in_channels, height // 8, width // 8))
        noise = noise.to(self.device)
        latents, time = noise, LAST_TIME
        if color is not None:
            own = self.vae.encode(shown).latents * self.vae.config["scaling_factor"]
            latents, time = self.scheduler.add_noise(own, noise, torch.tensor([KEY_TIME])), KEY_TIME
        seen = Sighting(last_features(self.unet))
        self.unet(latents, float(time), conditions.y, conditions.context, conditions.sketch_maps, observe=seen)
        by_network = self.feature_head(seen.features).softmax(1)  # (1, parts, h/8, w/8)
        by_lines = self.map_head(list(conditions.sketch_maps))[0].softmax(1)
        by_tagger = self.token_head.part_logits(self.encoders.tagger(shown)).softmax(1)  # (1, parts, rows, columns)
        by_tagger = F.interpolate(by_tagger, by_lines.shape[-2:], mode="bilinear", align_corners=False)
        mean = sum(weight * p for weight, p in zip(READING_WEIGHTS, (by_network, by_lines, by_tagger), strict=True))
        return part_map(mean[0].cpu(), mask)


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

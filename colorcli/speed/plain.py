"""The loop that one would write around diffusers, to be compared with: the same weights, and nothing of ours.

The stock U-Net with its stock attention, both rows of guidance in full, the key's tokens projected anew in every call,
one frame at a time, convolutions as they are laid out by default, the autoencoder in float32. What such a loop would
do as well is done as well: the key is read once, the drawing is encoded once a frame.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn

from colorcli.loading import quiet_libraries
from colorcli.pipeline import ColorizePipeline, Reference
from colorcli.prepare.frame import PreparedFrame
from colorcli.presets import Preset
from colorcli.sampling import frame_noise, sample

Floats = NDArray[np.float32]


class PlainLoop:
    """Colors one frame after the other with the stock network.

    numbers: what it computes in; None: as the pipeline. Takes the memory of a second denoising network's convolutions
    and of a second autoencoder, or in other numbers of all of both.
    """

    def __init__(self, pipeline: ColorizePipeline, numbers: torch.dtype | None = None) -> None:
        self._pipeline = pipeline
        self._numbers = numbers or pipeline.unet.conv_in.weight.dtype
        self.unet = stock_unet(pipeline.unet, self._numbers)
        with quiet_libraries():
            self.vae = copy.deepcopy(pipeline.vae).to(torch.float32, memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def color(self, frame: PreparedFrame, reference: Reference, preset: Preset) -> Floats:
        """Give the color layer (h, w, 3), 0..1, of a frame. The preset asks for no match, split or sketch guidance."""
        sampling, pipeline = preset.sampling, self._pipeline
        assert sampling.start == "noise" and not preset.background.split and preset.sketch.guidance <= 1
        conditions = pipeline.conditions(frame, reference, preset)
        tokens = conditions.context
        assert isinstance(tokens, Tensor), "the tokens themselves"
        guidance = preset.reference.guidance
        rows = 2 if guidance > 1 else 1
        context = torch.cat([tokens, torch.zeros_like(tokens)][:rows]).to(self._numbers)  # (rows, M, D)
        maps = [level.to(self._numbers).repeat(rows, 1, 1, 1) for level in conditions.sketch_maps]
        y = None if conditions.y is None else conditions.y.to(self._numbers).repeat(rows, 1)

        def predict(x: Tensor, time: float) -> Tensor:
            latents = x.to(self._numbers).repeat(rows, 1, 1, 1)
            with added_maps(self.unet, maps):
                out = self.unet(latents, time, encoder_hidden_states=context, class_labels=y).sample.float()
            if rows == 1:
                return out
            cond, uncond = out.chunk(2)
            return uncond + guidance * (cond - uncond)

        height, width = frame.ink_canvas.shape
        shape = self.unet.config["in_channels"], height // 8, width // 8
        latents = sample(
            predict, frame_noise([sampling.seed], shape).to(context.device), sampler=sampling.sampler,
            count=sampling.steps, schedule=pipeline.scheduler.config, steps=sampling.schedule, seeds=[sampling.seed],
        )
        layer = self.vae.decode(latents.float() / self.vae.config["scaling_factor"]).sample
        unit = (layer[0].float().clamp(-1, 1) + 1) / 2  # (3, h, w)
        return np.asarray(unit.permute(1, 2, 0).cpu().numpy(), np.float32)


def stock_unet(unet: nn.Module, numbers: torch.dtype) -> UNet2DConditionModel:
    """Make diffusers' own network of the weights of ours, all of them in `numbers`; what is equal is shared."""
    like: Any = unet
    with init_empty_weights(include_buffers=False):
        stock = UNet2DConditionModel.from_config(dict(like.config))
    weights = {
        name: tensor.detach().to(numbers).contiguous() for name, tensor in like.state_dict().items()
    }
    stock.load_state_dict(weights, assign=True)
    return stock.eval().requires_grad_(False)


@contextmanager
def added_maps(unet: UNet2DConditionModel, maps: Sequence[Tensor]) -> Iterator[None]:
    """Inside, the stock network adds the drawing's maps: behind its first layer, each down-sampling and the encoder."""
    last = unet.down_blocks[-1]
    places = [unet.conv_in, *(one for block in unet.down_blocks for one in block.downsamplers or ())]
    places.append((getattr(last, "attentions", None) or last.resnets)[-1])
    with ExitStack() as hooks:
        for place, level in zip(places, maps, strict=True):

            def add(module: nn.Module, args: Any, out: Any, level: Tensor = level) -> Any:
                return (out[0] + level, *out[1:]) if isinstance(out, tuple) else out + level

            hooks.callback(place.register_forward_hook(add).remove)
        yield

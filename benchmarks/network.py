"""Calls of the denoising network alone, on random numbers, and the work in them."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from colorcli.model.unet import project_context
from colorcli.pipeline import ColorizePipeline
from colorcli.sampling import frame_noise

TIME = 500.0   # of the noise schedule


def call_of(
    pipeline: ColorizePipeline, canvas: tuple[int, int], rows: int = 1, tokens: int | None = None
) -> Callable[[], Any]:
    """Make a call of the network for `rows` canvases of (width, height) pixels, its key projected already.

    tokens: of the reference; None: as many as the model's key has.
    """
    unet, config = pipeline.unet, pipeline.unet.config
    width, height = canvas[0] // 8, canvas[1] // 8
    drawn = torch.Generator().manual_seed(0)
    latents = frame_noise(range(rows), (config["in_channels"], height, width))
    count = tokens if tokens is not None else int(pipeline.projection.config["token_length"])
    context = torch.randn(1, count, config["cross_attention_dim"], generator=drawn)
    sketch = torch.rand(1, 3, 8 * height, 8 * width, generator=drawn)
    y = torch.randn(1, config["projection_class_embeddings_input_dim"], generator=drawn)
    with torch.inference_mode():
        maps = [level.expand(rows, -1, -1, -1) for level in pipeline.sketch_encoder(sketch)]
        projected = project_context(unet, context)
    return lambda: unet(latents, TIME, y, projected, maps)


def flops_of(call: Callable[[], Any]) -> int:
    """Count the floating point operations of a call, a multiplication and an addition as two."""
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        call()
    return int(counter.get_total_flops())


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


# torch's counter knows the attention of graphics cards only.
ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}

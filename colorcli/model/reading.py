"""Reading which part of the body stands where: three networks' opinions of one canvas, as one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from colorcli.model.attention import AttentionPlan
from colorcli.model.build import last_features
from colorcli.model.conditions import Conditions
from colorcli.model.parts import FeaturePartHead, MapPartHead, TokenPartHead
from colorcli.model.unet import ColorUNet, Sighting

WEIGHTS = (0.6, 0.2, 0.2)  # of the network's, the sketch maps' and the tagger's reading


@dataclass(frozen=True)
class PartReader:
    """The networks that read parts, and the heads that put their features into words."""

    unet: ColorUNet
    tagger: Callable[[Tensor], Tensor]  # pictures of any size (B, 3, H, W) -> (B, N, C)
    feature_head: FeaturePartHead
    map_head: MapPartHead
    token_head: TokenPartHead
    denoise: Callable[..., Tensor] | None = None   # what runs the network; None: the network itself

    def read(self, shown: Tensor, conditions: Conditions, latents: Tensor, time: int) -> tuple[Tensor, Tensor]:
        """Give the weighted mean of the three readings' probabilities, (B, parts, h/8, w/8), on the CPU.

        With them comes what the first of them was read from: the network's last features, (B, C, h/8, w/8).
        shown: (B, 3, h, w) what the tagger sees, line art as dark on white. latents: (B, C, h/8, w/8) what the
        denoising network sees at `time`: pure noise with a drawing's lines, or a key's colors under some noise.
        """
        seen = Sighting(last_features(self.unet))
        plan = AttentionPlan(backend=conditions.backend)
        run = self.denoise or self.unet
        run(latents, float(time), conditions.y, conditions.context, conditions.sketch_maps, plan, seen)
        by_network = self.feature_head(seen.features.float()).softmax(1)  # (B, parts, h/8, w/8)
        by_lines = self.map_head([level.float() for level in conditions.sketch_maps])[0].softmax(1)
        by_tagger = self.token_head.part_logits(self.tagger(shown).float()).softmax(1)  # (B, parts, rows, columns)
        by_tagger = F.interpolate(by_tagger, by_lines.shape[-2:], mode="bilinear", align_corners=False)
        readings = zip(WEIGHTS, (by_network, by_lines, by_tagger), strict=True)
        parts = torch.stack([weight * reading for weight, reading in readings]).sum(0)
        return parts.float().cpu(), seen.features.float().cpu()

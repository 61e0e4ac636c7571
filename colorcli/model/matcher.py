"""The region matcher: a small transformer that has learned which region of the key a region of the frame is."""

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from colorcli.prepare.region_views import VIEWS

GEOMETRY = 7  # numbers that say where a region lies and what its outline is like, see `match.read_regions`
NOT_THERE = -1e4  # logit of a key region that only fills up a batch


class RegionMatcher(ModelMixin, ConfigMixin):
    """Lets the regions of a frame and of its key look at each other, and tells how well each pair fits.

    parts: part probabilities of a region. features: channels of the denoising network's last features.
    The learned score of a color is added to that of the hand-made rule, `rule_share` times.
    """

    @register_to_config
    def __init__(
        self, parts: int, features: int, width: int = 96, layers: int = 3, heads: int = 4, dropout: float = 0.2
    ) -> None:
        super().__init__()
        token = parts + features + GEOMETRY
        self.frame_in = nn.Linear(token, width)
        self.key_in = nn.Linear(token + 3, width)
        self.views_in = RegionViews(width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, F.gelu, batch_first=True, norm_first=True
        )
        self.mixer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.asks = nn.Linear(width, width)
        self.answers = nn.Linear(width, width)
        self.sharpness = nn.Parameter(torch.tensor(1.0))
        self.rule_share = nn.Parameter(torch.tensor(0.5))

    def forward(
        self,
        frame: Tensor,
        key: Tensor,
        colors: Tensor,
        frame_there: Tensor,
        key_there: Tensor,
        frame_views: Tensor,
        key_views: Tensor,
    ) -> Tensor:
        """Give the logits of every pair of regions, (B, R, S).

        frame: (B, R, token) and key: (B, S, token) regions as `match.region_tokens` describes them. colors: (B, S, 3)
        of the key's regions in -1..1. frame_there, key_there: (B, R) and (B, S) bool, False where a batch is filled up.
        frame_views, key_views: (N, VIEWS, side, side) in 0..1, of the regions that are there, picture after picture.
        """
        asking = self.frame_in(self._even(frame))  # (B, R, width)
        asked = self.key_in(torch.cat([self._even(key), colors], dim=-1))  # (B, S, width)
        asking[frame_there] += self.views_in(frame_views)
        asked[key_there] += self.views_in(key_views)
        there = torch.cat([frame_there, key_there], dim=1)
        mixed = self.norm(self.mixer(torch.cat([asking, asked], dim=1), src_key_padding_mask=~there))
        asking, asked = mixed.split([frame.shape[1], key.shape[1]], dim=1)
        logits = self.asks(asking) @ self.answers(asked).mT * (self.sharpness.exp() / asking.shape[-1] ** 0.5)
        return logits.masked_fill(~key_there[:, None], NOT_THERE)

    def _even(self, tokens: Tensor) -> Tensor:
        """Bring the three pieces of a token to about the same size."""
        parts, features = self.config["parts"], self.config["features"]
        pieces = tokens.split([parts, features, GEOMETRY], dim=-1)
        return torch.cat([3 * pieces[0] - 0.3, F.layer_norm(pieces[1], (features,)), 2 * pieces[2]], dim=-1)


class RegionViews(nn.Module):
    """Describes a region by how it is drawn, (N, width)."""

    def __init__(self, width: int, channels: tuple[int, int, int] = (24, 48, 64)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = VIEWS
        for channel in channels:
            layers += [nn.Conv2d(before, channel, 3, stride=2, padding=1), nn.GroupNorm(4, channel), nn.GELU()]
            before = channel
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(before * 16, width)

    def forward(self, views: Tensor) -> Tensor:
        """Describe views (N, VIEWS, 32, 32) in 0..1."""
        return self.out(self.layers(views).flatten(1))


def color_scores(logits: Tensor, color_of: Tensor, rule: Tensor, rule_share: Tensor | float) -> Tensor:
    """Give the score of each palette color for each region of the frame, (R, K): a logarithm, not normalised.

    logits: (R, S) of the pairs of regions. color_of: (S,) number of each key region's color. rule: (R, K) the
    hand-made score.
    """
    shares = logits.softmax(dim=-1)
    by_color = torch.zeros_like(rule).index_add(1, color_of, shares)  # (R, K)
    return by_color.clamp_min(1e-9).log() + rule_share * rule

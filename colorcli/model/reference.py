"""What the network sees of the key: CLIP tokens and tagger tokens, projected into the cross-attention's context."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection, Swinv2Config, Swinv2Model


class TaggerTower(ModelMixin, ConfigMixin):
    """The backbone of the tagger: one feature vector for each cell of the picture, rows first.

    The defaults are the published WD tagger. A cell is patch_size * 2^(stages - 1) pixels wide.
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 448,
        patch_size: int = 4,
        embed_dim: int = 128,
        depths: Sequence[int] = (2, 2, 18, 2),
        num_heads: Sequence[int] = (4, 8, 16, 32),
        window_size: int = 14,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.backbone = Swinv2Model(
            Swinv2Config(
                image_size=image_size, patch_size=patch_size, embed_dim=embed_dim, depths=list(depths),
                num_heads=list(num_heads), window_size=window_size, mlp_ratio=mlp_ratio, drop_path_rate=0.0,
            ),
            add_pooling_layer=False,
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pictures (B, 3, S, S), as `tagger_pixels` gives them: (B, N, C) tokens after the last layer norm."""
        return self.backbone(pixel_values=pixels).last_hidden_state


class ClusterProjection(ModelMixin, ConfigMixin):
    """Projects CLIP tokens and tagger tokens, side by side, into the context of the denoising network.

    The attention over all CLIP tokens is free to rearrange them; its first `token_length` outputs meet the tagger's.
    input_dim, tagger_dim, output_dim: widths of a CLIP token, of a tagger token and of a context token.
    """

    @register_to_config
    def __init__(
        self,
        input_dim: int = 1280,
        tagger_dim: int = 1024,
        output_dim: int = 2048,
        head_dim: int = 128,
        token_length: int = 196,
    ) -> None:
        super().__init__()
        assert input_dim % head_dim == 0, (input_dim, head_dim)
        self.attn = TokenAttention(input_dim, head_dim)
        self.norm = nn.LayerNorm(input_dim)
        self.proj = nn.Sequential(
            nn.Linear(input_dim + tagger_dim, output_dim),
            nn.SiLU(),
            nn.Linear(output_dim, output_dim),
            nn.LayerNorm(output_dim),
        )

    def forward(self, clip_tokens: Tensor, tagger_tokens: Tensor) -> Tensor:
        """Give the context (B, token_length, output_dim).

        clip_tokens: (B, M, input_dim) with the class token first, M >= token_length.
        tagger_tokens: (B, token_length, tagger_dim).
        """
        length = self.config["token_length"]
        assert tagger_tokens.shape[1] == length, (tagger_tokens.shape, length)
        kept = self.norm(self.attn(clip_tokens)[:, :length])  # (B, token_length, input_dim)
        return self.proj(torch.cat([kept, tagger_tokens], dim=-1))


class TokenAttention(nn.Module):
    """Self-attention over all tokens, without residual, normalisation or positions."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.heads = width // head_dim
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix tokens (B, N, C)."""
        projected = (self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)  # (B, heads, N, head_dim)
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def clip_tokens(model: CLIPVisionModelWithProjection, pixels: Tensor) -> Tensor:
    """Encode pictures (B, 3, S, S), as `clip_pixels` gives them: (B, 1 + patches, projection), class token first.

    Every token goes through the last layer norm and the visual projection; none is scaled to unit length.
    """
    # CLIPVisionModelWithProjection wraps the tower in one more module since transformers 5.
    tower = getattr(model.vision_model, "vision_model", model.vision_model)
    tokens = tower(pixel_values=pixels).last_hidden_state  # (B, 1 + patches, hidden)
    return model.visual_projection(tower.post_layernorm(tokens))

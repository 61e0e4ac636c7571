"""All networks of a model as one value: built from an architecture, or taken out of a pipeline."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

from colorcli.model.autoencoder import MeanColorAutoencoder
from colorcli.model.lora import BackgroundAdapter, RegionAdapters
from colorcli.model.matcher import RegionMatcher
from colorcli.model.parts import FeaturePartHead, MapPartHead, TokenPartHead
from colorcli.model.preprocess import clip_pixels, tagger_pixels
from colorcli.model.reference import ClusterProjection, TaggerTower, clip_tokens
from colorcli.model.reference_net import ReferenceNet
from colorcli.model.scalars import SCALAR_DIM, canvas_vector
from colorcli.model.side_encoders import BackgroundEncoder, StyleEncoder
from colorcli.model.sketch_encoder import PyramidSketchEncoder, SketchEncoder
from colorcli.model.unet import ColorUNet, build_unet
from colorcli.variants import Architecture


@dataclass
class Components:
    """Every part of a model, of any variant, under the names that the pipeline knows them by."""

    vae: MeanColorAutoencoder | AutoencoderKL
    image_encoder: CLIPVisionModelWithProjection
    sketch_encoder: SketchEncoder | PyramidSketchEncoder
    unet: ColorUNet
    scheduler: DDIMScheduler
    tagger: TaggerTower | None = None
    projection: ClusterProjection | None = None
    token_head: TokenPartHead | None = None
    map_head: MapPartHead | None = None
    feature_head: FeaturePartHead | None = None
    matcher: RegionMatcher | None = None  # learns when all others have; until then the hand-made rule matches alone
    reference_net: ReferenceNet | None = None
    adapter: BackgroundAdapter | RegionAdapters | None = None
    background_encoder: BackgroundEncoder | None = None
    style_encoder: StyleEncoder | None = None
    text_encoder: CLIPTextModelWithProjection | None = None
    tokenizer: CLIPTokenizer | None = None

    def __post_init__(self) -> None:
        # What a stage of training works with beside the model, and no model is saved with: a teacher, changes that are
        # laid over the networks.
        self.beside = nn.ModuleDict()

    @classmethod
    def of(cls, pipeline: DiffusionPipeline) -> "Components":
        """Take the parts out of a pipeline; they stay the same objects."""
        return cls(**{field.name: pipeline.components.get(field.name) for field in fields(cls)})

    @property
    def device(self) -> torch.device:
        """Where the denoising network lies; all others lie there too."""
        return next(self.unet.parameters()).device

    @property
    def alphas_cumprod(self) -> Tensor:
        """Share of the signal's variance left at each of the 1000 steps, (1000,), on the networks' device."""
        return torch.as_tensor(self.scheduler.alphas_cumprod, device=self.device)

    def modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Give every network by its name, and with them what stands beside the model."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, nn.Module):
                yield field.name, value
        if self.beside:
            yield "beside", self.beside

    def freeze(self) -> None:
        """Put every network into evaluation, with no gradient."""
        for _, module in self.modules():
            module.requires_grad_(False).eval()


def build_components(architecture: Architecture, parts: int, tags: int) -> Components:
    """Build untrained networks; the last convolution of the U-Net starts at zero."""
    a = architecture
    unet = build_unet(
        block_out_channels=a.channels,
        depths=a.transformer_depths,
        head_dim=a.head_width,
        context_dim=a.context_width,
        y_dim=2 * SCALAR_DIM,
    )
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)
    vision = CLIPVisionConfig(
        hidden_size=a.clip_width,
        intermediate_size=4 * a.clip_width,
        projection_dim=a.clip_projection,
        num_hidden_layers=a.clip_layers,
        num_attention_heads=a.clip_heads,
        image_size=a.clip_size,
        patch_size=a.clip_patch,
    )
    return Components(
        vae=MeanColorAutoencoder(width=a.autoencoder_width),
        tagger=TaggerTower(
            image_size=a.tagger_size,
            patch_size=a.tagger_patch,
            embed_dim=a.tagger_width,
            depths=a.tagger_depths,
            num_heads=a.tagger_heads,
            window_size=a.tagger_window,
        ),
        token_head=TokenPartHead(a.tagger_token_width, parts, tags),
        image_encoder=CLIPVisionModelWithProjection(vision),
        projection=ClusterProjection(
            input_dim=a.clip_projection,
            tagger_dim=a.tagger_token_width,
            output_dim=a.context_width,
            token_length=a.reference_tokens,
            head_dim=a.projection_head_width,
        ),
        sketch_encoder=SketchEncoder(
            block_out_channels=a.channels,
            head_dim=a.sketch_head_width,
            stem_channels=a.sketch_stem,
            stem_strides=a.sketch_strides,
        ),
        map_head=MapPartHead((a.channels[0], *a.channels), parts),
        unet=unet,
        feature_head=FeaturePartHead(a.channels[0], parts),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            clip_sample=False,
        ),
    )


def reference_tokens(components: Components, picture: Tensor) -> tuple[Tensor, Tensor]:
    """Give what CLIP and the tagger read of key pictures (B, 3, H, W) in -1..1: (B, N, C) each, for the projection."""
    assert components.tagger is not None, "a model that reads keys by tokens"
    tokens = components.tagger(tagger_pixels(picture, components.tagger.config["image_size"]))
    clip = clip_tokens(components.image_encoder, clip_pixels(picture, components.image_encoder.config.image_size))
    return clip, tokens


def last_features(unet: ColorUNet) -> str:
    """Give the name under which `denoise` tells its last features, (B, first width, h, w), to an observer."""
    return f"output.{len(unet.up_blocks) * len(unet.up_blocks[0].resnets) - 1}"


def size_condition(height: int, width: int) -> Tensor:
    """Give the vector condition y (1, 512) of a canvas, in pixels."""
    return canvas_vector(torch.tensor([float(height)]), torch.tensor([float(width)]))

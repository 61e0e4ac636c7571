"""The parts of a recipe that say what a stage minimizes: each group of options is a frozen section. No torch here."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = float  # 0..1


class Section(BaseModel):
    """A frozen part of a recipe; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GramSection(Section):
    """The second branch: a stranger's reference must leave the geometry of the features as it is.

    Every sample is denoised twice, once with its own reference and once with its neighbor's, and the Gram matrices of
    the features are compared.
    """

    weight: float = Field(0.0, ge=0, description="of the Gram loss; 0: no second branch")
    start: Share = Field(0.0, ge=0, le=1, description="share of the steps before which the weight is 0")
    ramp: Share = Field(0.0, ge=0, le=1, description="share of the steps over which it then rises")
    blocks: tuple[int, ...] | None = Field(None, description="transformer blocks compared, from 1; unset: by the model")
    feature: Literal["block", "self", "cross"] = Field("block", description="what of a block: its output, an attention")
    form: Literal["cosine", "product", "paper"] = Field(
        "cosine", description="the mean over cosines, the mean over products of whole tokens, or their sum (paper)"
    )
    variant: Literal["mse", "kl", "ranking", "binary"] = Field("mse", description="how two matrices are compared")
    mask_weighting: bool = Field(False, description="only pairs of tokens of the character count")
    mask_threshold: Share = Field(0.05, ge=0, le=1, description="mask above this is the character")
    detach_reference: bool = Field(False, description="the projection learns nothing from the Gram loss")
    standardize: bool = Field(False, description="channels of the features to mean 0 and deviation 1 over the tokens")
    normalize_rows: bool = Field(False, description="rows of the Gram matrices to length 1")
    temperature: float = Field(1.0, gt=0, description="of the row softmax of kl")
    spread: float = Field(1.0, description="deviations above a row's mean where ranking and binary see a relation")
    margin: float = Field(0.1, ge=0, description="by which ranking wants relations above all others")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.blocks is not None and any(block < 1 for block in self.blocks):
            raise ValueError("blocks are counted from 1")
        if self.mask_weighting and self.variant not in ("mse", "binary"):
            raise ValueError(f"mask_weighting goes with the variants mse and binary, not {self.variant}")
        if self.form == "paper" and self.variant != "mse":
            raise ValueError(f"the form paper goes with the variant mse, not {self.variant}")
        return self


class DiffusionSection(Section):
    """The published objective of denoising, and what of it is switched off there."""

    prediction: Literal["v", "epsilon"] | None = Field(None, description="the target; unset: what the model predicts")
    offset_noise: float = Field(0.05, ge=0, description="deviation of one more draw for each sample and channel")
    min_snr: float = Field(0.0, ge=0, description="gamma of min-SNR weighting; 0: all steps count alike")
    masked: bool = Field(False, description="only the character counts")


class DropSection(Section):
    """What is hidden, whitened or erased at random. Unset: as published for the stage."""

    reference: Share | None = Field(None, ge=0, le=1, description="samples whose reference tokens are all zero")
    reference_late: float = Field(0.0, ge=-1, le=1, description="added to that from the first to the last timestep")
    sketch: Share | None = Field(None, ge=0, le=1, description="for each sketch map of each sample")
    hole: Share | None = Field(None, ge=0, le=1, description="samples with a stranger's shape cut out of the reference")
    white_background: Share | None = Field(None, ge=0, le=1, description="samples brought before near white")
    background_path: Share | None = Field(None, ge=0, le=1, description="batches of v2-style with the background read")
    lowest_threshold: Share | None = Field(None, ge=0, le=1, description="masks are cut at a random value from here")
    highest_threshold: Share | None = Field(None, ge=0, le=1, description="... to here")


class AblationSection(Section):
    """What a stage does without, to see what it is good for."""

    tagger: bool = Field(True, description="False: the tagger's tokens are zero")
    reference: Literal["mixed", "other", "same"] = Field(
        "mixed", description="of generated characters: another pose, the drawing itself, or mostly another"
    )


class SheetsSection(Section):
    """One show's pictures: a folder for each character, several pictures in it, line art in `line/` where there is any.
    """

    folder: Path = Field(description="holds a folder for each character")
    references: int = Field(4, ge=1, description="other pictures of a character that each is colored from")
    same: Share = Field(0.15, ge=0, le=1, description="share of pictures that are colored from themselves too")
    mirrored: bool = Field(True, description="mirror images of the pictures are learned from as well")


class LoraSection(Section):
    """The low-rank changes of the stage lora."""

    rank: int = Field(4, ge=1, le=256, description="width of the bottleneck: what a file holds, and its size")
    alpha: int | None = Field(None, ge=1, description="the change is scaled by alpha / rank; unset: by 1")
    layers: tuple[Literal["self", "cross", "projection", "matcher"], ...] | None = Field(
        None, min_length=1, description="attention of the denoising network; what makes tokens of the key; what "
        "matches regions. Unset: matcher where the model has one, else self and cross"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="of what goes into a change")
    matched: Share = Field(
        0.7, ge=0, le=1, description="mini: samples that begin from the color match, as a render does"
    )


class DistillSection(Section):
    """One halving of the steps; a recipe has a stage for each."""

    teacher_steps: int = Field(8, ge=2, le=500, description="of the model as it is; the stage halves them")
    guidance: float = Field(1.0, ge=1, le=15, description="reference guidance of the teacher, which the student learns")
    keep: float = Field(0.1, ge=0, description="weight by which the features that parts are read from stay as they are")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.teacher_steps % 2:
            raise ValueError(f"teacher_steps is {self.teacher_steps}, and half of it is no whole number")
        return self

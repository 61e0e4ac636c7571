"""Tags of pictures, as the tagger of mini reads them."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from colorcli.errors import WeightsError
from colorcli.loading import load_pipeline
from colorcli.model.preprocess import tagger_pixels
from colorcli.train.data.archives import PictureStore
from colorcli.train.data.index import Entry
from colorcli.train.drawings import TAGS

LIKELY = 0.5  # probability above which a picture has a tag


class Tagger:
    """Reads the tags of a training set's pictures, one after the other. The model is loaded when the first is asked."""

    def __init__(self, model: str = "mini") -> None:
        self._model = model
        self._store: PictureStore | None = None

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        """The tagger and the head that reads tags from its tokens. Raises WeightsError if they are not ours."""
        pipeline = load_pipeline(self._model, "cpu")
        if pipeline.tagger is None or pipeline.token_head is None or pipeline.token_head.config["tags"] != len(TAGS):
            raise WeightsError(f"{self._model} has no tagger that reads {len(TAGS)} tags", hint="mini has one")
        return pipeline.tagger, pipeline.token_head

    def __call__(self, root: Path, entry: Entry) -> str:
        """Give the tags of a picture of the set in `root`, separated by commas. Raises FrameError or WeightsError."""
        if self._store is None or self._store.root != root:
            self._store = PictureStore(root, open_archives=2)
        return ", ".join(self.tags_of(np.asarray(self._store.color(entry.path))))

    @torch.inference_mode()
    def tags_of(self, color: np.ndarray) -> list[str]:
        """Give the names of the likely tags of a picture (H, W, 3) 8-bit."""
        picture = torch.from_numpy(color.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        tagger, head = self._parts
        tokens = tagger(tagger_pixels(picture, tagger.config["image_size"]).to(tagger.dtype))
        likely = head.tag_logits(tokens)[0].float().sigmoid() > LIKELY
        return [tag for tag, there in zip(TAGS, likely.tolist(), strict=True) if there]

"""Tags of pictures, as the tagger of mini reads them."""

from pathlib import Path

import numpy as np
import torch

from colorcli.errors import WeightsError
from colorcli.loading import load_pipeline
from colorcli.model.preprocess import tagger_pixels
from colorcli.train.archives import PictureStore
from colorcli.train.drawings import TAGS
from colorcli.train.index import Entry

LIKELY = 0.5  # probability above which a picture has a tag


class Tagger:
    """Reads the tags of a training set's pictures, one after the other."""

    def __init__(self, model: str = "mini") -> None:
        """Load the model. Raises WeightsError if it has no tagger whose tags we know the names of."""
        pipeline = load_pipeline(model, "cpu")
        if pipeline.tagger is None or pipeline.token_head is None or pipeline.token_head.config["tags"] != len(TAGS):
            raise WeightsError(f"{model} has no tagger that reads {len(TAGS)} tags", hint="mini has one")
        self._tagger, self._head = pipeline.tagger, pipeline.token_head
        self._store: PictureStore | None = None

    def __call__(self, root: Path, entry: Entry) -> str:
        """Give the tags of a picture of the set in `root`, separated by commas. Raises FrameError."""
        if self._store is None or self._store.root != root:
            self._store = PictureStore(root, open_archives=2)
        return ", ".join(self.tags_of(np.asarray(self._store.color(entry.path))))

    @torch.inference_mode()
    def tags_of(self, color: np.ndarray) -> list[str]:
        """Give the names of the likely tags of a picture (H, W, 3) 8-bit."""
        picture = torch.from_numpy(color.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        tokens = self._tagger(tagger_pixels(picture, self._tagger.config["image_size"]).to(self._tagger.dtype))
        likely = self._head.tag_logits(tokens)[0].float().sigmoid() > LIKELY
        return [tag for tag, there in zip(TAGS, likely.tolist(), strict=True) if there]

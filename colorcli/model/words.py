"""CLIP's text side: the words of edits are read as vectors, along which its picture tokens are moved."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from colorcli.errors import PresetError, WeightsError
from colorcli.model.text_manipulation import TextEdit, WordEdit, read_edits, text_vectors
from colorcli.settings import shown

# What to do where a model cannot read words.
NO_WORDS = {
    "text_encoder": "`colorcli models pull v2` brings it, and `colorcli models import` of a v2 file with CLIP inside",
    "tokenizer": "`colorcli models pull v2` brings it; or copy vocab.json and merges.txt of a CLIP model there",
}


@dataclass(frozen=True)
class WordReader:
    """What a model reads words with; not every model has it."""

    text_encoder: CLIPTextModelWithProjection | None
    tokenizer: CLIPTokenizer | None
    model: str                      # its folder, for messages

    def edits(self, wanted: Sequence[WordEdit], device: torch.device) -> tuple[TextEdit, ...]:
        """Read edits by words; device: where the network lies.

        Raises WeightsError if the model lacks what reads them, PresetError if one is too long to be read.
        """
        if not wanted:
            return ()
        for part, what in (("text_encoder", "network that reads words"), ("tokenizer", "vocabulary")):
            if getattr(self, part) is None:
                raise WeightsError(
                    f"the preset has manipulate, but {self.model} has no {part}/ with the {what}", hint=NO_WORDS[part]
                )
        return read_edits(wanted, lambda texts: self.vectors(texts, device))

    def vectors(self, texts: list[str], device: torch.device) -> Tensor:
        """Read texts as unit vectors (B, D); raises as `edits` does."""
        assert self.text_encoder is not None and self.tokenizer is not None
        known = self.text_encoder.config
        words = len(self.tokenizer), self.tokenizer.eos_token_id
        if words != (known.vocab_size, known.eos_token_id):
            raise WeightsError(
                f"tokenizer/ of {self.model} has {words[0]} words, the last {words[1]}, but its text_encoder/ has "
                f"{known.vocab_size}, the last {known.eos_token_id}", hint=NO_WORDS["tokenizer"],
            )
        read = self.tokenizer(texts, padding=True, verbose=False)["input_ids"]
        most = known.max_position_embeddings
        for text, ids in zip(texts, read, strict=True):
            length = ids.index(known.eos_token_id) + 1
            if length > most:
                raise PresetError(
                    f"manipulate: {shown(text)} is {length} tokens long, but the model reads {most}",
                    hint="say it in fewer words",
                )
        return text_vectors(self.text_encoder, torch.tensor(read, device=device)[:, :most]).float()


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """Read CLIP's vocabulary. Raises WeightsError."""
    try:
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library has a kind of its own for every file that it reads
        raise WeightsError(f"{folder} cannot be read: {error}", hint="copy it again, or take it away") from error

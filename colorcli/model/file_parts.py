"""A component of a model read from a file: which tensor of the file each of its own is, and what does not fit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from colorcli.model.architecture import Origin, OriginOf, Shapes
from colorcli.model.single_file import Header, TensorEntry

NAMES_SHOWN = 4
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

Make = Callable[[Shapes], nn.Module]


@dataclass(frozen=True)
class Part:
    """One component of a model: an empty network, and where each of its tensors is."""

    folder: str                          # of the component in the diffusers layout
    kind: tuple[str, str]                # module and class, as the index of diffusers names it
    network: nn.Module                   # with the sizes of the file and no memory behind its weights
    origins: Mapping[str, Origin]        # our names -> theirs
    entries: Header                      # their names -> places in a file
    prefix: str = ""                     # of their names, for messages

    @property
    def file_stem(self) -> str:
        """The name that diffusers gives the file of its weights."""
        return "model" if self.kind[0] == "transformers" else "diffusion_pytorch_model"


def make_part(
    folder: str, kind: tuple[str, str], network: nn.Module, origin: OriginOf, entries: Header, prefix: str = ""
) -> Part:
    """Describe a component; origin: tells whose name each of its tensors has in the file."""
    return Part(folder, kind, network, {name: origin(name) for name in network.state_dict()}, entries, prefix)


def shapes_of(header: Header) -> Shapes:
    """Give the shape of every tensor."""
    return {name: entry.shape for name, entry in header.items()}


def under(header: Header, prefix: str) -> dict[str, TensorEntry]:
    """Take the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): entry for name, entry in header.items() if name.startswith(prefix)}


@dataclass
class Faults:
    """What does not fit, by names."""

    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def check(self, part: Part) -> None:
        """Compare the shape and type of every tensor of a part with that of the file."""
        expected = {name: tuple(value.shape) for name, value in part.network.state_dict().items()}
        for ours, origin in part.origins.items():
            entry, full = part.entries.get(origin.name), part.prefix + origin.name
            if entry is None:
                self.missing.append(full)
                continue
            wanted = published_shape(expected[ours], origin)
            if not _fits(entry.shape, wanted, part.folder):
                self.wrong.append(f"{full} is {list(entry.shape)} and should be {list(wanted)}")
            if entry.dtype not in DTYPES:
                self.types.append(f"{full} is {entry.dtype}")

    def in_words(self) -> list[str]:
        """Tell each kind by its first few and the count."""
        texts = []
        for names, one, many in (
            (self.missing, "tensor is missing", "tensors are missing"),
            (self.wrong, "has a wrong shape", "have a wrong shape"),
            (self.types, "is not F32, F16 or BF16", "are not F32, F16 or BF16"),
            (self.unknown, "is unknown", "are unknown"),
        ):
            distinct = list(dict.fromkeys(names))
            if distinct:
                shown = ", ".join(distinct[:NAMES_SHOWN]) + (", ..." if distinct[NAMES_SHOWN:] else "")
                texts.append(f"{len(distinct)} {many if distinct[1:] else one} ({shown})")
        return texts


def published_shape(ours: tuple[int, ...], origin: Origin) -> tuple[int, ...]:
    """Give the shape of a tensor in the file, that of ours being given."""
    if origin.transposed:
        return ours[::-1]
    return (ours[0] * origin.piece[1], *ours[1:]) if origin.piece else ours


def _fits(found: tuple[int, ...], expected: tuple[int, ...], folder: str) -> bool:
    # The attention of the autoencoder is kept as 1x1 convolutions.
    return found == expected or (folder == "vae" and len(expected) == 2 and found == (*expected, 1, 1))

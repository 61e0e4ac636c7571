"""Tensors on disk: a safetensors file that is there whole or not at all."""

import errno
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from colorcli.whole_file import whole_file


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole. Raises OutputError if the disk is full or the folder cannot be written."""
    with whole_file(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata))
        except SafetensorError as failure:   # it has the words of the system, but not its number
            full = f"os error {errno.ENOSPC}" in str(failure)
            raise OSError(errno.ENOSPC if full else errno.EIO, str(failure)) from failure

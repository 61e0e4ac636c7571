"""The curve for TensorBoard, beside the one in curve.jsonl."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colorcli.errors import MissingExtraError


def require_tensorboard() -> None:
    """Raise MissingExtraError if TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError("tensorboard: true needs TensorBoard, which is not installed",
                                hint="pip install 'colorcli[train]', or set tensorboard: false")


class Board:
    """One stage as a run of TensorBoard. What an older process wrote after step `first` is hidden."""

    def __init__(self, folder: Path, first: int) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=first + 1)

    def note(self, line: Mapping[str, float], rate: float) -> None:
        """Write a line of the curve; what validation found has a name of its own."""
        step = int(line["step"])
        for name, value in line.items():
            if name != "step":
                kind = "check" if name.startswith("check_") else "train"
                self._writer.add_scalar(f"{kind}/{name.removeprefix('check_')}", value, step)
        self._writer.add_scalar("train/rate", rate, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

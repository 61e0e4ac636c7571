"""One process or several: accelerate, and the lock that keeps two runs out of one folder."""

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from filelock import FileLock, Timeout

from colorcli.errors import DeviceError, UsageError

PATIENCE = timedelta(hours=12)   # of processes that wait while the first one draws, validates or writes


@contextlib.contextmanager
def accelerated(precision: str, device: str) -> Iterator[Accelerator]:
    """Give accelerate for a run: one process, or those that `torchrun` or `accelerate launch` has started.

    precision: fp32, bf16 or fp16. device: "auto", "cpu", "cuda", "cuda:1". Raises DeviceError if it is not there.
    """
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise DeviceError(f"there is no device {device} here", hint="--device cpu, or see `colorcli doctor`")
        if ":" in device:
            torch.cuda.set_device(device)
    elif device not in ("auto", "cpu"):
        raise DeviceError(f"training runs on cpu and cuda, not on {device}", hint="--device auto takes what is there")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if precision == "fp16" and on_cpu:
        raise DeviceError("precision fp16 trains on a GPU only", hint="set precision: bf16 or fp32, or see --device")
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision={"fp32": "no"}.get(precision, precision),
        kwargs_handlers=[
            # In a step with everything dropped some weights have no gradient.
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    try:
        yield accelerator
    finally:
        accelerator.end_training()
        # accelerate keeps one state for the process, in which another run could not have another precision.
        AcceleratorState._reset_state(reset_partial_state=True)


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run's folder while this one trains in it. Raises UsageError if one is there."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise UsageError(f"another process is training in {folder}",
                         hint="wait for it or stop it, or give the recipe another name") from None

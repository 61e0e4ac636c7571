"""`colorcli doctor`: what this machine has, what is missing for what, and which models can color on it."""

import importlib.util
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from colorcli import __version__, console
from colorcli.errors import ColorcliError, DeviceError, OutputError, WeightsError
from colorcli.model.machine import memory_bytes

GIB = 2**30
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
SMALLEST_SIDE = 512   # pixels; the large models paint nothing sensible on smaller canvases
MEMORY_FOR_MINI = 1.0 * GIB  # measured at the peak of a run: 0.7 GiB with small frames, 1.7 GiB with 4K ones
# Package -> what it is for. Nothing here is needed for mini.
OPTIONAL = {
    "xformers": "faster attention on NVIDIA cards (pip install xformers)",
    "onnxruntime": "masks and lines by networks of your own (pip install 'colorcli[onnx]')",
    "av": "movies of a shot, review --movie (pip install 'colorcli[review]')",
    "opentimelineio": "timelines for an edit, review --otio (pip install 'colorcli[review]')",
    "psd_tools": "layered PSD files, --layers-as psd (pip install 'colorcli[psd]')",
    "openvino": "a faster mini on the cpu, --engine openvino (pip install 'colorcli[openvino]')",
    "ray": "several GPUs or machines, --on ray (pip install 'colorcli[ray]')",
}
LIBRARIES = ("diffusers", "transformers", "safetensors", "numpy", "opencv-python-headless", "fileseq", "pydantic")


@dataclass(frozen=True)
class Finding:
    """One line of the report; `failure` says why mini cannot run with it."""

    subject: str
    value: str
    failure: ColorcliError | None = None


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Do not load the model, only look at its files.")] = False,
) -> int:
    """Tell device, attention, memory and models of this machine, and what is missing for what."""
    failures: list[ColorcliError] = []
    looks = (
        about_python, about_torch, about_memory, about_libraries, about_images, about_folders, about_models,
        about_running,
    )
    for look in looks:
        for finding in look():
            console.say_table([(finding.subject.ljust(12), finding.value)])
            if finding.failure:
                failures.append(finding.failure)
    if not failures and not quick:
        for finding in about_loading():
            console.say_table([(finding.subject.ljust(12), finding.value)])
            if finding.failure:
                failures.append(finding.failure)
    console.say()
    if failures:
        raise failures[0]
    console.say("mini can color on this machine.")
    return 0


def about_python() -> Iterator[Finding]:
    yield Finding("colorcli", f"{__version__} in {Path(__file__).parent.parent}")
    yield Finding(
        "python", f"{platform.python_version()} on {platform.system()} {platform.machine()} ({sys.executable})"
    )


def about_torch() -> Iterator[Finding]:
    """The device that `--device auto` would take, its threads, and the attention it would use."""
    try:
        import torch
    except Exception as failure:  # a broken CUDA library raises OSError, a missing package ImportError
        error = DeviceError(f"torch cannot be imported: {failure}", hint="install colorcli again in a new environment")
        yield Finding("torch", f"cannot be imported: {failure}", error)
        return
    yield Finding("torch", torch.__version__)
    waiting = os.environ.get("OMP_WAIT_POLICY", "not set")
    yield Finding(
        "cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads, waiting threads: {waiting}"
    )
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        yield Finding(
            f"cuda:{index}",
            f"{properties.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, "
            f"compute capability {properties.major}.{properties.minor}",
        )
    driver = driver_version()
    if driver:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else (
            "but this torch is built for the CPU: see pytorch.org for one that uses the card"
        )
        yield Finding("driver", f"NVIDIA {driver}, {built}")
    if torch.backends.mps.is_available():
        yield Finding("mps", "Apple GPU")
    cuda = torch.cuda.is_available()
    yield Finding(
        "device", "cuda" if cuda else "mps" if torch.backends.mps.is_available() else "cpu (no GPU that torch can use)"
    )
    has_xformers = importlib.util.find_spec("xformers") is not None
    yield Finding("attention", "xformers, sdpa" if has_xformers and cuda else "sdpa (part of torch)")
    has_triton = importlib.util.find_spec("triton") is not None
    lacking = "off: the package triton is not installed" if cuda else "off: it pays on an NVIDIA card only"
    yield Finding("compile", "for long shots of the large models" if has_triton and cuda else lacking)


def driver_version() -> str | None:
    """The version of the NVIDIA driver; None where there is none, or where the system does not tell."""
    try:
        first = NVIDIA_DRIVER.read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", first)
    return found[0] if found else "of an unknown version"


def about_memory() -> Iterator[Finding]:
    available, total = memory_bytes()
    if available is None:
        yield Finding("memory", "not known on this system")
        return
    text = f"{available / GIB:.1f} GiB available" + (f" of {total / GIB:.1f} GiB" if total else "")
    short = DeviceError(
        f"only {available / GIB:.1f} GiB of memory are free, mini needs about {MEMORY_FOR_MINI / GIB:.1f} GiB",
        hint="close other programs",
    )
    yield Finding("memory", text, short if available < MEMORY_FOR_MINI else None)


def about_libraries() -> Iterator[Finding]:
    from importlib import metadata  # 15 ms that `--help` need not wait for

    for name in LIBRARIES:
        try:
            yield Finding(name.removesuffix("-python-headless"), metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(
                name,
                "not installed",
                DeviceError(
                    f"the Python package {name} is not installed", hint="install colorcli again: pip install colorcli"
                ),
            )
    for name, purpose in OPTIONAL.items():
        there = importlib.util.find_spec(name) is not None
        yield Finding(name, _version(name) if there else f"not installed; only for {purpose}")


def _version(name: str) -> str:
    """The version of a package that is there; a build of another name, such as onnxruntime-gpu, gives its own."""
    from importlib import metadata

    distributions = metadata.packages_distributions().get(name, [name])
    try:
        return metadata.version(distributions[0])
    except metadata.PackageNotFoundError:
        return "installed"


def about_images() -> Iterator[Finding]:
    try:
        import OpenImageIO
    except Exception as failure:
        error = DeviceError(f"OpenImageIO cannot be imported: {failure}", hint="install colorcli again")
        yield Finding("images", f"OpenImageIO cannot be imported: {failure}", error)
        return
    kinds = str(OpenImageIO.get_string_attribute("format_list")).split(",")
    wanted = ("png", "tiff", "targa", "jpeg", "openexr")
    lacking = [kind for kind in wanted if kind not in kinds]
    yield Finding(
        "images", f"OpenImageIO {OpenImageIO.VERSION_STRING}" + (f", without {', '.join(lacking)}" if lacking else "")
    )


def about_folders() -> Iterator[Finding]:
    folder = Path(tempfile.gettempdir())
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
        free = _free_bytes(folder)
        yield Finding("temporary", f"{folder}, {free / GIB:.1f} GiB free")
    except OSError as failure:
        error = OutputError(f"the temporary folder {folder} cannot be written: {failure.strerror}", hint="set TMPDIR")
        yield Finding("temporary", f"{folder} cannot be written", error)


def _free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder, which need not be there yet."""
    import shutil

    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))
    return shutil.disk_usage(there).free


def about_models() -> Iterator[Finding]:
    from colorcli.model.weights import models_folder, require_whole, verify, weights_digest, weights_folder
    from colorcli.variants import VARIANTS

    for name, variant in VARIANTS.items():
        try:
            folder = weights_folder(name)
            listed = require_whole(folder)
            if variant.shipped:
                damaged = [check.path for check in verify(folder) if check.state != "ok"]
                if damaged:
                    raise WeightsError(f"{folder / damaged[0]} is damaged", hint="copy or install the model again")
            # The others are gigabytes, which are read where somebody asks for it.
            checked = "every file has its hash" if variant.shipped else "every file has its size"
            yield Finding(
                f"model {name}",
                f"{console.size_in_words(listed.total_bytes)}, license {listed.license}, {checked}, "
                f"digest {weights_digest(folder)[:12]}",
            )
        except WeightsError as failure:
            yield Finding(f"model {name}", failure.message, failure if variant.shipped else None)
    folder = models_folder()
    try:
        yield Finding("models", f"are installed in {folder}, {_free_bytes(folder) / GIB:.1f} GiB free")
    except OSError as failure:
        yield Finding("models", f"are installed in {folder}, which cannot be looked at: {failure.strerror}")


def about_running() -> Iterator[Finding]:
    """Which models fit into this machine's memory, on how large a canvas, and what to set for it."""
    try:
        import torch

        from colorcli.model.memory import SIZES, free_bytes
    except Exception:  # about_torch has told
        return
    from colorcli.variants import VARIANTS

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    free = memory_bytes()[0] if device == "cpu" else free_bytes(device)
    for name, variant in VARIANTS.items():
        if name in SIZES:
            side = round(variant.canvas_area**0.5)
            yield Finding(f"run {name}", how_it_runs(name, device, free, side, min(SMALLEST_SIDE, side)))
        else:
            yield Finding(f"run {name}", "its need of memory is not known")


def how_it_runs(model: str, device: str, free: int | None, side: int, smallest: int) -> str:
    """Say how a model runs on a device with `free` bytes: on a canvas of its own `side`, or on a smaller one, or not.

    With what `--precision auto` chooses; where that is too much, with what would have to be asked for.
    """
    from colorcli.model.memory import choose_precision, choose_profile, estimate, fits

    slow = "" if device != "cpu" or model == "mini" else "; slow without a GPU"
    precisions = ["auto"] if device != "cpu" or model == "mini" else ["auto", "bf16"]
    sides = range(side, smallest - 1, -64)
    for canvas in ((one, one) for one in sides):
        for asked in precisions:
            precision = choose_precision(asked, device, model)
            profile = choose_profile("auto", device, free, model, canvas, precision)
            if not fits(profile, free, model, canvas):
                continue
            needs = estimate(profile, model, canvas) / GIB
            words = [f"on {device} in {precision.name}", f"memory {profile.describe()}"]
            words += [f"up to {profile.frames} frames at once"] if profile.frames > 1 else []
            asks = [] if asked == "auto" else [f"--precision {asked}"]
            asks += [] if canvas[0] == side else [f"--set canvas.area={canvas[0] * canvas[1]}"]
            given = f" with {' '.join(asks)}" if asks else ""
            return (
                f"canvas {canvas[0]}x{canvas[1]}{given}: {', '.join(words)}, needs {needs:.1f} GiB"
                + (f" of {free / GIB:.1f}" if free is not None else "") + slow
            )
    precision = choose_precision(precisions[-1], device, model)
    least = choose_profile("auto", device, free, model, (smallest, smallest), precision)
    needs = estimate(least, model, (smallest, smallest)) / GIB
    return f"not on this machine: needs {needs:.1f} GiB on {device} at least, {(free or 0) / GIB:.1f} are free"


def about_loading() -> Iterator[Finding]:
    """Load mini for real: the only proof that it runs here."""
    start = time.perf_counter()
    try:
        load: Callable[[str], object] = _loader()
        load("mini")
    except ColorcliError as failure:
        yield Finding("mini", f"cannot be loaded: {failure.message}", failure)
        return
    yield Finding("mini", f"loads in {console.time_in_words(time.perf_counter() - start)}, libraries included")


def _loader() -> Callable[[str], object]:
    from colorcli.loading import load_pipeline

    return load_pipeline

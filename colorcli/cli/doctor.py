"""`colorcli doctor`: what this machine has, what is missing for what, and whether mini can color on it."""

import importlib.util
import os
import platform
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

GIB = 2**30
MEMORY_FOR_MINI = 1.0 * GIB  # measured at the peak of a run: 0.7 GiB with small frames, 1.7 GiB with 4K ones
# Package -> what it is for. Nothing here is needed for mini.
OPTIONAL = {
    "xformers": "faster attention on NVIDIA cards (pip install xformers)",
    "onnxruntime": "masks and lines by networks of your own (pip install 'colorcli[onnx]')",
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
    for look in (about_python, about_torch, about_memory, about_libraries, about_images, about_folders, about_models):
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
        yield Finding(f"cuda:{index}", f"{properties.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    if torch.backends.mps.is_available():
        yield Finding("mps", "Apple GPU")
    cuda = torch.cuda.is_available()
    yield Finding(
        "device", "cuda" if cuda else "mps" if torch.backends.mps.is_available() else "cpu (no GPU that torch can use)"
    )
    has_xformers = importlib.util.find_spec("xformers") is not None
    yield Finding("attention", "xformers, sdpa" if has_xformers and cuda else "sdpa (part of torch)")


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


def memory_bytes() -> tuple[int | None, int | None]:
    """(available, total) memory in bytes, within the limit of the container; None where the system does not tell."""
    available = total = None
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        values = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        available, total = (int(values[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, used = (_cgroup_bytes(name) for name in ("memory.max", "memory.current"))
    if limit is not None and available is not None and total is not None:
        available, total = min(available, limit - (used or 0)), min(total, limit)
    return available, total


def _cgroup_bytes(name: str) -> int | None:
    try:
        return int((Path("/sys/fs/cgroup") / name).read_text())
    except (OSError, ValueError):  # no cgroup, or "max": no limit
        return None


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
    import shutil

    return shutil.disk_usage(folder).free


def about_models() -> Iterator[Finding]:
    from colorcli.model.weights import require_whole, verify, weights_digest, weights_folder
    from colorcli.variants import VARIANTS

    for name, variant in VARIANTS.items():
        try:
            folder = weights_folder(name)
            listed = require_whole(folder)
            damaged = [check.path for check in verify(folder) if check.state != "ok"]
            if damaged:
                raise WeightsError(f"{folder / damaged[0]} is damaged", hint="copy or install the model again")
            yield Finding(
                f"model {name}",
                f"{console.size_in_words(listed.total_bytes)}, license {listed.license}, "
                f"every file has its hash, digest {weights_digest(folder)[:12]}",
            )
        except WeightsError as failure:
            yield Finding(f"model {name}", failure.message, failure if variant.shipped else None)


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
    from colorcli.pipeline import load_pipeline

    return load_pipeline

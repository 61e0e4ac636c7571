"""Published single files become model folders in the diffusers layout, or nothing does.

A file is understood (`published_file`) before anything is written, then copied tensor by tensor (`tensor_files`) into
a folder that takes its name when all is well.
"""

import contextlib
import errno
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers import __version__ as diffusers_version

from colorcli.errors import OutputError, UsageError
from colorcli.model.file_parts import Part
from colorcli.model.published_file import Prediction, PublishedFile, prediction_of, published_scheduler, understand
from colorcli.model.single_file import SUFFIX, family_of_file
from colorcli.model.tensor_files import (
    DTYPE_NAMES,
    Advance,
    Create,
    create_file,
    dtype_of,
    hash_file,
    tensor_bytes,
    write_part,
)
from colorcli.model.weights import DIFFUSERS_INDEX, LIST_NAME, WeightsFile, models_folder, write_list
from colorcli.variants import VARIANTS
from colorcli.whole_file import is_running

SHARD_BYTES = 2_000_000_000        # a loader holds one shard at a time; below the 4 GB that some disks allow a file
SPARE_BYTES = 20_000_000           # for headers, configurations, and what a file system keeps for itself

OnProgress = Callable[[str, int, int], None]   # what is being done, bytes done, bytes in all


@dataclass(frozen=True)
class Imported:
    """What an import made, and what it did with the file."""

    folder: Path
    model: str
    license: str                              # SPDX id
    prediction: Prediction
    bytes: int                                # of the new folder
    used: int                                 # tensors of the file that are in the model
    ignored: Mapping[str, Sequence[str]]      # reason -> names of tensors that are not
    towers: Mapping[str, str]                 # component -> where it comes from
    notes: Sequence[str] = ()                 # what a person may want to know


def import_model(
    file: Path,
    *,
    clip: Path | None = None,
    tagger: Path | None = None,
    tokenizer: Path | None = None,
    vae: Path | None = None,
    to: Path | None = None,
    name: str | None = None,
    dtype: str | None = None,
    prediction: Prediction | None = None,
    source: Mapping[str, Any] | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
    shard_bytes: int = SHARD_BYTES,
    create: Create = create_file,
) -> Imported:
    """Turn a published file into the model folder `to`/`name`.

    clip, tagger, vae: files or folders of the networks that the published files may lack; without them the towers are
    those inside the file, else those of an installed model. tokenizer: folder with that of v2's CLIP, if it is not
    beside `clip`. to: the models folder if None. name: the family if None.
    dtype: "fp32", "fp16" or "bf16"; None keeps that of the file. prediction: None reads it off the file's name ("eps").
    source: more to record about where the file comes from. on_progress: told of both reading and writing together.
    create: opens each file of weights that is written.
    Raises WeightsError if anything in the files is missing, unknown or of a wrong shape or type; UsageError if the
    folder is there already (`force` replaces it), OutputError if the disk is full. A failure leaves nothing behind.
    """
    family = family_of_file(file)
    parent = to if to is not None else models_folder()
    target = parent / (name or family)
    _refuse_existing(target, force)
    plan = understand(file, family, clip=clip, tagger=tagger, vae=vae, tokenizer=tokenizer)
    # A tower in other numbers than are asked for is written anew.
    same = [part.folder for part in plan.parts if dtype in (None, dtype_of(part))]
    plan = replace(plan, links={folder: path for folder, path in plan.links.items() if folder in same})
    chosen = prediction or prediction_of(file)
    size = file.stat().st_size
    total = size + _written_bytes(plan, dtype)
    done = 0

    def advance(stage: str, count: int) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(stage, done, total)

    license = VARIANTS[family].license
    with _new_folder(target, force) as folder:
        _require_space(parent, plan, dtype)
        digest = hash_file(file, advance)
        made_of = {"file": file.name, "sha256": digest, "bytes": size, **plan.towers, **(source or {})}
        hashed = _write_parts(folder, plan, dtype, shard_bytes, advance, create)
        _write_index(folder, plan, chosen)
        listed = write_list(folder, family, license, source=made_of, hashed=hashed)
    return Imported(target, family, license, chosen, listed.total_bytes, plan.used, plan.ignored, plan.towers,
                    tuple(plan.notes))


def _written_bytes(plan: PublishedFile, dtype: str | None) -> int:
    kept = DTYPE_NAMES[dtype] if dtype else None
    return sum(tensor_bytes(part, name, kept) for part in plan.parts for name in part.origins
               if part.folder not in plan.links)


def _write_parts(
    folder: Path, plan: PublishedFile, dtype: str | None, shard_bytes: int, advance: Advance, create: Create
) -> dict[str, WeightsFile]:
    """Write every part into its folder; give the hashes of what was written, by path inside the model."""
    kept = DTYPE_NAMES[dtype] if dtype else None
    hashed: dict[str, WeightsFile] = {}
    for part in plan.parts:
        inside = folder / part.folder
        inside.mkdir()
        _save_config(part, inside)
        if part.folder in plan.links:
            _link_weights(plan.links[part.folder], inside)
        else:
            written = write_part(part, inside, kept, shard_bytes, advance, create)
            hashed |= {f"{part.folder}/{name}": file for name, file in written.items()}
    return hashed


def _link_weights(source: Path, folder: Path) -> None:
    """Put the weights of an installed tower into a new folder: the same files where the disk allows, else copies."""
    for file in sorted(source.iterdir()):
        if file.name.endswith((SUFFIX, ".index.json")):
            try:
                os.link(file.resolve(), folder / file.name)
            except OSError:
                shutil.copyfile(file, folder / file.name)


def _save_config(part: Part, folder: Path) -> None:
    network: Any = part.network
    if part.kind[0] == "transformers":
        network.config.save_pretrained(folder)
    else:
        network.save_config(folder)


def _write_index(folder: Path, plan: PublishedFile, prediction: Prediction) -> None:
    """Write the scheduler and the tokenizer, and the index by which diffusers finds all parts."""
    published_scheduler(prediction).save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {part.folder: list(part.kind) for part in plan.parts}
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    if plan.tokenizer is not None:
        plan.tokenizer.save_pretrained(folder / "tokenizer")
        index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    content = {"_class_name": "ColorizePipeline", "_diffusers_version": diffusers_version}
    content |= dict(sorted(index.items()))
    (folder / DIFFUSERS_INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _refuse_existing(target: Path, force: bool) -> None:
    if not target.exists():
        return
    if not force:
        raise UsageError(f"{target} is there already", hint="--name gives another name, --force replaces it")
    if not (target / LIST_NAME).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{target} is no model folder, so it is not replaced", hint="--name gives another name")


def _require_space(parent: Path, plan: PublishedFile, dtype: str | None) -> None:
    copied = sum(file.stat().st_size for folder in plan.links.values() for file in folder.iterdir()
                 if folder.stat().st_dev != parent.stat().st_dev)
    needed = _written_bytes(plan, dtype) + copied + SPARE_BYTES
    free = shutil.disk_usage(parent).free
    if needed > free:
        halved = dtype is None and any(dtype_of(part) == "fp32" for part in plan.parts)
        hint = "make room, or choose another disk with --to" + (", or halve it with --dtype fp16" if halved else "")
        raise OutputError(f"the model needs {needed / 1e9:.2f} GB, and {parent} has {free / 1e9:.2f} GB free",
                          hint=hint)


@contextlib.contextmanager
def _new_folder(target: Path, force: bool) -> Iterator[Path]:
    """Give a folder beside the target that becomes it when all is well, and is removed when not."""
    parent, here = target.parent, socket.gethostname()
    fresh = parent / f".{target.name}.{here}-{os.getpid()}.partial"
    old = parent / f".{target.name}.{here}-{os.getpid()}.old"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent, target.name, here)
        fresh.mkdir()
        yield fresh
        if force and target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"the disk of {parent} is full", hint="make room, or choose another disk with --to"
                              ) from None
        raise OutputError(f"{failure.filename or target} cannot be written: {failure.strerror or failure}",
                          hint="check its permissions, or choose another folder with --to") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _remove_abandoned(parent: Path, name: str, host: str) -> None:
    """Remove what an import that was killed on this machine left behind."""
    for path in parent.glob(f".{name}.{host}-*.partial"):
        process = path.name.removesuffix(".partial").rpartition("-")[2]
        if process.isdigit() and not is_running(int(process)):
            shutil.rmtree(path, ignore_errors=True)

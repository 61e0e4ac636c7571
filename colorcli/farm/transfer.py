"""The files of frames on their way to workers and back: what is sent, and what came back and is written."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from colorcli.errors import FrameError, OutputError
from colorcli.farm.orders import Done, Files
from colorcli.farm.paths import with_paths
from colorcli.farm.task import Task
from colorcli.shot.manifest import FrameRecord, Stamp, is_inside, output_error, write_atomically
from colorcli.shot.plan import ShotPlan, make_out_folder
from colorcli.shot.stamps import new_digest
from colorcli.whole_file import TEMPORARY


def files_of_shot(plan: ShotPlan) -> list[Path]:
    """What all frames of a shot need."""
    found: list[Path] = []

    def seen(path: Path) -> Path:
        found.append(path)
        return path

    with_paths(replace(plan, jobs=(), sequences=(), request=replace(plan.request, shots=(), masks=(), out=None)), seen)
    return [path for path in dict.fromkeys(found) if path.is_file()]


def read_files(paths: Sequence[Path], lenient: bool = False) -> dict[str, bytes]:
    """The content of files, by path. Raises FrameError; lenient: what cannot be read is left out."""
    files: dict[str, bytes] = {}
    for path in paths:
        try:
            files[str(path)] = path.read_bytes()
        except OSError as error:
            if not lenient:
                raise FrameError(f"{path} cannot be read: {error.strerror}", hint="check the file") from error
    return files


def leave_probe(out: Path) -> Path | None:
    """Leave a file in OUT by which another machine can tell that it sees the same folder. Raises OutputError."""
    probe = out / f".workers.{os.getpid()}-{secrets.token_hex(3)}.part"
    try:
        with probe.open("x", encoding="utf-8") as file:
            file.write(secrets.token_hex(16))
    except OSError as error:
        raise OutputError(f"{probe} cannot be written: {error.strerror}", hint="check the folder") from error
    return probe


def keep(task: Task, done: Done) -> None:
    """Write what came back and keep the record; in a thread of its own, as disks are slow."""
    try:
        record = done.record if done.files is None else _written(task, done.record, done.files)
        task.future.set_result(record if record.status == "failed" else task.keep(record))
    except BaseException as error:
        task.future.set_exception(error)


def _written(task: Task, record: FrameRecord, files: Files) -> FrameRecord:
    """Write the files of a frame, its picture last. Raises FrameError if one was damaged, OutputError."""
    digests = {**record.outputs, record.output or "": record.output_sha256}
    stamps: dict[str, Stamp] = {}
    for path, content in files.items():
        if not is_inside(path) or hashlib.sha256(content).hexdigest() != digests.get(path):
            raise FrameError(f"{path} was damaged on its way back", hint="run the same command again")
        target = task.job.output.parent / path
        make_out_folder(target.parent)
        write_atomically(target, content)
        try:
            _, stamp = new_digest(target)
        except OSError as error:
            raise output_error(target, error) from error
        stamps |= {} if stamp is None else {path: stamp}
    own = stamps.pop(record.output or "", None)
    return record.model_copy(update={"output_stamp": own, "outputs_stamps": stamps})


def sweep_after(out: Path, pid: int, stems: Collection[str]) -> None:
    """Take away what a lost process left half written of its frames.

    Another machine may have a process of the same number, but none that writes these frames: they are claimed.
    """
    with contextlib.suppress(OSError):
        for path in [*out.glob(".*"), *out.glob("*/.*")]:
            left = TEMPORARY.fullmatch(path.name)
            of_its_frames = any(path.name.startswith(f".{stem}.") for stem in stems)
            if left is not None and int(left["pid"]) == pid and of_its_frames:
                path.unlink(missing_ok=True)

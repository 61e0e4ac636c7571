"""`python -m tests.fuzz.guided --seconds 60`: readers of bytes, fuzzed by what their code does (with atheris).

Where a reader is quick and all Python, an input that reaches a new line of it is kept and changed further. That makes a
hundred times as many examples as `python -m tests.fuzz`, which knows what the files mean.
"""

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.mutations import QUICK

MODULES = ("colorcli",)
LONGEST_INPUT, SECONDS_EACH = 4096, 20


@dataclass(frozen=True)
class Reader:
    """One function that reads what strangers wrote."""

    read: Callable[[bytes], Any]
    whole: tuple[bytes, ...]  # inputs to begin from


def readers(folder: Path) -> Mapping[str, Reader]:
    """Every reader by its name; files are written into `folder`."""
    from colorcli.images import read_size
    from colorcli.model.onnx_file import read_onnx_file
    from colorcli.model.single_file import read_header, read_metadata
    from colorcli.prepare.palette_file import read_swatches
    from colorcli.settings import NodeReader, parse_yaml
    from colorcli.shot.frames import Chunk, FrameRange
    from colorcli.shot.manifest import FrameRecord, read_line, record_line
    from tests.fuzz import test_pictures, test_settings, test_weights

    def of_file(suffix: str, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
        path = folder / f"a{suffix}"

        def read_bytes(content: bytes) -> None:
            path.write_bytes(content)
            read(path)

        return read_bytes

    def of_text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
        return lambda content: read(content.decode(errors="ignore"))

    def yaml_values(text: str) -> Any:
        node = parse_yaml(text, "a")
        return NodeReader("a").value(node) if node is not None else None

    record = FrameRecord(frame="walk.0001", number=1, sequence="walk.", status="written", output="walk.0001.png")
    pictures = test_pictures.whole_files()
    return {
        "range": Reader(of_text(FrameRange.parse), (b"1-10x2,5", b"openjd:1-5:2,9", b"1-10y3", b"-8--5")),
        "chunk": Reader(of_text(Chunk.parse), (b"3/10",)),
        "yaml": Reader(of_text(yaml_values), (b"a: &a [1, 2.5, off]\nb: {c: *a}\n", b"extends: cel\n")),
        "record": Reader(read_line, (record_line(record),)),
        "ase": Reader(of_file(".ase", read_swatches), (test_settings.ASE,)),
        "gpl": Reader(of_file(".gpl", read_swatches), (test_settings.GPL,)),
        "palette json": Reader(of_file(".json", read_swatches), (test_settings.JSON,)),
        "safetensors": Reader(
            of_file(".safetensors", lambda path: (read_header(path), read_metadata(path))), (test_weights.whole_lora(),)
        ),
        "onnx": Reader(of_file(".onnx", read_onnx_file), (test_weights.whole_network(),)),
        "png": Reader(of_file(".png", read_size), tuple(v for k, v in pictures.items() if k.endswith(".png"))),
        "jpeg": Reader(of_file(".jpg", read_size), tuple(v for k, v in pictures.items() if k.endswith(".jpg"))),
    }


def run_inside(name: str, seconds: int) -> None:
    """Fuzz one reader in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=list(MODULES)):
        importlib.import_module("colorcli.shot.frames")
        importlib.import_module("colorcli.model.onnx_file")
        importlib.import_module("colorcli.prepare.palette_file")
    from colorcli.errors import ColorcliError

    with tempfile.TemporaryDirectory(dir=QUICK) as text:
        folder = Path(text)
        reader = readers(folder)[name]
        for number, content in enumerate(reader.whole):
            (folder / "corpus").mkdir(exist_ok=True)
            (folder / "corpus" / str(number)).write_bytes(content)

        def one(content: bytes) -> None:
            try:
                reader.read(content)
            except ColorcliError as error:
                if not error.message:
                    raise

        options = [f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT}", f"-timeout={SECONDS_EACH}"]
        options += ["-print_final_stats=1", f"-artifact_prefix={tempfile.gettempdir()}/"]
        atheris.Setup([sys.argv[0], str(folder / "corpus"), *options], one)
        atheris.Fuzz()


def main() -> int:
    """Fuzz every reader, or one; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--only", metavar="TEXT", default="", help="readers with this in their name")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        run_inside(asked.inside, asked.seconds)
        return 0
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in readers(Path(folder)) if asked.only in name]
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz.guided", "--inside", name, "--seconds", str(asked.seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        count = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        words = "nothing found" if done.returncode == 0 else "FOUND SOMETHING"
        print(f"{name}: {count[1] if count else 'no'} examples, {words}", flush=True)  # noqa: T201 (it is a command)
        if done.returncode:
            found += 1
            print("\n".join(f"    {line}" for line in done.stderr.splitlines()[-30:]), flush=True)  # noqa: T201
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Command lines that nobody meant well: each ends with a code that a farm can act on, none by a mistake of ours."""

import contextlib
import functools
import io
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from colorcli.cli.main import main
from tests.fuzz.mutations import BAD_PARTS, costly, file_names, scratch
from tests.shot.studio import draw_key, draw_shot

# Ended in order: done, usage, shot or key, preset, weights, device, some frames failed, output.
IN_ORDER = {0, 2, 3, 4, 5, 6, 7, 9}
WORDS = st.one_of(
    st.sampled_from(BAD_PARTS),
    file_names(),
    st.sampled_from(
        (
            "walk",
            "key.png",
            "walk_color",
            "tree",
            "pipe",
            "loop",
            "broken.yaml",
            "/dev/zero",
            "/dev/null",
            "walk/walk.####.png",
            "walk/walk.%04d.png",
            "{shot}.png",
            "x" * 300,
            "a/" * 3000,
            "0",
            "-1",
            "9" * 30,
            "1-3",
            "1/2",
            "openjd:1-3:2",
            "cel",
            "mini",
            "sampling.steps=1",
            "canvas.area=1e12",
            "lora=[{file: /dev/zero}]",
            "masks.source=network",
            "background.image=/dev/zero",
            "model=/dev/zero",
            "lines.network=pipe",
        )
    ),
).filter(lambda word: "\0" not in word)   # no system hands on such a word
OPTIONS = ("--ref", "-o", "--frames", "--chunk", "--masks", "--preset", "--set", "--model", "--max-pixels", "--device",
           "--batch", "--progress", "--format", "--memory", "--layers", "--layers-as", "--engine")  # fmt: skip
SWITCHES = ("--overwrite", "--steady", "--no-steady", "-q", "-vv", "--thorough", "--")
OTHER = (
    ("presets", "show"), ("presets", "check"), ("presets", "explain"), ("manifest", "show"), ("manifest", "verify"),
    ("manifest", "merge"), ("models", "info"), ("models", "verify"), ("farm", "openjd"), ("prepare",), ("review",),
    ("dataset", "index"), ("dataset", "check"), ("train",), ("models", "import"),
)  # fmt: skip


@functools.cache
def studio() -> Path:
    """A folder with a shot, its key and its result."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    draw_shot(folder / "walk", (1, 2, 3))
    shutil.copytree(folder / "walk", folder / "tree" / "sc01")
    (folder / "broken.yaml").write_bytes(b"sampling: [")
    draw_key(folder / "{shot}.png")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(folder):
        assert main(["walk", "--ref", "key.png", "--engine", "stand-in"]) == 0
    return folder


def ends_in_order(words: list[str]) -> None:
    """Run a command in a copy of the studio; what stands around it stays as it is."""
    out, err = io.StringIO(), io.StringIO()
    with scratch() as around:
        folder = around / "studio"
        shutil.copytree(studio(), folder)
        os.mkfifo(folder / "pipe")
        (folder / "loop").symlink_to("loop")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(folder):
            code = main(words)
        assert code in IN_ORDER, (words, code, err.getvalue()[-3000:])
        assert [path.name for path in around.iterdir()] == ["studio"]
        drawings = {path.name: path.read_bytes() for path in (studio() / "walk").iterdir()}
        assert {path.name: path.read_bytes() for path in (folder / "walk").iterdir()} == drawings
    if code:
        assert "error" in err.getvalue()


@costly
@given(
    st.lists(WORDS, max_size=2),
    st.lists(st.tuples(st.sampled_from(OPTIONS), WORDS), max_size=4),
    st.lists(st.sampled_from(SWITCHES), max_size=2),
)
@example(["x" * 300], [("--ref", "key.png")], [])
@example(["walk"], [("--ref", "x" * 300)], [])
@example(["walk"], [("--ref", "key.png"), ("-o", "x" * 300)], [])
@example(["walk"], [("--ref", "key.png"), ("--preset", "x" * 300 + ".yaml")], [])
@example(["walk"], [("--ref", "key.png"), ("--masks", "x" * 300)], [])
@example(["walk"], [("--ref", "key.png"), ("--model", "x" * 300)], [])
@example(["walk"], [("--ref", "pipe")], [])
@example(["pipe"], [("--ref", "key.png")], [])
@example(["walk"], [("--ref", "key.png"), ("--preset", "./pipe.yaml")], [])
@example(["walk"], [("--ref", "key.png"), ("--set", "lines.network=pipe"), ("--set", "lines.mode=extract")], [])
@example(["walk"], [("--ref", "key.png"), ("-o", "\udcff")], [])
@example(["\udcff"], [("--ref", "key.png")], [])
@example(["walk"], [("--ref", "\udcff")], [])
@example(["loop"], [("--ref", "loop")], [])
@example(["walk"], [("--ref", "key.png"), ("-o", "loop")], [])
@example(["walk"], [("--ref", "key.png"), ("--masks", "loop")], [])
def test_a_command_to_color_ends_in_order(shots, options, switches):
    words = [word for pair in options for word in pair]
    ends_in_order([*words, "--dry-run", *switches, *shots])


@costly
@given(st.sampled_from(OTHER), st.lists(st.one_of(WORDS, st.sampled_from(OPTIONS)), max_size=4))
@example(("manifest", "verify"), ["pipe"])
@example(("manifest", "show"), ["x" * 300])
@example(("presets", "show"), ["pipe"])
@example(("presets", "check"), ["./pipe.yaml", "x" * 300 + ".yaml"])
@example(("models", "info"), ["pipe"])
@example(("models", "info"), ["\udcff"])
@example(("dataset", "index"), ["pipe", "-o", "set"])
@example(("train",), ["./pipe.yaml"])
def test_every_other_command_ends_in_order(command, words):
    ends_in_order([*command, *words, *(("--dry-run",) if command[0] in ("train", "models") else ())])

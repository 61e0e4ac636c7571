"""Manifests and journals that somebody edited: nothing forged counts, nothing is written elsewhere, all is mended."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from colorcli.errors import ColorcliError
from colorcli.shot.manifest import FrameRecord, read_line, read_lines, read_records, record_line
from colorcli.shot.merge import merge
from colorcli.shot.verify import Expected, verify
from tests.fuzz.mutations import edited, scratch
from tests.shot.studio import color, draw_shot

Files = dict[str, bytes]
NAMES = st.sampled_from(
    (
        "walk.0001.png",
        "../key.png",
        "../walk/walk.0002.png",
        "/etc/hostname",
        "..",
        "",
        ".",
        "a/b",
        "a\\b",
        "x\ny.png",
        "\0",
        "walk.0001.png/",
        "frames.jsonl",
        "manifest.json",
        "n" * 300,
        "動画.png",
    )
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | NAMES
    | st.sampled_from((10**400, -(10**30), 1e308, "written", "held", "failed", "9999-12-31", "0" * 64)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | NAMES, inner, max_size=3),
    max_leaves=6,
)


@functools.cache
def whole() -> Files:
    """A shot of three frames and its result, file by file."""
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        color(draw_shot(Path(folder) / "walk", (1, 2, 3)))
        return contents(Path(folder))


def contents(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lay_out(folder: Path, **changed: bytes) -> Path:
    """Write the shot and its result, with other content for `journal` or `manifest`; gives OUT."""
    names = {"walk_color/frames.jsonl": "journal", "walk_color/manifest.json": "manifest"}
    for name, content in whole().items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(changed.get(names.get(name, ""), content))
    return folder / "walk_color"


def outside(folder: Path) -> Files:
    """All that no command may touch."""
    return {name: content for name, content in contents(folder).items() if not name.startswith("walk_color/")}


def pictures(out: Path) -> Files:
    return {path.name: path.read_bytes() for path in out.glob("walk.*.png")}


def findings(out: Path) -> list[tuple[str, bool]] | None:
    """What `verify` says: kinds, and whether they are fatal; None: it is no result any more."""
    try:
        return [(finding.kind, finding.fatal) for finding in verify(out, Expected())]
    except ColorcliError:
        return None


def mended(folder: Path, wholly: bool = True) -> None:
    """The same command again gives the right pictures, whatever was recorded, and writes nothing elsewhere.

    wholly: nothing is left that `verify` finds wrong.
    """
    before = outside(folder)
    assert color(folder / "walk").result.exit_code == 0
    wanted = {name.removeprefix("walk_color/"): content for name, content in whole().items() if "color/walk" in name}
    assert pictures(folder / "walk_color") == wanted
    assert outside(folder) == before
    assert not wholly or not any(fatal for _, fatal in findings(folder / "walk_color") or [])


@given(st.deferred(lambda: edited(whole()["walk_color/frames.jsonl"])))
def test_bytes_of_a_journal(journal: bytes) -> None:
    with scratch() as folder:
        out = lay_out(folder, journal=journal)
        written = set(whole()["walk_color/frames.jsonl"].splitlines())
        counting = {line.text for line in read_lines(out / "frames.jsonl") if line.counts}
        assert counting <= written  # a line counts as it was written, or not at all
        found = findings(out)
        assert found is not None
        frames = {json.loads(line)["number"] for line in counting}
        if frames != {1, 2, 3}:
            assert any(fatal for _, fatal in found)
        mended(folder)


@given(st.deferred(lambda: edited(whole()["walk_color/manifest.json"])))
def test_bytes_of_a_manifest(manifest: bytes) -> None:
    with scratch() as folder:
        out = lay_out(folder, manifest=manifest)
        found = findings(out)
        if found is not None and _values(manifest) != _values(whole()["walk_color/manifest.json"]):
            assert {kind for kind, _ in found} & {"edited", "manifest"}
        newer = found is not None and any(kind == "manifest" for kind, _ in found)
        if not newer:  # such a one is not written over
            mended(folder)


@given(st.sampled_from(sorted(FrameRecord.model_fields)), VALUES, st.booleans())
def test_values_of_a_record_with_a_right_sum(name: str, value: Any, in_another_folder: bool) -> None:
    with scratch() as folder:
        first, *others = whole()["walk_color/frames.jsonl"].splitlines()
        record = {**json.loads(first), name: value}
        text = json.dumps({key: entry for key, entry in record.items() if key != "sum"}).encode()
        try:
            line = record_line(FrameRecord.model_validate_json(text))
        except ValueError:
            line = text  # no record at all
        out = lay_out(folder, journal=b"\n".join([line, *others, b""]))
        before = outside(folder)
        assert findings(out) is not None
        if in_another_folder:
            merge(folder / "deep" / "walk_color", [out])
            assert {path.name for path in (folder / "deep").iterdir()} == {"walk_color"}
            (folder / "deep").rename(folder / "walk_color" / "away")
        else:
            merge(out)
        assert outside(folder) == before
        for record in read_records(out):
            names = [name for name in (record.source, record.output, record.held_from) if name is not None]
            assert all(name == Path(name).name for name in names)
            assert all((out / path).resolve().is_relative_to(out.resolve()) for path in record.outputs)
        # A made-up frame with a right sum stays to be found, as does what leads out of the folder.
        mended(folder, wholly=read_line(line).fault is None and name not in ("frame", "number", "sequence", "output"))


def _values(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None

"""Names of files as hostile as a disk allows: found, colored, recorded and told without any of them being believed."""

import contextlib
import io
import json
import os
import re
from pathlib import Path

from hypothesis import assume, example, given
from hypothesis import strategies as st

from colorcli import console
from colorcli.cli.render import summarize
from colorcli.console import DIALECTS, RunReporter, dialect_named
from colorcli.errors import ColorcliError, ShotError, UsageError
from colorcli.images import CONTAINERS
from colorcli.shot.frames import Chunk, FrameRange, find_frames, find_shots, missing_numbers
from colorcli.shot.manifest import read_records
from colorcli.shot.plan import ShotRequest, plan_shots
from colorcli.shot.run import run_plans
from tests.fuzz.mutations import costly, file_names, scratch
from tests.shot.studio import MODEL, FakeColorizer, draw, draw_key

PICTURES = (".png", ".0001.png", "1.tga", "-3.png")


@given(st.lists(file_names(), max_size=12, unique=True))
@example(["0001" * 60 + ".png", "walk." + "9" * 19 + ".png"])
@example(["a\\b.0001.png", "c\\b.0001.png", "\\.0001.png"])
def test_every_name_in_a_folder_is_a_frame_a_key_hidden_or_told(names):
    try:
        frames, ignored, keys = find_frames(Path("shot"), names=names)
    except ShotError as error:
        assert "are both frame" in error.message
        return
    told = [frame.name for frame in frames] + list(ignored) + list(keys)
    assert len(told) == len(set(told))
    hidden = {name for name in names if name.startswith(".") or name.endswith("~")}
    assert set(told) == set(names) - hidden
    for frame in frames:
        assert frame.path.suffix.lower() in CONTAINERS
        if frame.number is not None:
            digits = re.findall(r"\d+", frame.name.removesuffix(frame.path.suffix))
            assert abs(frame.number) in {int(text) for text in digits}
            assert frame.name.startswith(frame.sequence)
        assert frame.path.parent == Path("shot")
    gaps = missing_numbers([frame.number for frame in frames if frame.number is not None])
    assert len(gaps) <= 1_000_000


@costly
@given(st.lists(file_names(suffixes=PICTURES), min_size=1, max_size=3, unique=True), st.sampled_from(sorted(DIALECTS)))
def test_a_shot_of_hostile_names_is_colored_and_its_log_tells_only_what_happened(names, dialect):
    out, err = io.StringIO(), io.StringIO()
    with scratch() as folder, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name in names:
            try:
                draw(folder / "shot" / name, 1, (24, 20))
            except OSError:
                assume(False)  # not even this disk takes it
        draw_key(folder / "key.png")
        before = sorted(path.name for path in (folder / "shot").iterdir())
        try:
            plans = plan_shots(ShotRequest((str(folder / "shot"),), (str(folder / "key.png"),)))
        except (ShotError, UsageError) as error:
            console.complain(error.kind, error.message, error.hint)
            assert (
                "both frame" in error.message
                or "not UTF-8" in error.message
                or "holds no frames" in error.message
                or "is empty" in error.message
            )
            return
        told = dialect_named(dialect)
        result = run_plans(
            plans,
            plans[0].request.preset,
            RunReporter(told, len(plans[0].jobs)),
            load_colorizer=FakeColorizer,
            model=MODEL,
        )
        with contextlib.suppress(ColorcliError):
            summarize(result, plans, told)
        assert result.exit_code == 0, (result.error, result.failed)
        colors = folder / "shot_color"
        assert sorted(path.name for path in (folder / "shot").iterdir()) == before
        assert {record.output for record in read_records(colors)} == {job.source.name for job in plans[0].jobs}
        assert {path.name for path in colors.iterdir()} == {
            *(job.source.name for job in plans[0].jobs),
            "manifest.json",
            "frames.jsonl",
        }
        assert sorted(path.name for path in folder.iterdir()) == ["key.png", "shot", "shot_color"]
    for line in (out.getvalue() + err.getvalue()).splitlines():
        honest = re.fullmatch(
            r"Progress: \d+%|TR_PROGRESS \d{3}%|openjd_progress: \d+|openjd_status: .*|openjd_fail: .*", line
        )
        assert honest or not re.search(r"Progress:|TR_PROGRESS|TR_EXIT_STATUS|openjd_[a-z]+:", line), line
        assert dialect == "rich" or not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", line), line
        if dialect == "json" and line.startswith("{"):
            json.loads(line)


@given(
    st.text(max_size=30)
    | st.from_regex(r"(openjd:)?[-+x:y,\d #]{0,40}", fullmatch=True)
    | st.from_regex(r"(openjd:)?-?\d{1,25}(-(-?\d{1,25}([xy:]-?\d{1,12})?)?)?", fullmatch=True)
)
def test_a_range_of_frames_is_numbers_or_a_usage_error(text):
    for read in (FrameRange.parse, Chunk.parse):
        try:
            found = read(text)
        except UsageError as error:
            assert error.hint
        else:
            if isinstance(found, FrameRange):
                assert 0 < len(found.numbers) <= 1_000_000
                assert all(isinstance(number, int) for number in found.numbers)
                assert "/" not in found.text and "\0" not in found.text  # it becomes part of a file name
            else:
                assert 1 <= found.index <= found.count


@costly
@given(st.data())
def test_links_and_pipes_in_a_tree_lead_nowhere_that_was_not_named(data):
    """Loops, links upwards and outwards, links to nothing, pipes: planning ends, and writes only below OUT."""
    with scratch() as folder:
        tree, outside = folder / "tree", folder / "outside"
        draw(outside / "a.0001.png")
        draw(tree / "sc01" / "b.0001.png")
        draw_key(folder / "key.png")
        places = ("", "sc01", "sc01/deep", "sc02")
        goals = (
            "..",
            ".",
            "../..",
            "../outside",
            "../../outside",
            "/dev",
            "/dev/zero",
            "/proc/self",
            "nowhere",
            "loop",
            "sc01",
            "../sc01",
            "../tree",
            "a.0001.png",
            "../outside/a.0001.png",
            "../../key.png",
        )
        for number in range(data.draw(st.integers(1, 4))):
            place = tree / data.draw(st.sampled_from(places))
            place.mkdir(exist_ok=True, parents=True)
            name = data.draw(st.sampled_from(("loop", "c.0002.png", "manifest.json", "sc03", "b.0003.png")))
            with contextlib.suppress(FileExistsError):
                if data.draw(st.booleans()):
                    (place / name).symlink_to(data.draw(st.sampled_from(goals)))
                else:
                    os.mkfifo(place / name)
            assert number < 4
        try:
            shots = find_shots(tree)
            plans = plan_shots(ShotRequest((str(tree),), (str(folder / "key.png"),), folder / "out"))
        except ColorcliError as error:
            assert error.hint
            return
        assert len({shot.folder.resolve() for shot in shots}) == len(shots)
        result = run_plans(plans, plans[0].request.preset, Quiet(), load_colorizer=FakeColorizer, model=MODEL)
        # 9: a folder of the tree is called as the manifest of the folder above it will be.
        assert result.exit_code in (0, 7, 9), result.error
        for plan in plans:
            assert ".." not in plan.out.relative_to(folder / "out").parts
        assert {path.name for path in folder.iterdir()} == {"tree", "outside", "key.png", "out"}
        assert [path.name for path in outside.iterdir()] == ["a.0001.png"]


class Quiet:
    """A reporter that tells nobody."""

    def started(self, plan: object) -> None: ...
    def frame(self, record: object, done: int, total: int) -> None: ...
    def warning(self, text: str) -> None: ...
    def finished(self, totals: object) -> None: ...

"""Finding frames by the names that animation folders really hold."""

from pathlib import Path

import pytest
from openjd.model import IntRangeExpr

from colorcli.errors import ShotError, UsageError
from colorcli.shot.frames import Chunk, FrameRange, find_frames, find_shots, missing_numbers, numbers_as_range


def files(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def numbers(folder: Path) -> list[tuple[str, int | None]]:
    frames, _, _ = find_frames(folder)
    return [(frame.name, frame.number) for frame in frames]


@pytest.mark.parametrize(
    ("name", "sequence", "number"),
    [
        ("walk.0001.png", "walk.", 1),
        ("A0001.tga", "A", 1),
        ("A1.tga", "A", 1),
        ("0012.png", "", 12),
        ("walk_v002.1001.exr", "walk_v002.", 1001),
        ("walk.-0003.png", "walk.", -3),
        ("-5.png", "", -5),
        ("walk-0007.png", "walk-", 7),
        ("s01_c003_0010.tif", "s01_c003_", 10),
        ("動画.0004.PNG", "動画.", 4),
        ("line art 03.jpeg", "line art ", 3),
        ("walk.123456.png", "walk.", 123456),
    ],
)
def test_a_name_is_split_as_an_animator_reads_it(tmp_path, name, sequence, number):
    (frame,), _, _ = find_frames(files(tmp_path / "shot", name))
    assert (frame.sequence, frame.number, frame.name) == (sequence, number, name)


def test_a_picture_without_a_number_is_a_frame(tmp_path):
    shot = files(tmp_path / "shot", "hello.png", "good day.tga")
    assert numbers(shot) == [("good day.tga", None), ("hello.png", None)]


def test_frames_come_in_order_of_their_numbers_not_of_their_names(tmp_path):
    shot = files(tmp_path / "shot", "a.10.png", "a.9.png", "a.100.png", "a.-1.png")
    assert [number for _, number in numbers(shot)] == [-1, 9, 10, 100]


def test_extensions_may_be_mixed_in_one_sequence(tmp_path):
    shot = files(tmp_path / "shot", "a.0001.png", "a.0002.TGA", "a.0003.exr")
    (found,) = find_shots(shot)
    assert list(found.sequences) == ["a."]
    assert [frame.number for frame in found.frames] == [1, 2, 3]


@pytest.mark.parametrize("others", [("a.0001.png", "a.0001.tga"), ("a.0001.png", "a.01.png")])
def test_two_files_for_one_frame_are_refused_by_name(tmp_path, others):
    with pytest.raises(ShotError, match=r"a\.0?0?01\.\w+ and a\.0?0?0?1\.\w+ .*are both frame 1"):
        find_shots(files(tmp_path / "shot", *others, "a.0002.png"))


def test_two_sequences_in_one_folder_are_both_there(tmp_path):
    (shot,) = find_shots(files(tmp_path / "shot", "A0001.png", "A0002.png", "B0001.png"))
    assert {name: len(frames) for name, frames in shot.sequences.items()} == {"A": 2, "B": 1}
    assert shot.describe_range() == "A1-2, B1"


def test_a_hyphen_is_a_minus_only_beside_the_same_name_without_it(tmp_path):
    assert numbers(files(tmp_path / "a", "c-2.png", "c-1.png")) == [("c-1.png", 1), ("c-2.png", 2)]
    assert numbers(files(tmp_path / "b", "c-2.png", "c-1.png", "c0.png")) == [
        ("c-2.png", -2), ("c-1.png", -1), ("c0.png", 0),
    ]


def test_keys_hidden_files_and_other_files_are_no_frames(tmp_path):
    shot = files(
        tmp_path / "shot", "a.0001.png", "key.png", "Ref.0001.tga", ".a.0002.png", "a.0003.png~", "Thumbs.db", "a.psd"
    )
    (found,) = find_shots(shot)
    assert [frame.name for frame in found.frames] == ["a.0001.png"]
    assert set(found.key_names) == {"key.png", "Ref.0001.tga"}
    assert set(found.ignored) == {"Thumbs.db", "a.psd"}


def test_a_name_that_only_begins_like_a_key_is_a_frame(tmp_path):
    assert numbers(files(tmp_path / "shot", "keyframe.0001.png", "reference0002.png")) == [
        ("keyframe.0001.png", 1), ("reference0002.png", 2),
    ]


@pytest.mark.parametrize("pattern", ["walk.####.png", "walk.%04d.png", "walk.@@@@.png", "walk.#.png"])
def test_a_pattern_names_one_sequence(tmp_path, pattern):
    shot = files(tmp_path / "shot", "walk.0001.png", "walk.0002.png", "walk.0001.tga", "run.0001.png", "key.png")
    (found,) = find_shots(shot / pattern)
    assert [frame.name for frame in found.frames] == ["walk.0001.png", "walk.0002.png"]
    assert found.folder == shot


def test_four_hashes_are_four_digits(tmp_path):
    shot = files(tmp_path / "shot", "w.0001.png", "w.001.png", "w.12345.png")
    assert [frame.name for frame in find_shots(shot / "w.####.png")[0].frames] == ["w.0001.png", "w.12345.png"]
    with pytest.raises(ShotError, match="no frame is named like"):
        find_shots(shot / "w.######.png")


def test_one_picture_can_be_a_shot(tmp_path):
    shot = files(tmp_path / "shot", "walk.0001.png", "walk.0002.png")
    (found,) = find_shots(shot / "walk.0002.png")
    assert [frame.name for frame in found.frames] == ["walk.0002.png"]


def test_every_folder_of_a_tree_that_holds_frames_is_a_shot(tmp_path):
    names = ("sc01/c001/a.0001.png", "sc01/c002/a.0001.png", "sc02/c001/a.1.png", "notes/read.txt", "empty/.x")
    film = files(tmp_path / "film", *names)
    found = find_shots(film)
    assert [shot.name for shot in found] == ["sc01/c001", "sc01/c002", "sc02/c001"]
    assert [shot.relative.as_posix() for shot in found] == ["sc01/c001", "sc01/c002", "sc02/c001"]


def test_results_of_an_earlier_run_in_a_tree_are_no_shots(tmp_path):
    film = files(tmp_path / "film", "a/a.0001.png", "a_color/a.0001.png", "b/b.0001.png")
    (film / "a_color" / "manifest.json").write_text('{\n  "schema": "colorcli/manifest/1"}')
    (film / "b" / "manifest.json").write_text('{"made by": "another tool"}')
    assert [shot.name for shot in find_shots(film)] == ["a", "b"]


def test_a_link_back_into_the_tree_is_walked_once(tmp_path):
    film = files(tmp_path / "film", "a/a.0001.png")
    (film / "a" / "again").symlink_to(film)
    assert [shot.name for shot in find_shots(film)] == ["a"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "is empty"),
        (("notes.txt",), "notes.txt cannot be read as pictures"),
        (("key.png",), "only the key key.png"),
    ],
)
def test_a_folder_without_frames_says_why(tmp_path, names, words):
    with pytest.raises(ShotError, match=words):
        find_shots(files(tmp_path / "shot", *names))


def test_a_shot_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ShotError, match=r"there is no .*nowhere"):
        find_shots(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1-5", {1, 2, 3, 4, 5}),
        ("1-9x4,20", {1, 5, 9, 20}),
        ("1-4x1 8-10x1", {1, 2, 3, 4, 8, 9, 10}),
        ("-8--5", {-8, -7, -6, -5}),
        ("5-1", {1, 2, 3, 4, 5}),
        ("1-6y3", {2, 3, 5, 6}),
        ("7,,", {7}),
    ],
)
def test_frame_ranges_are_read_as_fileseq_and_nuke_write_them(text, wanted):
    assert FrameRange.parse(text).numbers == wanted


def test_a_bare_colon_is_refused_with_both_its_meanings():
    with pytest.raises(UsageError, match=r"step in Open Job Description.*stagger.*fileseq") as caught:
        FrameRange.parse("1-20:5")
    assert caught.value.hint == "for a step write 1-20x5 (or openjd:1-20:5); for every frame write 1-20"


@pytest.mark.parametrize(
    "text", ["1-5:2", "7-7", "7,9", "-3--1", "-3 - 4", "10-1:-3", "1-10:4,20-22", "5", "20-30:5, 1-3", "0-1000000:4"]
)
def test_frames_in_the_words_of_open_job_description_are_the_ones_that_its_own_library_reads(text):
    assert sorted(FrameRange.parse(f"openjd:{text}").numbers) == sorted(IntRangeExpr.from_str(text))


@pytest.mark.parametrize("text", ["1-5:2", "10-1:-3,12", "-4--2:2", "3-4:7"])
def test_they_are_kept_in_the_words_that_everything_else_is_asked_in(text):
    """Without a colon: the text becomes part of a journal's name, which Windows has to take."""
    frames = FrameRange.parse(f"openjd:{text}")
    assert FrameRange.parse(frames.text) == frames


@pytest.mark.parametrize(
    "text", ["", "openjd", "1-5x2", "1-5:0", "5-1", "1-5:", "1;rm", "1-5:2:3", "0-1000000", "1-99999999999", "1-3\n4"]
)
def test_what_open_job_description_does_not_write_is_refused(text):
    with pytest.raises(UsageError, match="openjd:"):
        FrameRange.parse(f"openjd:{text}")


@pytest.mark.parametrize("start", ["", "openjd:"])
def test_frames_asked_for_again_count_again(start):
    """A line of ranges that each take a moment shall not take an hour."""
    assert len(FrameRange.parse(f"{start}1-500000,1-500000").numbers) == 500_000
    with pytest.raises(UsageError, match="asks for more than 1000000 frames"):
        FrameRange.parse(f"{start}1-500000,1-500000,7")


@pytest.mark.parametrize("text", ["", " , ", "a-b", "1-", "1.5", "1-2x0.5", "1-1000000000", "1-10x-2", "1-2000000"])
def test_what_is_no_frame_range_is_a_usage_error(text):
    with pytest.raises(UsageError):
        FrameRange.parse(text)


@pytest.mark.parametrize(("count", "length"), [(1, 7), (3, 7), (7, 7), (10, 7), (4, 0)])
def test_chunks_share_out_every_frame_once_and_evenly(count, length):
    bounds = [Chunk(index, count).bounds(length) for index in range(1, count + 1)]
    assert [place for first, end in bounds for place in range(first, end)] == list(range(length))
    sizes = [end - first for first, end in bounds]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "-1/3", "1/0"])
def test_a_part_that_cannot_be_is_a_usage_error(text):
    with pytest.raises(UsageError):
        Chunk.parse(text)


@pytest.mark.parametrize(
    ("there", "missing"),
    [([1, 2, 3], []), ([1, 2, 4], [3]), ([1, 3, 5, 9], [7]), ([-2, 0, 1], [-1]), ([5], []), ([1, 100], []), ([], [])],
)
def test_gaps_are_what_a_sequence_leaves_out_of_its_own_step(there, missing):
    assert missing_numbers(there) == missing


def test_numbers_are_written_the_way_they_are_asked_for():
    assert numbers_as_range([7, 1, 2, 3, 3]) == "1-3,7"

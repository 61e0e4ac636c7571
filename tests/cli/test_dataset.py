"""`colorcli dataset`: sets made, indexed and looked at from the command line, and what it says about bad ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colorcli.cli.main import main
from tests.train.picture_sets import color_of, write_set

SIZES = [(90, 60)] * 4 + [(60, 90)] * 3 + [(70, 70)] * 2
SMALL = ["--side", "64", "--min-side", "1"]


def paint(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = np.full((36, 48, 3), 255, np.uint8)
    frame[8:30, 12:36] = (200, 60, 40)
    Image.fromarray(frame).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    write_set(tmp_path / "set", SIZES)
    return str(tmp_path / "set")


def test_check_counts_what_can_be_used_and_shows_it_on_a_sheet(
    pictures: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "sheet.png"
    assert main(["dataset", "check", pictures, *SMALL, "--batch", "2", "-o", str(sheet), "--rows", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"kept": 9, "no_sketch": 0, "low_score": 0, "small": 0, "unreadable": 0}
    assert (told["landscape"], told["portrait"], told["square"]) == (4, 3, 2)
    assert (told["batches"], told["unseen"], told["read"], told["broken"]) == (4, 1, 9, {})
    assert told["sheet"] == str(sheet)
    with Image.open(sheet) as image:
        shown = {color for _, color in image.convert("RGB").getcolors(1 << 24)}
    assert len(shown & {color_of(number) for number in range(9)}) == 3   # the pictures of three rows


def test_check_names_what_is_broken_and_gives_its_own_exit_code(
    pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(pictures) / "mask" / "00001.zip").write_bytes(b"broken")
    assert main(["dataset", "check", pictures, *SMALL, "--all"]) == 7
    said = capsys.readouterr()
    assert "9, of which 4 cannot be used" in said.out
    assert "mask/00001.zip is no whole zip archive" in said.err
    assert "there is no batch of 16" in said.err


def test_check_says_why_nothing_passes_the_filter(pictures: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "check", pictures]) == 3
    said = capsys.readouterr().err
    assert "9 too small; wanted are a score of 5.5 and 768 pixels on both sides" in said
    assert "colorcli: error[data]: none of the 9 pictures of set" in said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["check", "nowhere"], 3, "there is no folder nowhere"),
        (["index", "nowhere", "-o", "out"], 3, "there is no folder"),
        (["check", "nowhere", "--like", "xxl"], 2, "xxl"),
        (["check", "nowhere", "-o", "sheet.gif"], 2, "a name that ends in .png"),
        (["draw", "out", "--side", "300"], 2, "--side 288"),
        (["draw", "out", "--characters", "0"], 2, "--characters"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dataset", *arguments]) == code
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_frames_are_indexed_and_checked_and_indexed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        paint(tmp_path / "show" / "sc01" / f"{number}.png")
    (tmp_path / "show" / "sc01" / "bad.png").write_bytes(b"no picture")
    call = ["dataset", "index", str(tmp_path / "show"), "-o", str(tmp_path / "set"), "--processes", "1",
            "--extractor", "xdog", "--references", "2", "--score", "6.5"]
    assert main(call) == 7
    said = capsys.readouterr()
    assert "4 xdog" in said.out and "4 colors" in said.out
    assert "1 could not be used" in said.err and "bad.png" in said.err and "(in sc01)" in said.err
    assert main([*call, "--json"]) == 7
    told = json.loads(capsys.readouterr().out)
    assert (told["pictures"], told["kept"], told["groups"]) == (4, 1, {"landscape_with_reference": 4})
    assert main(["dataset", "check", str(tmp_path / "set"), *SMALL, "--reference", "every", "--batch", "2"]) == 0
    assert "2 in an epoch" not in capsys.readouterr().out   # 4 pictures with 2 references are 4 batches of 2


def test_archives_without_an_index_are_indexed_where_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "set", SIZES, indexed=False)
    assert main(["dataset", "check", str(tmp_path / "set"), *SMALL]) == 0
    assert "no index, sketches" in capsys.readouterr().out
    assert main(["dataset", "index", str(tmp_path / "set"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 9
    assert main(["dataset", "check", str(tmp_path / "set"), *SMALL]) == 0
    assert "in the index" in capsys.readouterr().out


def test_frames_without_a_folder_to_write_to_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "show" / "1.png")
    assert main(["dataset", "index", str(tmp_path / "show")]) == 2
    assert "-o OUT" in capsys.readouterr().err


def test_drawings_are_drawn_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["dataset", "draw", str(tmp_path / "set"), "--characters", "1", "--poses", "2", "--side", "128",
            "--seed", "7", "--processes", "1", "--json"]
    assert main(call) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 0
    assert main(call) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["pictures"], told["kept"], told["sketch_by"]) == (2, 1, {"drawn": 2})

"""`colorcli review`: what it prints, where it writes, and what it refuses before a minute of measuring."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from colorcli.cli.main import main
from tests.review.studio import BLUE, RED, colored_shot


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colored_shot(tmp_path_factory.mktemp("review"), [RED, RED, BLUE, RED])


def test_the_page_lies_in_out_and_the_frames_worth_a_look_are_named(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["review", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("sc: 4 frames, 0 failed, 1 worth a look\n  sc.0003: 100% of the character")
    assert (out / "review.html").is_file() and str(out / "review.html") in said


def test_as_json_it_is_one_object(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", str(out), "-o", str(tmp_path / "a.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (shot,) = told["shots"]
    assert told["written"] == [str(tmp_path / "a.html")]
    assert [found["frame"] for found in shot["worth_a_look"]] == ["sc.0003"]
    # Two of three changes repaint the whole character.
    assert shot["repainted"] == pytest.approx(2 / 3, abs=0.001)


def test_a_review_does_not_stand_in_the_way_of_the_next_run_or_of_verify(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["review", str(out), "--quiet"]) == 0
    assert main(["manifest", "verify", str(out)]) == 0


def test_a_movie_and_a_timeline_come_with_it(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av")
    pytest.importorskip("opentimelineio")
    movie, otio = tmp_path / "a.mp4", tmp_path / "a.otio"
    assert main(["review", str(out), "-o", str(tmp_path / "a.html"), "--movie", str(movie), "--otio", str(otio)]) == 0
    assert movie.stat().st_size > 500 and json.loads(otio.read_text())["OTIO_SCHEMA"] == "Timeline.1"


def test_shots_of_a_tree_are_chosen_by_name(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "tree"
    for name in ("sc01/a", "sc01/b"):
        colored_shot(tmp_path / name, [RED]).rename(_below(tree / name))
    assert main(["review", str(tree), "--shot", "sc01/b", "--json"]) == 0
    assert [shot["shot"] for shot in json.loads(capsys.readouterr().out)["shots"]] == ["sc01/b"]
    assert main(["review", str(tree), "--shot", "sc01/c"]) == 2
    assert "there are sc01/a, sc01/b" in capsys.readouterr().err


def test_several_folders_are_one_page_and_keep_their_names(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = colored_shot(tmp_path / "b", [RED]).rename(tmp_path / "other")
    assert main(["review", str(out), str(other), "-o", str(tmp_path / "a.html"), "--json"]) == 0
    assert [shot["shot"] for shot in json.loads(capsys.readouterr().out)["shots"]] == ["out", "other"]


def _below(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (["nowhere"], 3, "there is no folder nowhere"),
        (["{out}", "-o", "page.png"], 2, "page.png is no HTML file"),
        (["{out}", "--movie", "walk.avi"], 2, "walk.avi is no kind of movie"),
        (["{out}", "--otio", "walk.xml"], 2, "walk.xml is no OpenTimelineIO file"),
        (["{out}", "--side-by-side"], 2, "--side-by-side is about a movie"),
        (["{out}", "{out}"], 2, "no place for their page"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    out: Path, capsys: pytest.CaptureFixture[str], asked: list[str], code: int, said: str
) -> None:
    assert main(["review", *[text.format(out=out) for text in asked]]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("option", "package"), [("--movie", "av"), ("--otio", "opentimelineio")])
def test_a_missing_extra_is_named_before_anything_is_measured(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str,
    package: str,
) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any, **named: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    target = tmp_path / ("a.mp4" if option == "--movie" else "a.otio")
    assert main(["review", str(out), "-o", str(tmp_path / "a.html"), option, str(target)]) == 2
    assert "pip install 'colorcli[review]'" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()


def test_a_folder_that_is_not_there_is_an_output_error(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["review", str(out), "-o", str(tmp_path / "nowhere" / "a.html")]) == 9
    assert "nowhere is no folder" in capsys.readouterr().err

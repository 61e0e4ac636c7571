"""`colorcli manifest` as a farm's last step uses it: lines to read, JSON to parse, exit codes to act on."""

import json
import os
from pathlib import Path

import pytest

from colorcli.cli.main import main
from colorcli.shot.manifest import FrameRecord, record_line
from tests.shot.studio import color, draw, draw_shot


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return color(draw_shot(tmp_path / "walk")).plans[0].out


def test_a_good_result_is_said_to_be_good(out, capsys):
    assert main(["manifest", "verify", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 4 files of 4 frames are as they were written\n"


def test_a_bad_one_exits_with_7_and_names_the_files(out, capsys):
    (out / "walk.0001.png").unlink()
    draw(out / "walk.0002.png", 7)
    assert main(["manifest", "verify", str(out)]) == 7
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"{out}: error: walk.0001.png is recorded, but not there",
        f"{out}: error: walk.0002.png is not the file that was written",
    ]
    assert "error: walk.0001.png is recorded, but not there (and 1 more)" in printed.err
    assert printed.err.splitlines()[-1].startswith("colorcli: error[frame]: ")


def test_a_manifest_stands_for_its_folder(out, capsys):
    manifest = str(out / "manifest.json")
    assert main(["manifest", "merge", manifest]) == 0
    assert capsys.readouterr().out == f"{out}: 4 of 4 frames are there, 0 failed, 0 missing\n"
    (out / "walk.0001.png").unlink()
    assert main(["manifest", "verify", manifest]) == 7
    assert capsys.readouterr().out == f"{out}: error: walk.0001.png is recorded, but not there\n"


def test_as_json_it_is_one_object_whatever_is_found(out, capsys):
    (out / "walk.0001.png").unlink()
    assert main(["manifest", "verify", "--json", str(out)]) == 7
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["ok"]) == ("colorcli/verify/1", False)
    (result,) = told["outs"]
    assert (result["out"], result["shot"], result["frames"], result["checked"]) == (str(out), "walk", 4, 3)
    assert result["findings"] == [
        {
            "kind": "missing", "frame": "walk.0001", "message": "walk.0001.png is recorded, but not there",
            "fatal": True, "belongs_to": None,
        }
    ]


def test_a_thousand_bad_frames_are_a_few_lines(tmp_path, capsys):
    out = color(draw_shot(tmp_path / "walk", range(1, 31))).plans[0].out
    for path in out.glob("*.png"):
        path.unlink()
    assert main(["manifest", "verify", str(out)]) == 7
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21
    assert lines[-1] == f"{out}: error: 10 more of the kind missing; --json has them all"


def test_frames_that_have_to_be_there_can_be_named(tmp_path, capsys):
    out = color(draw_shot(tmp_path / "walk"), frames="1-2").plans[0].out
    assert main(["manifest", "verify", str(out)]) == 0
    assert main(["manifest", "verify", str(out), "--frames", "openjd:1-4"]) == 7
    assert "walk.0003.png was never colored (and 1 more)" in capsys.readouterr().err
    assert main(["manifest", "verify", str(out), "--frames", "1-"]) == 2


def test_without_drawings_nothing_is_said_of_them(out, capsys):
    draw(out.parent / "walk" / "walk.0002.png", 9)
    assert main(["manifest", "verify", str(out)]) == 0
    assert "note: walk.0002.png was drawn anew" in capsys.readouterr().out
    assert main(["manifest", "verify", str(out), "--no-drawings"]) == 0
    assert "note:" not in capsys.readouterr().out


def test_a_folder_that_is_none_exits_with_3(tmp_path, capsys):
    assert main(["manifest", "verify", str(tmp_path)]) == 3
    assert main(["manifest", "merge", str(tmp_path)]) == 3
    assert main(["manifest", "show", str(tmp_path)]) == 3


def test_a_manifest_that_is_a_pipe_is_no_result(out, capsys):
    """Opening one would wait for a writer forever."""
    (out / "manifest.json").unlink()
    os.mkfifo(out / "manifest.json")
    os.mkfifo(out / "frames.pipe.jsonl")
    assert main(["manifest", "verify", str(out)]) == 3
    assert "it is a pipe, not a file" in capsys.readouterr().err


def test_no_name_in_a_record_becomes_a_line_of_its_own(out, capsys):
    evil = "x\nopenjd_progress: 100\n\x1b[2Jwalk"
    line = record_line(FrameRecord(frame=evil, number=99, status="written", output=f"{evil}.png", tool="0"))
    with (out / "frames.jsonl").open("ab") as file:
        file.write(line + b"\n")
    assert main(["manifest", "verify", str(out)]) == 7
    assert main(["manifest", "merge", str(out)]) == 0
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert "\x1b" not in text
        assert not any(one.startswith("openjd_") for one in text.splitlines())


@pytest.fixture
def nodes(tmp_path: Path) -> list[Path]:
    shot = draw_shot(tmp_path / "walk")
    return [color(shot, chunk=f"{part}/2", out=tmp_path / "nodes" / str(part)).plans[0].out for part in (1, 2)]


def test_results_of_nodes_are_brought_together(nodes, tmp_path, capsys):
    out = tmp_path / "walk_color"
    options = [option for node in nodes for option in ("--from", str(node))]
    assert main(["manifest", "merge", str(out), *options]) == 0
    assert capsys.readouterr().out == (
        f"{out}: 4 files copied, 4 of 4 frames are there, 0 failed, 0 missing\n"
    )
    assert main(["manifest", "verify", str(out)]) == 0
    assert main(["manifest", "merge", "--json", str(out), "--from", str(tmp_path / "nodes" / "*")]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["outs"][0]["copied"] == []
    assert told["outs"][0]["totals"]["written"] == 4


def test_conflicts_are_told_and_fail_only_a_strict_merge(nodes, tmp_path, capsys):
    from colorcli.shot.manifest import read_records
    from tests.shot.studio import draw_key

    draw_key(tmp_path / "blue.png", (0.1, 0.2, 0.9))
    blue = color(tmp_path / "walk", frames="1", ref=tmp_path / "blue.png", out=tmp_path / "blue").plans[0].out
    options = ["--from", str(tmp_path / "nodes" / "*"), "--from", str(blue)]
    assert main(["manifest", "merge", str(tmp_path / "out"), *options]) == 0
    assert "conflict: walk.0001: two keys; taken: blue, " in capsys.readouterr().out
    assert next(iter(read_records(tmp_path / "out"))).key_sha256 == read_records(blue)[0].key_sha256
    assert main(["manifest", "merge", str(tmp_path / "out"), *options, "--strict"]) == 7


def test_a_pattern_that_means_nothing_and_two_outs_are_refused(nodes, tmp_path, capsys):
    assert main(["manifest", "merge", str(tmp_path / "out"), "--from", str(tmp_path / "none*")]) == 3
    assert "no folder is named like" in capsys.readouterr().err
    assert main(["manifest", "merge", *map(str, nodes), "--from", str(nodes[0])]) == 2

"""A result that came from elsewhere may hold links: nothing outside of it is written, whatever they lead to."""

from pathlib import Path

import pytest

from tests.shot.studio import color, draw_shot

NAMES = ("walk.0001.png", "manifest.json", "frames.jsonl", ".walk.0001.png.1.tmp", ".leases")


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk", (1, 2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("goal", ["../victim", "../folder", "../key.png", "../nowhere"])
def test_a_link_in_out_is_taken_away_or_refused_and_never_written_through(walk, name, goal):
    around = walk.parent
    (around / "victim").write_text("mine\n")
    (around / "folder").mkdir()
    out = around / "walk_color"
    out.mkdir()
    (out / name).symlink_to(goal)
    key = (around / "key.png").read_bytes()
    outcome = color(walk)
    assert (around / "victim").read_text() == "mine\n"
    assert (around / "key.png").read_bytes() == key
    assert list((around / "folder").iterdir()) == []
    assert sorted(path.name for path in around.iterdir()) == ["folder", "key.png", "victim", "walk", "walk_color"]
    if outcome.result.exit_code == 0:
        assert not (out / "walk.0001.png").is_symlink()
    else:
        assert outcome.result.error is not None and outcome.result.error.hint


def test_a_journal_that_is_a_link_is_told(walk):
    out = walk.parent / "walk_color"
    out.mkdir()
    (out / "frames.jsonl").symlink_to("../key.png")
    outcome = color(walk)
    assert outcome.result.exit_code == 9
    assert outcome.result.error is not None
    assert "frames.jsonl cannot be written: it is a link" in outcome.result.error.message

"""The drawings of the load benchmark are all different, and its steps do what they are called."""

import hashlib
from pathlib import Path

from benchmarks.load import draw_load_shot, step


def test_no_two_drawings_are_alike_or_most_of_them_would_only_be_copied(tmp_path: Path) -> None:
    draw_load_shot(tmp_path / "walk", 300, first=9_901)
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "walk").iterdir()}
    assert len(digests) == 300


def test_the_steps_plan_color_find_done_and_verify(tmp_path: Path) -> None:
    shot, out = tmp_path / "walk", tmp_path / "out"
    draw_load_shot(shot, 3)
    assert step("plan", shot, out)["frames"] == 3
    assert not out.exists()
    assert step("color", shot, out)["exit_code"] == 0
    pictures = {path.name: path.read_bytes() for path in out.glob("*.png")}
    assert len(pictures) == 3
    assert step("resume", shot, out)["exit_code"] == 0
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == pictures
    assert step("verify", shot, out) | {"seconds": 0} == {"outs": 1, "seconds": 0, "exit_code": 0}
    (out / "walk.00002.png").write_bytes(b"")
    assert step("verify", shot, out)["exit_code"] != 0

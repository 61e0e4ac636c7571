"""Planning: all names checked before anything is loaded, and said in words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from colorcli.errors import KeyImageError, OutputError, ShotError, UsageError
from colorcli.presets import OutputSettings, Preset
from colorcli.shot.plan import ShotPlan, ShotRequest, plan_shots, survey_shots
from tests.shot.studio import draw, draw_key, draw_shot


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk")


def plan(shot: Path | str, **asked) -> ShotPlan:
    asked.setdefault("refs", (str(Path(shot).parent / "key.png"),))
    (one,) = plan_shots(ShotRequest((str(shot),), **asked))
    return one


def messages(plan: ShotPlan, kind: str) -> list[str]:
    return [problem.message for problem in plan.problems if problem.kind == kind]


def test_the_colors_go_beside_the_shot_under_the_same_names(walk):
    one = plan(walk)
    assert one.out == walk.parent / "walk_color"
    assert one.first_and_last == (one.out / "walk.0001.png", one.out / "walk.0004.png")
    assert not one.problems


def test_planning_writes_nothing(walk):
    before = sorted(walk.parent.rglob("*"))
    plan(walk)
    assert sorted(walk.parent.rglob("*")) == before


def test_a_shot_given_as_a_dot_is_called_by_its_real_name(walk, monkeypatch):
    monkeypatch.chdir(walk)
    (one,) = plan_shots(ShotRequest((".",), ("../key.png",)))
    assert one.name == "walk"
    assert one.out == walk.parent / "walk_color"


def test_a_tree_is_mirrored_under_out(tmp_path):
    for name in ("sc1/a", "sc1/b", "sc2"):
        draw_shot(tmp_path / "film" / name, (1, 2))
    for keys in (tmp_path / "film").rglob("key.png"):
        keys.unlink()
    draw_key(tmp_path / "key.png")
    plans = plan_shots(ShotRequest((str(tmp_path / "film"),), (str(tmp_path / "key.png"),), tmp_path / "out"))
    assert [one.out.relative_to(tmp_path).as_posix() for one in plans] == ["out/sc1/a", "out/sc1/b", "out/sc2"]


def test_several_shots_get_a_folder_each_under_out(tmp_path):
    shots = [draw_shot(tmp_path / name) for name in ("a", "b")]
    request = ShotRequest(tuple(str(shot) for shot in shots), (str(tmp_path / "key.png"),), tmp_path / "out")
    assert [one.out.name for one in plan_shots(request)] == ["a", "b"]


def test_two_shots_of_one_name_cannot_share_an_out(tmp_path):
    for name in ("a/line", "b/line"):
        draw_shot(tmp_path / name)
    shots = (str(tmp_path / "a/line"), str(tmp_path / "b/line"))
    with pytest.raises(UsageError, match="would both become"):
        plan_shots(ShotRequest(shots, (str(tmp_path / "a/key.png"),), tmp_path / "out"))


@pytest.mark.parametrize("where", [".", "color", "../walk", "deep/er"])
def test_out_in_the_shot_is_refused(walk, where):
    with pytest.raises(UsageError, match="OUT"):
        plan(walk, out=walk / where)


def test_out_in_the_shot_is_found_through_links(walk):
    link = walk.parent / "link"
    link.symlink_to(walk)
    with pytest.raises(UsageError, match="OUT"):
        plan(walk, out=link)


def test_out_that_is_another_input_is_refused(tmp_path):
    a, b = draw_shot(tmp_path / "a"), draw_shot(tmp_path / "b")
    with pytest.raises(UsageError):
        plan_shots(ShotRequest((str(a), str(b)), (str(tmp_path / "key.png"),), tmp_path))


def test_an_output_never_takes_the_place_of_a_mask(walk, tmp_path):
    draw(tmp_path / "masks" / "walk.0001.png")
    with pytest.raises(UsageError, match="it is an input"):
        plan(walk, out=tmp_path / "masks", masks=(tmp_path / "masks",))


def test_out_that_is_a_file_is_refused(walk, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        plan(walk, out=tmp_path / "out")
    with pytest.raises(OutputError, match="is a file"):
        plan(walk, out=tmp_path / "out" / "deeper")


def test_out_that_cannot_be_written_is_refused(walk, tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    real = os.access
    # Root may write anywhere, so the answer of the system is played.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked" and real(path, mode))
    with pytest.raises(OutputError, match="locked cannot be written"):
        plan(walk, out=tmp_path / "locked" / "new")


def test_a_key_beside_the_frames_is_used_if_none_is_given(walk):
    with pytest.raises(KeyImageError, match="has no key"):
        plan(walk, refs=())
    draw_key(walk / "key.png")
    assert plan(walk, refs=()).keys == (walk / "key.png",)


def test_the_key_itself_is_no_frame_whatever_it_is_called(walk):
    one = plan(walk, refs=(str(walk / "walk.0003.png"),))
    assert [job.number for job in one.jobs] == [1, 2, 4]


def test_a_pattern_gives_each_shot_its_own_key(tmp_path):
    for name in ("film/sc1/a", "film/sc1/b"):
        draw_shot(tmp_path / name)
        (tmp_path / name).parent.joinpath("key.png").unlink()
    draw_key(tmp_path / "keys" / "a.png")
    draw_key(tmp_path / "keys" / "sc1" / "b.png")
    plans = plan_shots(ShotRequest((str(tmp_path / "film"),), (str(tmp_path / "keys/{shot}.png"),)))
    assert [one.keys[0].relative_to(tmp_path / "keys").as_posix() for one in plans] == ["a.png", "sc1/b.png"]


def test_keys_that_lie_in_the_tree_are_no_shot(tmp_path):
    film = tmp_path / "film"
    draw_shot(film / "a")
    (film / "key.png").unlink()
    draw_key(film / "keys" / "a.png")
    draw_key(film / "keys" / "of_another_shot.png")
    plans = plan_shots(ShotRequest((str(film),), (str(film / "keys/{shot}.png"),)))
    assert [one.name for one in plans] == ["a"]


def test_a_missing_key_is_named_with_its_shot(walk):
    with pytest.raises(KeyImageError, match=r"there is no key .*nobody\.png for the shot walk"):
        plan(walk, refs=(str(walk.parent / "nobody.png"),))


def test_a_key_that_is_no_picture_is_refused(walk, tmp_path):
    (tmp_path / "bad.png").write_text("not a picture")
    with pytest.raises(KeyImageError, match=r"bad\.png is no picture"):
        plan(walk, refs=(str(tmp_path / "bad.png"),))


def test_a_folder_of_keys_is_all_of_its_pictures(walk, tmp_path):
    for name in ("side.png", "front.png", ".trash.png"):
        draw_key(tmp_path / "hero" / name)
    (tmp_path / "hero" / "notes.txt").write_text("the coat is darker at night")
    assert [key.name for key in plan(walk, refs=(str(tmp_path / "hero"),)).keys] == ["front.png", "side.png"]


def test_a_folder_of_keys_for_each_shot(tmp_path):
    draw_shot(tmp_path / "film" / "a")
    draw_key(tmp_path / "keys" / "a" / "front.png")
    draw_key(tmp_path / "keys" / "a" / "side.png")
    (one,) = plan_shots(ShotRequest((str(tmp_path / "film"),), (str(tmp_path / "keys" / "{shot}"),)))
    assert [key.name for key in one.keys] == ["front.png", "side.png"]


def test_a_folder_of_keys_in_the_tree_is_no_shot(tmp_path):
    film = tmp_path / "film"
    draw_shot(film / "a")
    for number in (1, 2):
        draw_key(film / "hero" / f"hero.{number:04d}.png")
    assert [one.name for one in plan_shots(ShotRequest((str(film),), (str(film / "hero"),)))] == ["a"]


def test_a_folder_that_holds_no_keys_or_those_of_other_shots_is_refused(walk, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeyImageError, match="folder without pictures"):
        plan(walk, refs=(str(tmp_path / "empty"),))
    for name in ("walk.png", "run.png"):
        draw_key(tmp_path / "keys" / name)
    with pytest.raises(KeyImageError, match="of several shots") as caught:
        plan(walk, refs=(str(tmp_path / "keys"),))
    assert caught.value.hint is not None and "{shot}.png" in caught.value.hint
    for number in range(17):
        draw_key(tmp_path / "frames" / f"run.{number}.png")
    with pytest.raises(KeyImageError, match="17 pictures"):
        plan(walk, refs=(str(tmp_path / "frames"),))


def test_frames_are_chosen_by_number(walk):
    assert [job.number for job in plan(walk, frames="2-3,9").jobs] == [2, 3]
    assert messages(plan(walk, frames="2-3,9"), "missing") == ["1 frame is missing: walk.9"]


def test_a_range_outside_the_shot_names_what_exists(walk):
    with pytest.raises(ShotError, match=r"has no frame of 200-300; it has 1-4") as caught:
        plan(walk, frames="200-300")
    assert caught.value.hint is not None and "1-4" in caught.value.hint


def test_in_a_tree_only_the_shots_that_have_the_frames_are_colored(tmp_path):
    draw_shot(tmp_path / "film" / "a", (1, 2))
    draw_shot(tmp_path / "film" / "b", (101, 102))
    plans = plan_shots(ShotRequest((str(tmp_path / "film"),), (str(tmp_path / "film/key.png"),), frames="1-12"))
    assert [(one.name, len(one.jobs)) for one in plans] == [("a", 2), ("b", 0)]
    assert messages(plans[1], "range") == ["b has no frame of 1-12; it has 101-102"]


def test_gaps_are_named(walk):
    (walk / "walk.0002.png").unlink()
    assert messages(plan(walk), "missing") == ["1 frame is missing: walk.2"]


def test_each_gap_belongs_to_exactly_one_chunk(tmp_path):
    walk = draw_shot(tmp_path / "walk", (1, 2, 5, 6, 9))
    gaps = [gap.number for index in (1, 2, 3) for gap in plan(walk, chunk=f"{index}/3").missing]
    assert gaps == [3, 4, 7, 8]


def test_chunks_and_ranges_write_journals_of_their_own(walk):
    names = {plan(walk, **asked).journal_name for asked in ({}, {"chunk": "1/2"}, {"frames": "1-2"}, {"frames": "1,2"})}
    assert names == {"frames.jsonl", "frames.chunk1of2.jsonl", "frames.1-2.jsonl", "frames.1_2.jsonl"}
    long = ",".join(str(number) for number in range(1, 400))
    assert len(plan(walk, frames=long).journal_name) < 120


def test_ranges_too_long_for_a_file_name_still_get_journals_of_their_own(walk):
    long = ",".join(str(number) for number in range(1, 400))
    assert plan(walk, frames=long).journal_name != plan(walk, frames=long.replace("399", "500")).journal_name


def test_a_frame_of_another_size_is_named(walk):
    draw(walk / "walk.0003.png", 3, size=(48, 32))
    assert messages(plan(walk), "size") == ["walk.0003.png is 48x32, but this shot is 96x64"]


def test_each_layer_of_a_folder_may_have_its_own_size(walk):
    for number in (1, 2):
        draw(walk / f"background{number}.png", number, size=(200, 64))
    assert not messages(plan(walk), "size")


def test_frames_that_cannot_be_read_are_listed_and_stay_in_the_plan(walk):
    (walk / "walk.0002.png").write_bytes(b"")
    (walk / "walk.0003.png").write_text("this is text")
    one = plan(walk)
    assert len(one.jobs) == 4
    assert [job.size is None for job in one.jobs] == [False, True, True, False]
    empty, text = messages(one, "frame")
    assert "walk.0002.png is empty" in empty
    assert "walk.0003.png is no picture" in text


def test_a_format_gives_the_extension_that_belongs_to_it(walk):
    draw(walk / "walk.0005.tga", 5)
    one = plan(walk, preset=Preset(output=OutputSettings(format="exr-half")))
    assert {job.output.suffix for job in one.jobs} == {".exr"}
    same = plan(walk)
    assert [job.output.name for job in same.jobs][-2:] == ["walk.0004.png", "walk.0005.tga"]


def test_frames_that_would_get_one_name_are_refused(walk):
    draw(walk / "title.png")
    draw(walk / "title.tga")
    assert len(plan(walk).jobs) == 6
    with pytest.raises(UsageError, match=r"title\.png and .*title\.tga would both become .*title\.tga"):
        plan(walk, preset=Preset(output=OutputSettings(format="tga")))


def test_masks_are_found_by_name_and_by_number(walk, tmp_path):
    draw(tmp_path / "hero" / "walk.0001.png")
    draw(tmp_path / "hero" / "mask_2.tga")
    draw(tmp_path / "hero" / "key.png")
    one = plan(walk, masks=(tmp_path / "hero",))
    assert [[mask.name for mask in job.masks] for job in one.jobs] == [["walk.0001.png"], ["mask_2.tga"], [], []]
    assert [mask.name for mask in one.key_masks] == ["key.png"]
    assert len(messages(one, "mask")) == 2


def test_masks_in_a_tree_follow_the_tree(tmp_path):
    draw_shot(tmp_path / "film" / "a", (1,))
    draw_shot(tmp_path / "film" / "b", (1,))
    for name in ("a", "b"):
        draw(tmp_path / "masks" / name / "m.0001.png")
    request = ShotRequest((str(tmp_path / "film"),), (str(tmp_path / "film/key.png"),), masks=(tmp_path / "masks",))
    assert [one.jobs[0].masks[0].parent.name for one in plan_shots(request)] == ["a", "b"]


def test_a_folder_of_masks_that_is_not_there_is_named(walk, tmp_path):
    with pytest.raises(UsageError, match="no folder of masks"):
        plan(walk, masks=(tmp_path / "nowhere",))


def test_a_survey_lists_what_is_wrong_with_every_shot(tmp_path):
    good = draw_shot(tmp_path / "good")
    (tmp_path / "empty").mkdir()
    survey = survey_shots(
        ShotRequest((str(tmp_path / "empty"), str(good), str(tmp_path / "nowhere")), (str(tmp_path / "key.png"),))
    )
    assert [one.name for one in survey.plans] == ["good"]
    assert len(survey.errors) == 2


def test_planning_does_not_load_torch():
    program = "import sys, colorcli.shot.run, colorcli.shot.preview; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

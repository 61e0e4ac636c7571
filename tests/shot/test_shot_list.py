"""Shot lists: what a file says, as seen from the working folder, and what is refused with its line."""

from pathlib import Path

import pytest

from colorcli.errors import PresetError
from colorcli.shot.shot_list import ListedShot, is_shot_list, read_shot_list


def written(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "shots.yaml"
    file.write_text(text)
    return file


def test_a_shot_takes_from_the_list_what_it_does_not_say_itself(tmp_path: Path) -> None:
    file = written(
        tmp_path / "ep01",
        """
        ref: keys/{shot}.png
        out: ../renders
        preset: night.yaml
        set: sampling.steps=2
        shots:
          - shot: sc01/c001
          - shot: sc01/c002
            ref: [keys/front.png, keys/side.png]
            frames: 1-24
            masks: masks/c002
            preset: soft
            set: [finish.palette=off]
            out: /fast/c002
          - {shot: /elsewhere/c003, frames: 7}
        """,
    )
    ep = tmp_path / "ep01"
    assert read_shot_list(file) == [
        ListedShot(
            str(ep / "sc01/c001"), (str(ep / "keys/{shot}.png"),), ep / "../renders/sc01/c001", None, (),
            str(ep / "night.yaml"), ("sampling.steps=2",),
        ),
        ListedShot(
            str(ep / "sc01/c002"), (str(ep / "keys/front.png"), str(ep / "keys/side.png")), Path("/fast/c002"), "1-24",
            (str(ep / "masks/c002"),), "soft", ("sampling.steps=2", "finish.palette=off"),
        ),
        ListedShot(
            "/elsewhere/c003", (str(ep / "keys/{shot}.png"),), ep / "../renders/c003", "7", (), str(ep / "night.yaml"),
            ("sampling.steps=2",),
        ),
    ]  # fmt: skip


def test_a_list_that_names_shots_alone_leaves_the_rest_to_the_command_line(tmp_path: Path) -> None:
    (one,) = read_shot_list(written(tmp_path, "shots: [{shot: walk}]"))
    assert one == ListedShot(str(tmp_path / "walk"), (), None, None, (), None, ())


@pytest.mark.parametrize("shot", ["../outside", "/outside", "a/../../outside"])
def test_no_shot_leads_out_of_the_folder_for_all(shot: str, tmp_path: Path) -> None:
    (one,) = read_shot_list(written(tmp_path, f"out: renders\nshots: [{{shot: {shot}}}]"))
    assert one.out == tmp_path / "renders" / "outside"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no shot"),
        ("- sc01", "must hold settings"),
        ("shots: []", "names no shot"),
        ("\nshotz: [{shot: a}]", "shots.yaml:2"),
        ("shots: [a, b]", "entry 1"),
        ("shots:\n  - {shot: a, reff: b}", "reff"),
        ("shots:\n  - {ref: a.png}", "has no shot"),
        ("shots:\n  - {shot: [a]}", "shot"),
        ("shots:\n  - {shot: a}\n  - {shot: b}\n  - {shot: a}", "entries 1 and 3"),
        ("shots: &all [{shot: a}, *all]", ""),
        ("shots: !!python/object/apply:os.system [ls]", "tag"),
    ],
)
def test_what_is_no_list_is_refused_in_words(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(PresetError) as caught:
        read_shot_list(written(tmp_path, text))
    assert "shots.yaml" in caught.value.message and says in caught.value.message and caught.value.hint


def test_one_shot_may_be_listed_in_two_parts(tmp_path: Path) -> None:
    file = written(tmp_path, "shots: [{shot: a, frames: 1-10}, {shot: a, frames: 11-20, set: sampling.steps=2}]")
    assert [one.frames for one in read_shot_list(file)] == ["1-10", "11-20"]


def test_only_a_file_of_settings_is_taken_for_a_list(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").mkdir()
    assert is_shot_list("ep01/shots.yaml") and is_shot_list("SHOTS.YML")
    assert not is_shot_list(str(tmp_path / "odd.yaml")) and not is_shot_list("walk.####.png")

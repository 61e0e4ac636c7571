"""What `verify` finds: every way in which a result can be something else than what was written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from colorcli.errors import ShotError
from colorcli.presets import LayerSettings, Preset, SamplingSettings
from colorcli.shot.frames import FrameRange
from colorcli.shot.manifest import FrameRecord, read_manifest, read_records, record_line, write_manifest
from colorcli.shot.verify import Expected, Finding, verify, verify_all
from tests.shot.studio import MODEL, FakeColorizer, color, draw, draw_key, draw_shot, drawing

SEED_9 = Preset(sampling=SamplingSettings(seed=9))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return color(draw_shot(tmp_path / "walk")).plans[0].out


def found(findings: list[Finding]) -> set[tuple[str, str, bool]]:
    return {(finding.kind, finding.frame, finding.fatal) for finding in findings}


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def edit_line(journal: Path, frame: str, change: Callable[[bytes], bytes]) -> None:
    """Change one record's line as somebody with an editor would."""
    lines = [change(line) if f'"{frame}"'.encode() in line else line for line in journal.read_bytes().splitlines(True)]
    journal.write_bytes(b"".join(lines))


def test_nothing_is_found_in_a_good_result(out):
    assert verify(out) == []


def test_a_result_that_was_resumed_and_one_with_neighbors_are_good(tmp_path):
    from colorcli.presets import SteadySettings, WarmStartSettings

    for group in ({"steady": SteadySettings(on=True)}, {"warm_start": WarmStartSettings(on=True)}):
        shot = draw_shot(tmp_path / next(iter(group)) / "walk", (1, 2, 3, 4, 5))
        shutil.copy(shot / "walk.0002.png", shot / "walk.0003.png")
        for frames in ("1-3", None, None):
            out = color(shot, preset=Preset(**group), frames=frames).plans[0].out
        assert verify(out) == []


def test_files_that_are_gone_altered_or_unknown_and_torn_lines(out):
    (out / "walk.0001.png").unlink()
    draw(out / "walk.0002.png", 7)
    draw(out / "walk.0009.png", 7)
    (out / ".walk.0003.png.123.tmp").write_bytes(b"half a pic")
    with (out / "frames.jsonl").open("a") as file:
        file.write('{"frame": "walk.00')
    assert found(verify(out)) == {
        ("missing", "walk.0001", True), ("altered", "walk.0002", True), ("stray", "walk.0009", False),
        ("stray", ".walk.0003.png.123", False), ("journal", "", False),
    }


def test_a_single_changed_byte_is_found(out):
    path = out / "walk.0003.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert found(verify(out)) == {("altered", "walk.0003", True)}


def test_frames_of_other_settings_are_found_and_the_difference_is_told(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    color(shot)
    out = color(shot, frames="1-2", preset=SEED_9).plans[0].out
    findings = verify(out)
    assert found(findings) == {("settings", "walk.0003", True), ("settings", "walk.0004", True)}
    assert findings[0].message == "walk.0003.png was colored with other settings: sampling.seed 7, not 9"


def test_frames_of_other_weights_are_found(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    color(shot)
    out = color(shot, frames="1-2", model=MODEL.model_copy(update={"sha256": "cd" * 32})).plans[0].out
    findings = verify(out)
    assert {(finding.kind, finding.frame) for finding in findings} == {
        ("weights", "walk.0003"), ("weights", "walk.0004"),
    }
    assert "mini abababababab, not mini cdcdcdcdcdcd" in findings[0].message


def test_frames_of_another_version_of_the_method_are_found(tmp_path, monkeypatch):
    from colorcli.shot import engine, run_manifest

    shot = draw_shot(tmp_path / "walk")
    with monkeypatch.context() as old:
        for module in (engine, run_manifest):
            old.setattr(module, "METHOD_VERSION", "1")
        out = color(shot).plans[0].out
        assert verify(out)[0].kind == "version"   # all of them: this colorcli would color them anew
        assert not verify(out)[0].fatal
    out = color(shot, frames="1-2").plans[0].out
    assert found(verify(out)) == {("version", "walk.0003", True), ("version", "walk.0004", True)}


def test_frames_from_another_key_are_found(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    color(shot)
    draw_key(tmp_path / "blue.png", (0.1, 0.2, 0.9))
    out = color(shot, frames="1-2", ref=tmp_path / "blue.png").plans[0].out
    assert found(verify(out)) == {("key", "walk.0003", True), ("key", "walk.0004", True)}


def test_a_key_among_the_drawings_is_none_that_was_never_colored(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    key = draw_key(shot / "walk.0009.png")
    out = color(shot, ref=key).plans[0].out
    assert not (out / key.name).exists()
    assert verify(out) == []


def test_pictures_that_changed_names_within_a_shot(out):
    swap(out / "walk.0001.png", out / "walk.0003.png")
    assert {(finding.kind, finding.frame, finding.belongs_to) for finding in verify(out)} == {
        ("swapped", "walk.0001", "walk.0003.png"), ("swapped", "walk.0003", "walk.0001.png"),
    }


def test_a_held_drawing_is_not_taken_for_a_swapped_one(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    shutil.copy(shot / "walk.0001.png", shot / "walk.0002.png")
    out = color(shot).plans[0].out
    assert (out / "walk.0001.png").read_bytes() == (out / "walk.0002.png").read_bytes()
    assert verify(out) == []


@pytest.fixture
def two_shots(tmp_path: Path) -> tuple[Path, Path]:
    """OUT of two shots of one character with frames of the same names."""
    outs = []
    for name, numbers in {"sc01": (1, 2, 3), "sc02": (4, 5, 6)}.items():
        for place, number in enumerate(numbers, 1):
            draw(tmp_path / name / f"A{place:04d}.png", number)
        draw_key(tmp_path / "key.png")
        outs.append(color(tmp_path / name).plans[0].out)
    return outs[0], outs[1]


def test_pictures_swapped_between_shots_are_found_with_their_owner(two_shots):
    one, other = two_shots
    swap(one / "A0002.png", other / "A0002.png")
    for out, owner in ((one, "sc02"), (other, "sc01")):
        (finding,) = verify(out)
        assert (finding.kind, finding.frame, finding.fatal) == ("swapped", "A0002", True)
        assert finding.message == f"A0002.png is A0002.png of the shot {owner} (in {owner}_color)"


def test_a_picture_that_came_with_its_record_from_another_shot(two_shots):
    one, other = two_shots
    lines = (other / "frames.jsonl").read_bytes().splitlines(True)
    (line,) = [line for line in lines if b'"A0002"' in line]
    edit_line(one / "frames.jsonl", "A0002", lambda _: line)
    shutil.copy(other / "A0002.png", one / "A0002.png")
    (finding,) = [finding for finding in verify(one) if finding.fatal]
    assert (finding.kind, finding.frame) == ("swapped", "A0002")
    assert "of the shot sc02" in finding.message


def test_results_that_changed_places_as_a_whole(two_shots):
    one, other = two_shots
    swap(one, other)
    assert found(verify(one)) == {("swapped", "", True)}
    assert found(verify(other)) == {("swapped", "", True)}


def test_a_result_that_was_only_renamed_is_noted(out):
    moved = out.rename(out.with_name("final"))
    assert found(verify(moved)) == {("manifest", "", False)}


def test_drawings_and_keys_that_changed_are_noted(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    out = color(shot).plans[0].out
    draw(shot / "walk.0002.png", 9)
    (shot / "walk.0003.png").unlink()
    draw_key(tmp_path / "key.png", (0.1, 0.2, 0.9))
    findings = verify(out)
    assert found(findings) == {("changed", "walk.0002", False), ("changed", "walk.0003", False), ("changed", "", False)}
    assert any("the key ../key.png" in finding.message for finding in findings)
    assert verify(out, Expected(drawings=False)) == []


def test_a_drawing_that_is_gone_does_not_hide_what_happened_to_its_picture(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    out = color(shot).plans[0].out
    for number in (1, 2, 3):
        (shot / f"walk.000{number}.png").unlink()
    draw(out / "walk.0002.png", 9)
    (out / "walk.0003.png").unlink()   # who takes a drawing out of a shot takes its picture as well
    assert found(verify(out)) == {
        ("changed", "walk.0001", False),
        ("changed", "walk.0002", False), ("altered", "walk.0002", True),
        ("changed", "walk.0003", False), ("missing", "walk.0003", False),
    }


def test_files_are_counted_that_were_compared(tmp_path):
    preset = Preset(layers=LayerSettings(names=("flat",)))
    shot = draw_shot(tmp_path / "walk", (1, 2, 3))
    out = color(shot, preset=preset).plans[0].out
    assert [report.checked for report in verify_all([out])] == [6]
    (out / "walk.0001.png").unlink()
    (out / "layers/flat/walk.0002.png").write_bytes(b"painted over")
    (shot / "walk.0003.png").unlink()
    assert [report.checked for report in verify_all([out])] == [5]


def test_a_drawing_or_key_that_cannot_be_read_any_more_is_noted_with_the_reason(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    out = color(shot).plans[0].out
    (shot / "walk.0002.png").write_bytes(b"")
    (tmp_path / "key.png").write_bytes(b"no picture")
    findings = {finding.frame: finding for finding in verify(out)}
    assert not any(finding.fatal for finding in findings.values())
    assert findings["walk.0002"].message == "walk.0002.png cannot be compared: walk.0002.png is empty (0 bytes)"
    assert findings[""].message.startswith("the key ../key.png cannot be compared: key.png is no picture")


def test_a_drawing_that_was_only_saved_again_is_the_same(tmp_path):
    import cv2
    import numpy as np

    shot = draw_shot(tmp_path / "walk")
    out = color(shot).plans[0].out
    before = (shot / "walk.0002.png").read_bytes()
    pixels = np.round(drawing(2) * 255).astype(np.uint8)
    cv2.imwrite(str(shot / "walk.0002.png"), pixels[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert (shot / "walk.0002.png").read_bytes() != before
    assert verify(out) == []


def test_drawings_that_are_not_here_are_noted_once(out):
    shutil.rmtree(out.parent / "walk")
    assert found(verify(out)) == {("changed", "", False)}


def test_a_part_of_the_shot_that_never_ran_is_found(tmp_path):
    shot = draw_shot(tmp_path / "walk", range(1, 7))
    color(shot, chunk="1/3")
    out = color(shot, chunk="3/3").plans[0].out
    assert found(verify(out)) == {("uncolored", "walk.0003", True), ("uncolored", "walk.0004", True)}


def test_frames_that_nobody_asked_for_are_only_noted_unless_one_says_so(tmp_path):
    out = color(draw_shot(tmp_path / "walk"), frames="1-2").plans[0].out
    assert found(verify(out)) == {("uncolored", "walk.0003", False), ("uncolored", "walk.0004", False)}
    assert found(verify(out, Expected(FrameRange.parse("1-3")))) == {
        ("uncolored", "walk.0003", True), ("uncolored", "walk.0004", False),
    }


def test_of_a_named_sequence_the_others_in_the_folder_do_not_matter(tmp_path):
    draw_shot(tmp_path / "walk")
    draw_shot(tmp_path / "walk", (1, 2), "run.{:04d}.png")
    out = color(tmp_path / "walk" / "run.####.png", ref=tmp_path / "key.png").plans[0].out
    assert verify(out) == []


def test_a_failed_frame_is_found(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    (shot / "walk.0002.png").write_bytes(b"")
    out = color(shot).plans[0].out
    assert found(verify(out)) == {("failed", "walk.0002", True)}


def test_a_gap_is_noted(tmp_path):
    out = color(draw_shot(tmp_path / "walk", (1, 2, 4))).plans[0].out
    assert found(verify(out)) == {("gap", "walk.3", False)}


# --- changed by hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b'"seed":7', b'"seed":8'),
        lambda line: line.replace(b'"status":"written"', b'"status":"held"'),
        lambda line: line.replace(b'"output":"walk.0002.png"', b'"output":"walk.0003.png"'),
        lambda line: line.replace(b'"finished":"20', b'"finished":"99'),
        lambda line: line[: line.index(b',"sum"')] + b"}\n",
    ],
    ids=["seed", "status", "output", "time", "without its sum"],
)
def test_a_record_that_was_changed_by_hand_is_found_and_its_frame_colored_again(out, change):
    edit_line(out / "frames.jsonl", "walk.0002", change)
    (finding,) = [finding for finding in verify(out) if finding.fatal]
    assert (finding.kind, finding.frame) == ("edited", "walk.0002")
    assert "of frames.jsonl, of walk.0002, was changed by hand" in finding.message
    assert color(out.parent / "walk").colored == ["walk.0002"]
    assert [finding.fatal for finding in verify(out) if finding.kind == "edited"] in ([], [False])


def test_a_picture_that_was_painted_over_is_found_even_if_its_record_was_mended(out):
    from colorcli.files import file_digest

    before = file_digest(out / "walk.0002.png").encode()
    draw(out / "walk.0002.png", 7)
    after = file_digest(out / "walk.0002.png").encode()
    edit_line(out / "frames.jsonl", "walk.0002", lambda line: line.replace(before, after))
    assert ("edited", "walk.0002", True) in found(verify(out))


def test_a_record_whose_parts_do_not_go_together_is_found_even_with_a_right_sum(out):
    journal = out / "frames.jsonl"
    records = [json.loads(line) for line in journal.read_bytes().splitlines()]
    next(record for record in records if record["number"] == 2)["pixels_sha256"] = "0" * 64
    journal.write_bytes(b"".join(record_line(FrameRecord.model_validate(record)) + b"\n" for record in records))
    assert found(verify(out)) == {("edited", "walk.0002", True)}


@pytest.mark.parametrize(
    ("before", "after"), [('"seed": 7', '"seed": 8'), ('"license": "Apache-2.0"', '"license": "MIT"'), ('"cel"', '"x"')]
)
def test_a_manifest_that_was_changed_by_hand_is_found(out, before, after):
    path = out / "manifest.json"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    assert found(verify(out)) == {("edited", "", True)}
    color(out.parent / "walk")
    assert verify(out) == []


def test_a_manifest_that_was_only_laid_out_anew_is_the_same(out):
    path = out / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert verify(out) == []


@pytest.mark.parametrize("name", ["../key.png", "/etc/hostname", "..", ".", "", "a/b.png", "a\0b.png"])
def test_names_that_lead_out_of_the_folder_are_not_followed(out, name):
    line = record_line(FrameRecord(frame="x", number=77, status="written", output=name, output_sha256="0" * 64))
    with (out / "frames.jsonl").open("ab") as file:
        file.write(line + b"\n")
    findings = verify(out)
    assert found(findings) == {("edited", "x", True)}
    assert "outside of its folder" in findings[0].message


def test_a_record_cannot_make_a_run_copy_a_file_from_elsewhere(tmp_path):
    """A held drawing repeats an earlier frame's file; a record that names another file is no such frame."""
    from colorcli.files import file_digest

    shot = draw_shot(tmp_path / "walk", (1,))
    out = color(shot).plans[0].out
    secret = draw(tmp_path / "secret.png", 8)
    stolen = json.loads((out / "frames.jsonl").read_bytes()) | {
        "frame": "x", "number": 77, "output": "../secret.png", "output_sha256": file_digest(secret),
    }
    (out / "frames.jsonl").write_bytes(record_line(FrameRecord.model_validate(stolen)) + b"\n")
    shutil.copy(shot / "walk.0001.png", shot / "walk.0002.png")
    assert color(shot, overwrite=False).colored == ["walk.0001"]
    assert (out / "walk.0002.png").read_bytes() == (out / "walk.0001.png").read_bytes() != secret.read_bytes()


def test_two_frames_with_one_file_are_found(out):
    journal = out / "frames.jsonl"
    record = FrameRecord.model_validate_json(journal.read_bytes().splitlines()[0])
    with journal.open("ab") as file:
        file.write(record_line(record.model_copy(update={"number": 8, "frame": "walk.0008"})) + b"\n")
    assert {finding.kind for finding in verify(out)} == {"edited"}


# --- more than one, newer and older ------------------------------------------------------------------------------


def test_a_tree_is_looked_through_and_one_damaged_manifest_does_not_hide_the_others(tmp_path):
    for name in ("a", "b/c", "d"):
        draw_shot(tmp_path / "shots" / name)
    color(tmp_path / "shots", ref=draw_key(tmp_path / "key.png"), out=tmp_path / "out")
    (tmp_path / "out/a/manifest.json").write_bytes(b"{")
    (tmp_path / "out/d/walk.0001.png").unlink()
    reports = {Path(report.out).name: report for report in verify_all([tmp_path / "out"])}
    assert {name: [finding.kind for finding in report.findings] for name, report in reports.items()} == {
        "a": ["manifest"], "c": [], "d": ["missing"],
    }
    assert reports["c"].checked == 4


def test_a_folder_without_a_manifest_is_no_result(tmp_path):
    with pytest.raises(ShotError, match="there is no"):
        verify(tmp_path)
    with pytest.raises(ShotError, match="there is no"):
        list(verify_all([tmp_path]))


def test_a_manifest_of_a_newer_colorcli_is_read_with_a_note_and_never_written_over(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    out = color(shot).plans[0].out
    newer = {**json.loads((out / "manifest.json").read_text()), "schema": "colorcli/manifest/3", "mood": "cheerful"}
    (out / "manifest.json").write_text(json.dumps(newer))
    (finding,) = verify(out)
    assert (finding.kind, finding.fatal) == ("manifest", False)
    assert "newer colorcli" in finding.message
    result = color(shot, overwrite=True).result
    assert result.exit_code == 3
    assert result.error is not None and "newer colorcli" in result.error.message
    assert json.loads((out / "manifest.json").read_text()) == newer


def test_records_that_a_killed_run_left_are_noted(out):
    with (out / "frames.jsonl").open("ab") as file:
        line = (out / "frames.jsonl").read_bytes().splitlines()[0]
        record = FrameRecord.model_validate_json(line)
        file.write(record_line(record.model_copy(update={"finished": "2999-01-01T00:00:00+00:00"})) + b"\n")
    assert found(verify(out)) == {("journal", "", False)}


def test_layers_of_a_frame_are_looked_at_too(out):
    from colorcli.files import file_digest

    (out / "line").mkdir()
    draw(out / "line" / "walk.0001.png", 1)
    (record,) = [record for record in read_records(out) if record.number == 1]
    layers = {"line/walk.0001.png": file_digest(out / "line" / "walk.0001.png")}
    line = record_line(record.model_copy(update={"outputs": layers}))
    edit_line(out / "frames.jsonl", "walk.0001", lambda _: line + b"\n")
    assert verify(out) == []
    draw(out / "line" / "walk.0001.png", 2)
    assert found(verify(out)) == {("altered", "walk.0001", True)}
    line = record_line(record.model_copy(update={"outputs": {"../key.png": "0" * 64}}))
    edit_line(out / "frames.jsonl", "walk.0001", lambda _: line + b"\n")
    assert found(verify(out)) == {("edited", "walk.0001", True)}


def test_every_file_is_read_once(tmp_path, monkeypatch):
    """10,000 frames on a file server: what counts is how often it is asked."""
    from colorcli.shot import verify as module

    shot = draw_shot(tmp_path / "walk", range(1, 9))
    out = color(shot, colorizer=FakeColorizer()).plans[0].out
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return digest(path)

    digest = module.file_digest
    monkeypatch.setattr(module, "file_digest", counted)
    assert verify(out) == []
    assert sorted(read) == sorted([*out.glob("walk.*"), *(out / "../walk").glob("walk.*")])


def test_the_manifest_says_by_what_earlier_frames_were_colored_as_long_as_there_are_any(tmp_path):
    shot = draw_shot(tmp_path / "walk")
    out = color(shot).plans[0].out
    first = read_manifest(out).settings_sha256
    color(shot, frames="1-2", preset=SEED_9)
    assert list(read_manifest(out).earlier_settings) == [first]
    assert read_manifest(out).earlier_settings[first].settings["sampling"]["seed"] == 7
    color(shot, preset=SEED_9)
    assert read_manifest(out).earlier_settings == {}


def test_a_written_manifest_is_as_written(out):
    write_manifest(out, read_manifest(out))
    assert verify(out) == []

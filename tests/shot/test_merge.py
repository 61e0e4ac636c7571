"""Journals and results that are joined: the same result in any order and any number of times, and no frame lost."""

import itertools
import json
import shutil
from pathlib import Path

import pytest

from colorcli.errors import FrameError, ShotError
from colorcli.presets import BackgroundSettings, FinishSettings, LoraSettings, Preset, SamplingSettings
from colorcli.shot.manifest import FrameRecord, Totals, read_manifest, read_records, record_line, write_manifest
from colorcli.shot.merge import merge, merge_trees
from colorcli.shot.verify import verify
from tests.model.lora_made import lora_file
from tests.shot.studio import FakeColorizer, cannot_color, color, draw, draw_key, draw_shot

SEED_9 = Preset(sampling=SamplingSettings(seed=9))
CHUNKS = ("1/3", "2/3", "3/3")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pictures(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if name.endswith(".png")}


@pytest.fixture
def shot(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk", range(1, 8))


@pytest.fixture
def nodes(shot: Path, tmp_path: Path) -> list[Path]:
    """Three machines without a common disk: each has colored a third of the shot into a folder of its own."""
    return [color(shot, chunk=chunk, out=tmp_path / f"node{chunk[0]}").plans[0].out for chunk in CHUNKS]


def test_journals_of_one_folder_are_joined_and_merging_twice_is_merging_once(shot):
    for chunk in CHUNKS:
        out = color(shot, chunk=chunk).plans[0].out
    once = merge(out)
    before = contents(out)
    assert once.manifest.totals.written == 7
    assert [run.journal for run in once.manifest.runs] == [f"frames.chunk{number}of3.jsonl" for number in (1, 2, 3)]
    again = merge(out)
    assert contents(out) == before
    assert again.manifest == once.manifest
    assert (once.conflicts, once.copied, once.left_out) == ((), (), ())
    assert verify(out) == []


def test_results_of_machines_without_a_common_disk_become_one_in_any_order(shot, nodes, tmp_path):
    whole = color(shot, out=tmp_path / "whole").plans[0].out
    results = []
    for number, order in enumerate(itertools.permutations(nodes)):
        out = tmp_path / f"order{number}" / "walk_color"
        merged = merge(out, order)
        assert len(merged.copied) == 7
        results.append(contents(out))
        assert verify(out) == []
    assert all(result == results[0] for result in results)
    assert pictures(out) == pictures(whole)


def test_parts_that_come_one_after_the_other_give_the_same_as_all_at_once(nodes, tmp_path):
    at_once, one_by_one = tmp_path / "a" / "walk_color", tmp_path / "b" / "walk_color"
    merge(at_once, nodes)
    for node in (nodes[2], nodes[0], nodes[1], nodes[0]):
        merge(one_by_one, [node])
    assert contents(one_by_one) == contents(at_once)


def test_merging_from_a_folder_twice_copies_nothing_the_second_time(nodes, tmp_path):
    out = tmp_path / "walk_color"
    merge(out, nodes)
    before = contents(out)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert merge(out, nodes).copied == ()
    assert contents(out) == before
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == stamps


def test_the_merged_result_is_resumed_and_nothing_is_colored_again(shot, nodes, tmp_path):
    out = tmp_path / "walk_color"
    merge(out, nodes)
    assert color(shot).result.totals.skipped == 7
    assert read_manifest(out).keys[0].path == "../key.png"


def test_sources_are_only_read(nodes, tmp_path):
    before = [contents(node) for node in nodes]
    merge(tmp_path / "walk_color", nodes)
    assert [contents(node) for node in nodes] == before


def test_the_newest_picture_counts_and_the_conflict_is_named(shot, tmp_path):
    old = color(shot, out=tmp_path / "old", frames="1-4").plans[0].out
    new = color(shot, out=tmp_path / "new", frames="3-7", preset=SEED_9).plans[0].out
    draw_key(tmp_path / "blue.png", (0.1, 0.2, 0.9))
    blue = color(shot, out=tmp_path / "blue", frames="3-4", ref=tmp_path / "blue.png").plans[0].out
    results = []
    for number, order in enumerate(itertools.permutations((old, new, blue))):
        merged = merge(tmp_path / f"all{number}" / "out", order)
        assert {conflict.frame for conflict in merged.conflicts} == {"walk.0003", "walk.0004"}
        assert "two settings" in "".join(conflict.message for conflict in merged.conflicts)
        results.append(contents(tmp_path / f"all{number}" / "out"))
    assert all(result == results[0] for result in results)
    assert results[0]["walk.0003.png"] == (blue / "walk.0003.png").read_bytes()


def test_two_machines_that_paint_the_same_frame_otherwise_are_named(shot, tmp_path):
    class Other(FakeColorizer):
        """A machine with other arithmetic."""

        def color(self, frames, reference, preset, decided=()):
            return [layer * 0.9 for layer in super().color(frames, reference, preset, decided)]

    one = color(shot, out=tmp_path / "one").plans[0].out
    other = color(shot, out=tmp_path / "other", frames="2-3", colorizer=Other()).plans[0].out
    merged = merge(tmp_path / "out", [one, other])
    assert [conflict.frame for conflict in merged.conflicts] == ["walk.0002", "walk.0003"]
    assert "made of the same by two machines" in merged.conflicts[0].message
    taken = (tmp_path / "out" / "walk.0002.png").read_bytes()
    assert taken == (other / "walk.0002.png").read_bytes() != (one / "walk.0002.png").read_bytes()
    assert verify(tmp_path / "out") == []


def test_a_damaged_picture_is_left_out_and_the_whole_one_of_another_machine_taken(shot, nodes, tmp_path):
    spare = color(shot, out=tmp_path / "spare", frames="1-2").plans[0].out
    newest = color(shot, out=nodes[0], chunk="1/3", overwrite=True).plans[0].out
    draw(newest / "walk.0001.png", 7)
    (newest / "walk.0002.png").unlink()
    out = tmp_path / "walk_color"
    merged = merge(out, [*nodes, spare])
    assert len(merged.left_out) == 2
    assert (out / "walk.0001.png").read_bytes() == (spare / "walk.0001.png").read_bytes()
    assert verify(out) == []


def test_a_picture_that_nobody_has_whole_is_missing_and_not_forgotten(nodes, tmp_path):
    (nodes[1] / "walk.0004.png").unlink()
    out = tmp_path / "walk_color"
    merge(out, nodes)
    assert [(finding.kind, finding.frame) for finding in verify(out)] == [("missing", "walk.0004")]


def test_a_failure_is_taken_over_until_somebody_has_colored_the_frame(shot, tmp_path):
    failed = color(shot, out=tmp_path / "a", colorizer=FakeColorizer(before_color=cannot_color(1))).plans[0].out
    out = tmp_path / "walk_color"
    merge(out, [failed])
    assert [finding.kind for finding in verify(out)] == ["failed"]
    mended = color(shot, out=tmp_path / "b", frames="2").plans[0].out
    merge(out, [mended])
    assert verify(out) == []
    # A failure that is newer than the picture is no reason to throw the picture away.
    color(shot, out=failed, frames="2", overwrite=True, colorizer=FakeColorizer(before_color=cannot_color(0)))
    merge(out, [failed])
    assert verify(out) == []
    assert merge(out, [failed]).manifest.totals.failed == 0


def test_a_record_that_loses_to_the_file_in_place_does_not_come_back(shot):
    """Two machines on one disk: the record that came last is of the file that was written first."""
    out = color(shot).plans[0].out
    record = next(record for record in read_records(out) if record.number == 3)
    late = record.model_copy(update={"output_sha256": "0" * 64, "finished": "2999-01-01T00:00:00+00:00"})
    (out / "frames.late.jsonl").write_bytes(record_line(late) + b"\n")
    assert [finding.kind for finding in verify(out) if finding.fatal] == ["altered"]
    merged = merge(out)
    assert [conflict.frame for conflict in merged.conflicts] == ["walk.0003"]
    assert verify(out) == []
    before = contents(out)
    merge(out)
    assert contents(out) == before
    assert color(shot).result.totals.skipped == 7
    # The clock of the machine that wrote it was ahead; what is colored after it counts all the same.
    assert color(shot, overwrite=True).result.totals.written == 7
    assert {one.status for one in read_records(out)} == {"written"}
    assert [finding for finding in verify(out) if finding.fatal] == []


def test_what_one_merge_has_chosen_is_not_newer_for_the_next(shot, tmp_path):
    """Of three machines the newest has no picture: whichever two are merged first, the newer of the others counts."""
    outs = [color(shot, out=tmp_path / f"n{number}", frames="1", preset=preset).plans[0].out
            for number, preset in enumerate((Preset(), SEED_9, Preset()))]
    (outs[2] / "walk.0001.png").unlink()
    for number, order in enumerate(itertools.permutations(outs)):
        out = tmp_path / "one by one" / str(number)
        for source in order:
            merge(out, [source])
        assert read_records(out)[0].settings_sha256 == read_records(outs[1])[0].settings_sha256
        assert (out / "walk.0001.png").read_bytes() == (outs[1] / "walk.0001.png").read_bytes()


def test_fields_of_a_newer_colorcli_are_kept(shot):
    out = color(shot).plans[0].out
    text = (out / "frames.jsonl").read_bytes().splitlines()[0]
    from colorcli.shot import manifest as m

    body = text[: -m.LINE_SUM_LENGTH] + b',"mood":"cheerful"}'
    line = body[:-1] + b',"sum":"' + m._line_sum(body) + b'"}'
    (out / "frames.jsonl").write_bytes((out / "frames.jsonl").read_bytes().replace(text, line))
    merge(out)
    assert b'"mood":"cheerful"' in (out / "frames.merged.jsonl").read_bytes()


def test_lines_changed_by_hand_are_left_out_and_stay_to_be_found(shot):
    out = color(shot).plans[0].out
    journal = out / "frames.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"number":3', b'"number":4', 1))
    merged = merge(out)
    assert len(merged.left_out) == 1
    assert "was changed by hand" in merged.left_out[0]
    assert ("uncolored", "walk.0003") in {(finding.kind, finding.frame) for finding in verify(out)}


def test_a_merged_line_changed_by_hand_is_not_merged_away(shot):
    out = color(shot).plans[0].out
    merge(out)
    (out / "frames.jsonl").unlink()
    journal = out / "frames.merged.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"seed":7', b'"seed":8', 1))
    for _ in range(2):
        assert {(finding.kind, finding.frame) for finding in verify(out)} == {("edited", "walk.0001")}
        merge(out)
    color(shot)
    merge(out)
    assert not [finding for finding in verify(out) if finding.fatal]


def test_a_merge_waits_for_a_process_that_writes_the_manifest(shot, monkeypatch):
    """Whoever wrote last would else forget the run of the other."""
    from colorcli.shot import sharing as module
    from colorcli.shot.leases import Leases

    for chunk in CHUNKS[:2]:
        out = color(shot, chunk=chunk).plans[0].out
    (late,) = [run for run in read_manifest(out).runs if run.chunk == "2/3"]
    write_manifest(out, read_manifest(out).model_copy(update={"runs": (), "totals": Totals()}))
    with Leases(out) as other:
        assert other.claim("manifest")

        def end(seconds: float) -> None:
            write_manifest(out, read_manifest(out).model_copy(update={"runs": (late,)}))
            other.release("manifest")

        monkeypatch.setattr(module.time, "sleep", end)
        assert merge(out).manifest.runs == (late,)
    assert not (out / ".leases").exists()


def test_files_that_settings_name_are_found_from_the_merged_result_too(shot, tmp_path):
    """The node lies two folders deeper than OUT, so every relative path of it is another one from there."""
    paper, palette = draw_key(tmp_path / "art" / "paper.png", (1.0, 1.0, 1.0)), tmp_path / "art" / "show.gpl"
    palette.write_text("GIMP Palette\n10 20 30\n")
    style = lora_file(tmp_path / "art" / "style.safetensors")

    def preset(seed: int) -> Preset:
        return Preset(
            sampling=SamplingSettings(seed=seed),
            background=BackgroundSettings(image=str(paper)),
            finish=FinishSettings(palette_file=str(palette)),
            lora=(LoraSettings(file=str(style)),),
        )

    node = tmp_path / "far" / "away" / "walk_color"
    color(shot, out=node, frames="1", preset=preset(9))
    color(shot, out=node, frames="2-7", preset=preset(7))
    out = tmp_path / "walk_color"
    manifest = merge(out, [node]).manifest
    (earlier,) = manifest.earlier_settings.values()
    for settings, seed in ((manifest.settings, 7), (earlier.settings, 9)):
        assert settings["sampling"]["seed"] == seed
        assert settings["background"]["image"] == "../art/paper.png"
        assert settings["finish"]["palette_file"] == "../art/show.gpl"
        assert [entry["file"] for entry in settings["lora"]] == ["../art/style.safetensors"]
        assert settings["masks"]["network"] is None
    assert manifest.palette is not None and manifest.palette.path == "../art/show.gpl"
    assert manifest.background is not None and manifest.background.path == "../art/paper.png"
    assert [finding.kind for finding in verify(out)] == ["settings"]   # and key and background are there
    assert merge(out, [node]).manifest == manifest


def test_settings_that_somebody_changed_by_hand_are_merged_as_they_are(shot, nodes, tmp_path):
    faulty = {"background": {"image": "a\0b"}, "masks": 3, "lines": {"network": ["x"]}, "lora": [{"file": 7}, "y", {}]}
    manifest = read_manifest(nodes[0])
    write_manifest(nodes[0], manifest.model_copy(update={"settings": faulty, "updated": "9999"}))
    assert merge(tmp_path / "walk_color", nodes[:1]).manifest.settings == faulty


def test_another_shot_is_refused(shot, nodes, tmp_path):
    run = color(draw_shot(tmp_path / "run")).plans[0].out
    with pytest.raises(ShotError, match="is of the shot run"):
        merge(tmp_path / "out", [nodes[0], run])
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_result_is_refused(nodes, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShotError, match="there is no result in"):
        merge(tmp_path / "out", [nodes[0], tmp_path / "empty"])
    with pytest.raises(ShotError, match="there is no"):
        merge(tmp_path / "empty")


def test_a_newer_result_is_refused(nodes, tmp_path):
    path = nodes[1] / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "colorcli/manifest/3"}))
    with pytest.raises(ShotError, match="newer colorcli"):
        merge(tmp_path / "out", nodes)


def test_a_source_whose_manifest_was_never_written_gives_its_frames_all_the_same(nodes, tmp_path):
    """A process that was killed has a journal, but no manifest."""
    (nodes[1] / "manifest.json").unlink()
    merge(tmp_path / "walk_color", nodes)
    assert verify(tmp_path / "walk_color") == []


def test_out_may_be_one_of_the_parts(nodes):
    merge(nodes[0], nodes)
    assert [finding.kind for finding in verify(nodes[0]) if finding.fatal] == []
    assert len(pictures(nodes[0])) == 7


def test_records_that_lead_out_of_their_folder_copy_nothing(nodes, tmp_path):
    from colorcli.files import file_digest

    secret = draw(tmp_path / "secret.png", 8)
    record = next(iter(read_records(nodes[0]))).model_copy(
        update={"number": 99, "output": "../secret.png", "output_sha256": file_digest(secret)}
    )
    with (nodes[0] / "frames.chunk1of3.jsonl").open("ab") as file:
        file.write(record_line(record) + b"\n")
    merged = merge(tmp_path / "deep" / "walk_color", nodes)
    assert len(merged.left_out) == 1
    assert len(merged.copied) == 7
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"walk_color"}


def test_layers_are_copied_with_their_frame(nodes, tmp_path):
    from colorcli.files import file_digest

    (nodes[0] / "line").mkdir()
    layer = draw(nodes[0] / "line" / "walk.0001.png", 1)
    journal = nodes[0] / "frames.chunk1of3.jsonl"
    records = [FrameRecord.model_validate_json(line) for line in journal.read_bytes().splitlines()]
    update = {"outputs": {"line/walk.0001.png": file_digest(layer)}}
    records = [one.model_copy(update=update) if one.number == 1 else one for one in records]
    journal.write_bytes(b"".join(record_line(one) + b"\n" for one in records))
    out = tmp_path / "walk_color"
    assert "line/walk.0001.png" in merge(out, nodes).copied
    assert (out / "line" / "walk.0001.png").read_bytes() == layer.read_bytes()
    assert verify(out) == []
    layer.unlink()
    merged = merge(tmp_path / "b" / "walk_color", nodes)
    assert [text for text in merged.left_out if "walk.0001" in text] == list(merged.left_out) != []
    findings = verify(tmp_path / "b" / "walk_color")
    assert {(finding.kind, finding.frame) for finding in findings} == {("missing", "walk.0001")}


def test_a_picture_that_changes_while_it_is_copied_is_not_taken(nodes, tmp_path, monkeypatch):
    def copy(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes() + b"more")

    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(FrameError, match="changed while it was copied"):
        merge(tmp_path / "walk_color", nodes)
    assert pictures(tmp_path / "walk_color") == {}


def test_trees_are_merged_shot_by_shot(tmp_path):
    for name in ("a", "b/c"):
        draw_shot(tmp_path / "shots" / name)
    draw_key(tmp_path / "key.png")
    for number in (1, 2):
        color(tmp_path / "shots", ref=tmp_path / "key.png", out=tmp_path / f"node{number}", chunk=f"{number}/2")
    merged = merge_trees(tmp_path / "out", [tmp_path / "node1", tmp_path / "node2"])
    assert {one.out.relative_to(tmp_path / "out").as_posix(): len(one.copied) for one in merged} == {"a": 4, "b/c": 4}
    assert not [finding for one in merged for finding in verify(one.out) if finding.fatal]


# --- the first version of the schema -----------------------------------------------------------------------------


@pytest.fixture
def first_version(tmp_path: Path) -> Path:
    """A shot that colorcli 0.1.0 colored with mini in two chunks, before there was a second version of the schema."""
    shutil.copytree(Path(__file__).parent / "schema_1", tmp_path / "old")
    return tmp_path / "old" / "colored"


def test_a_result_of_the_first_version_is_read_and_verified(first_version):
    assert read_manifest(first_version).schema_name == "colorcli/manifest/1"
    statuses = [record.status for record in read_records(first_version)]
    assert statuses == ["written", "held", "written", "missing", "written", "failed"]
    kinds = {(finding.kind, finding.frame, finding.fatal) for finding in verify(first_version)}
    assert kinds - {("version", "", False)} == {("gap", "walk.4", False), ("failed", "walk.0006", True)}


def test_damage_to_a_result_of_the_first_version_is_found(first_version):
    one, other = first_version / "walk.0001.png", first_version / "walk.0003.png"
    one.write_bytes(other.read_bytes())
    (first_version / "walk.0005.png").unlink()
    journal = first_version / "frames.chunk2of2.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b"00789be45ec0", b"11789be45ec0"))
    kinds = {(finding.kind, finding.frame) for finding in verify(first_version) if finding.fatal}
    assert kinds == {
        ("swapped", "walk.0001"), ("key", "walk.0003"), ("missing", "walk.0005"), ("failed", "walk.0006"),
    }


def test_a_result_of_the_first_version_is_merged_into_the_second(first_version):
    merge(first_version)
    manifest = read_manifest(first_version)
    assert manifest.schema_name == "colorcli/manifest/2"
    assert (manifest.totals.written, manifest.totals.held, manifest.totals.failed) == (3, 1, 1)
    before = contents(first_version)
    merge(first_version)
    assert contents(first_version) == before
    assert [finding.kind for finding in verify(first_version) if finding.fatal] == ["failed"]

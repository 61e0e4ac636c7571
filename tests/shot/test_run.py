"""The runner, with a colorizer that counts."""

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from colorcli.errors import DeviceError, OutputError, WeightsError
from colorcli.images import read_picture
from colorcli.presets import OutputSettings, Preset, SamplingSettings
from colorcli.shot import coloring, finishing
from colorcli.shot.manifest import ModelEntry, read_manifest, read_records
from colorcli.shot.plan import ShotRequest, plan_shots
from colorcli.shot.run import run_plans
from colorcli.shot.verify import verify
from tests.shot.studio import FakeColorizer, Listener, cannot_color, color, draw, draw_key, draw_shot, drawing


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk")


def test_every_frame_comes_out_under_its_own_name_and_size(walk):
    outcome = color(walk)
    assert outcome.result.exit_code == 0
    assert list(outcome.pictures()) == ["walk.0001.png", "walk.0002.png", "walk.0003.png", "walk.0004.png"]
    assert read_picture(walk.parent / "walk_color" / "walk.0001.png").size == (96, 64)


def test_the_input_folder_is_left_as_it_was(walk):
    before = {path.name: path.read_bytes() for path in walk.iterdir()}
    color(walk)
    assert {path.name: path.read_bytes() for path in walk.iterdir()} == before


def test_a_second_run_colors_nothing_and_loads_nothing(walk):
    color(walk)
    again = color(walk)
    assert again.result.totals.skipped == 4
    assert again.loads == 0
    assert again.colorizer.colored == 0
    assert again.result.exit_code == 0


def test_a_second_run_colors_only_the_frame_that_changed(walk):
    color(walk)
    draw(walk / "walk.0002.png", 9)
    assert color(walk).colored == ["walk.0002"]


def test_a_drawing_saved_again_with_the_same_pixels_is_not_colored_again(walk):
    color(walk)
    pixels = np.round(read_picture(walk / "walk.0002.png").color * 255).astype(np.uint8)
    before = (walk / "walk.0002.png").read_bytes()
    cv2.imwrite(str(walk / "walk.0002.png"), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert (walk / "walk.0002.png").read_bytes() != before
    again = color(walk)
    assert again.listener.status()["walk.0002"] == "skipped"
    assert again.colorizer.colored == 0


def test_a_result_that_was_painted_over_or_deleted_is_made_anew(walk):
    color(walk)
    out = walk.parent / "walk_color"
    draw(out / "walk.0001.png", 5)
    (out / "walk.0003.png").unlink()
    assert color(walk).colored == ["walk.0001", "walk.0003"]


@pytest.mark.parametrize("change", ["key", "settings", "weights"])
def test_all_is_colored_again_when_the_look_changes(walk, change):
    color(walk)
    if change == "key":
        draw_key(walk.parent / "key.png", (0.1, 0.9, 0.2))
    preset = Preset(sampling=SamplingSettings(seed=8)) if change == "settings" else Preset()
    model = ModelEntry(name="mini", sha256="cd" * 32 if change == "weights" else "ab" * 32, license="Apache-2.0")
    assert color(walk, preset=preset, model=model).result.totals.written == 4


def test_overwrite_colors_all_again(walk):
    color(walk)
    assert color(walk, overwrite=True).result.totals.written == 4


def test_a_held_drawing_is_colored_once_and_written_for_each_number(walk):
    shutil.copy(walk / "walk.0002.png", walk / "walk.0003.png")
    shutil.copy(walk / "walk.0002.png", walk / "walk.0005.png")
    outcome = color(walk)
    assert outcome.colorizer.colored == 3
    assert outcome.colored == ["walk.0001", "walk.0002", "walk.0004"]
    status = outcome.listener.status()
    assert (status["walk.0003"], status["walk.0005"]) == ("held", "held")
    pictures = outcome.pictures()
    assert pictures["walk.0002.png"] == pictures["walk.0003.png"] == pictures["walk.0005.png"]
    held = next(record for record in outcome.listener.records if record.frame == "walk.0005")
    assert held.held_from == "walk.0002.png"
    assert color(walk).result.totals.skipped == 5


def test_a_hold_added_later_repeats_the_finished_frame_without_the_model(walk):
    color(walk)
    shutil.copy(walk / "walk.0004.png", walk / "walk.0005.png")
    again = color(walk)
    assert again.colorizer.colored == 0
    assert again.listener.status()["walk.0005"] == "held"


def test_the_same_pixels_at_another_depth_are_no_hold(walk):
    from colorcli.images import PixelFormat, write_picture

    picture = read_picture(walk / "walk.0001.png")
    write_picture(walk / "walk.0005.png", picture.color, None, PixelFormat("png", "uint16"))
    outcome = color(walk)
    assert outcome.listener.status()["walk.0005"] == "written"
    assert read_picture(outcome.plans[0].out / "walk.0005.png").format.depth == "uint16"


def test_a_failed_frame_does_not_stop_the_shot(walk):
    outcome = color(walk, colorizer=FakeColorizer(before_color=cannot_color(1)))
    assert outcome.result.exit_code == 7
    assert outcome.listener.status() == {
        "walk.0001": "written", "walk.0002": "failed", "walk.0003": "written", "walk.0004": "written",
    }
    assert color(walk).colored == ["walk.0002"]


def test_a_hold_of_a_failed_frame_fails_with_the_same_words(walk):
    shutil.copy(walk / "walk.0001.png", walk / "walk.0002.png")
    failures = []

    def once(count: int) -> None:
        if not failures:
            failures.append(count)
            from colorcli.errors import FrameError

            raise FrameError("too dark")

    outcome = color(walk, colorizer=FakeColorizer(before_color=once))
    assert [record.frame for record in outcome.result.failed] == ["walk.0001", "walk.0002"]
    assert {record.error.message for record in outcome.result.failed if record.error} == {"too dark"}
    assert outcome.result.totals.written == 2


def test_a_bug_in_one_frame_is_recorded_and_the_others_go_on(walk, monkeypatch):
    real = coloring.prepare_frame
    second = drawing(2)

    def prepare(picture, *others):
        if np.allclose(picture.color, second):
            raise ValueError("shapes differ")
        return real(picture, *others)

    monkeypatch.setattr(coloring, "prepare_frame", prepare)
    outcome = color(walk)
    assert outcome.result.exit_code == 7
    (record,) = outcome.result.failed
    assert record.frame == "walk.0002"
    assert record.error is not None and record.error.kind == "internal"
    assert record.error.message == "walk.0002.png: ValueError: shapes differ"


def test_a_bug_in_every_frame_is_called_ours(walk, monkeypatch):
    def prepare(*whatever):
        raise ValueError("shapes differ")

    monkeypatch.setattr(coloring, "prepare_frame", prepare)
    assert color(walk).result.exit_code == 1


def test_chunks_in_any_order_make_the_same_files_as_one_run(walk, tmp_path):
    whole = color(walk, out=tmp_path / "whole").pictures()
    for chunk in ("3/3", "1/3", "2/3"):
        assert color(walk, out=tmp_path / "parts", chunk=chunk).result.exit_code == 0
    parts = {path.name: path.read_bytes() for path in (tmp_path / "parts").glob("*.png")}
    assert parts == whole
    journals = sorted(path.name for path in (tmp_path / "parts").glob("*.jsonl"))
    assert journals == ["frames.chunk1of3.jsonl", "frames.chunk2of3.jsonl", "frames.chunk3of3.jsonl"]
    assert read_manifest(tmp_path / "parts").totals.written == 4
    assert not verify(tmp_path / "parts")


def test_ranges_and_batches_make_the_same_files_as_one_run(walk, tmp_path):
    whole = color(walk, out=tmp_path / "whole").pictures()
    for frames in ("4,2", "1-3x2"):
        color(walk, out=tmp_path / "ranges", frames=frames)
    assert {path.name: path.read_bytes() for path in (tmp_path / "ranges").glob("*.png")} == whole
    assert color(walk, out=tmp_path / "batch", at_once=3).pictures() == whole


def test_a_frame_that_fails_in_a_batch_is_the_only_one_lost(walk):
    def only_alone(count: int) -> None:
        raise MemoryError

    colorizer = FakeColorizer()
    real = colorizer.color

    def color_few(frames, reference, preset):
        if len(frames) > 1:
            only_alone(0)
        return real(frames, reference, preset)

    colorizer.color = color_few  # type: ignore[method-assign]
    assert color(walk, colorizer=colorizer, at_once=4).result.totals.written == 4


def test_the_key_is_encoded_once_for_all_shots_that_share_it(tmp_path):
    shots = [draw_shot(tmp_path / name) for name in ("a", "b")]
    outcome = color(shots)
    assert outcome.colorizer.encoded == 1
    assert outcome.listener.shots == ["a", "b"]
    assert outcome.listener.progress[-1] == (8, 8)


def test_two_keys_are_laid_side_by_side_and_both_count(walk):
    other = draw_key(walk.parent / "key_back.png", (0.1, 0.2, 0.9))
    first = color(walk).pictures()
    both = color(walk, ref=[str(walk.parent / "key.png"), str(other)])
    assert both.result.totals.written == 4
    assert both.pictures() != first
    assert [entry.path for entry in read_manifest(both.plans[0].out).keys] == ["../key.png", "../key_back.png"]


def test_everything_is_reported_from_the_calling_thread(walk):
    outcome = color(walk)
    assert outcome.listener.threads == {"MainThread"} == outcome.colorizer.threads
    assert outcome.listener.totals == outcome.result.totals


def test_gaps_are_recorded_and_are_not_fatal(walk):
    (walk / "walk.0002.png").unlink()
    outcome = color(walk)
    assert outcome.result.exit_code == 0
    assert outcome.result.totals.missing == 1
    missing = [record for record in read_records(outcome.plans[0].out) if record.status == "missing"]
    assert [record.number for record in missing] == [2]
    draw(walk / "walk.0002.png", 2)
    color(walk)
    assert read_manifest(outcome.plans[0].out).totals.missing == 0


def test_masks_of_the_frame_count_into_its_look(walk, tmp_path):
    for number in (1, 2, 3, 4):
        draw(tmp_path / "masks" / f"hero.{number}.png", number)
    first = color(walk, masks=(tmp_path / "masks",))
    assert first.result.exit_code == 0
    draw(tmp_path / "masks" / "hero.3.png", 8)
    assert color(walk, masks=(tmp_path / "masks",)).colored == ["walk.0003"]


def test_a_mask_of_another_size_fails_its_frame_only(walk, tmp_path):
    draw(tmp_path / "masks" / "walk.0001.png", 1)
    draw(tmp_path / "masks" / "walk.0002.png", 2, size=(50, 50))
    outcome = color(walk, masks=(tmp_path / "masks",))
    assert outcome.result.exit_code == 7
    assert "50x50, but walk.0002.png is 96x64" in outcome.result.failed[0].error.message


def test_the_manifest_tells_how_the_shot_was_made(walk):
    outcome = color(walk, preset=Preset(output=OutputSettings(format="tga")), preset_name="soft")
    manifest = read_manifest(outcome.plans[0].out)
    assert manifest.shot == "../walk"
    assert manifest.request.preset == "soft"
    assert manifest.settings["output"]["format"] == "tga"
    assert manifest.models[0].license == "Apache-2.0"
    assert manifest.runs[0].device == "cpu"
    assert manifest.totals.written == 4
    record = read_records(outcome.plans[0].out)[0]  # by number; the journal has them in the order they were done
    assert (record.source, record.output, record.seed) == ("walk.0001.png", "walk.0001.tga", 7)
    assert record.seconds is not None and record.seconds > 0


def test_a_drawing_that_was_taken_out_no_longer_counts(walk):
    outcome = color(walk)
    (walk / "walk.0004.png").unlink()
    color(walk)
    assert read_manifest(outcome.plans[0].out).totals.frames == 3


def test_a_missing_device_ends_the_run_and_keeps_what_is_finished(walk):
    def lost(count: int) -> None:
        if count == 2:
            raise DeviceError("out of memory on cuda:0", hint="use --device cpu")

    outcome = color(walk, colorizer=FakeColorizer(before_color=lost))
    assert outcome.result.exit_code == 6
    assert len(outcome.pictures()) == 2
    assert read_manifest(outcome.plans[0].out).runs[0].exit_code == 6
    assert color(walk).colored == ["walk.0003", "walk.0004"]


def test_damaged_weights_end_the_run(walk):
    def load():
        raise WeightsError("mini is damaged", hint="install it again")

    request = ShotRequest((str(walk),), (str(walk.parent / "key.png"),))
    from tests.shot.studio import MODEL

    result = run_plans(plan_shots(request), request.preset, Listener(), load_colorizer=load, model=MODEL)
    assert result.exit_code == 5
    assert result.error is not None and result.error.message == "mini is damaged"


def test_ctrl_c_keeps_the_finished_frames_and_the_next_run_goes_on(walk):
    def interrupt(count: int) -> None:
        if count == 2:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()

    outcome = color(walk, colorizer=FakeColorizer(before_color=interrupt))
    assert outcome.result.exit_code == 130
    assert sorted(outcome.pictures()) == ["walk.0001.png", "walk.0002.png"]
    assert read_manifest(outcome.plans[0].out).runs[0].exit_code == 130
    again = color(walk)
    assert again.listener.status() == {
        "walk.0001": "skipped", "walk.0002": "skipped", "walk.0003": "written", "walk.0004": "written",
    }


def test_a_farm_that_terminates_the_process_gets_143(walk):
    def terminate(count: int) -> None:
        if count == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    before = signal.getsignal(signal.SIGTERM)
    assert color(walk, colorizer=FakeColorizer(before_color=terminate)).result.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert color(walk).result.totals.skipped == 1


def test_a_killed_process_loses_no_finished_frame(walk):
    """SIGKILL in the third frame: no handler runs."""
    program = textwrap.dedent(f"""
        import os, signal, time
        from pathlib import Path
        from tests.shot.studio import FakeColorizer, color
        walk, started = Path({str(walk)!r}), time.monotonic()
        def recorded():
            return sum(path.read_text().count('"written"') for path in walk.parent.rglob("frames*.jsonl"))
        def kill(count):
            if count == 2:
                while recorded() < 2 and time.monotonic() - started < 60:
                    time.sleep(0.02)
                os.kill(os.getpid(), signal.SIGKILL)
        color(walk, colorizer=FakeColorizer(before_color=kill))
    """)
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == -signal.SIGKILL
    again = color(walk)
    assert again.result.exit_code == 0
    assert again.colored == ["walk.0003", "walk.0004"]
    assert not verify(again.plans[0].out)


def test_an_output_that_fails_ends_the_run_early_with_its_reason(walk, monkeypatch):
    real = finishing.write_picture

    def write(path, *others):
        if path.name == "walk.0002.png":
            raise OutputError(f"{path.name} cannot be written: the disk is full", hint="make room")
        real(path, *others)

    monkeypatch.setattr(finishing, "write_picture", write)
    outcome = color(walk)
    assert outcome.result.exit_code == 9
    assert outcome.result.error is not None and "disk is full" in outcome.result.error.message
    assert "walk.0001.png" in outcome.pictures()
    assert "walk.0002.png" not in outcome.pictures()
    monkeypatch.undo()
    assert color(walk).result.exit_code == 0


def test_old_temporary_files_are_swept_and_young_ones_are_not(walk):
    out = walk.parent / "walk_color"
    out.mkdir()
    old, young = out / ".walk.0001.png.77.tmp", out / ".walk.0002.png.78-ab12cd.part"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (0, 0))
    color(walk)
    assert not old.exists()
    assert young.exists()


def test_a_shot_that_is_killed_again_and_again_ends_as_if_it_never_was(tmp_path):
    """SIGKILL, SIGTERM and SIGINT at moments of chance, also between a file, its name and its record."""
    walk = draw_shot(tmp_path / "walk", range(1, 25))
    wanted = color(walk, out=tmp_path / "calm").pictures()
    program = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from tests.shot.studio import FakeColorizer, color
        print("ready", flush=True)
        slow = FakeColorizer(before_color=lambda count: time.sleep(0.02))
        color({str(walk)!r}, out=Path({str(tmp_path / "rough")!r}), colorizer=slow)
    """)
    chance = random.Random(5)
    for stop in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGKILL):
        with subprocess.Popen(
            [sys.executable, "-c", program], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.02, 0.25))
            process.send_signal(stop)
    again = color(walk, out=tmp_path / "rough")
    assert again.result.exit_code == 0
    assert again.pictures() == wanted
    assert not verify(tmp_path / "rough") or {finding.kind for finding in verify(tmp_path / "rough")} == {"journal"}

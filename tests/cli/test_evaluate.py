"""`colorcli evaluate` from the command line: what it prints, what it writes, and what it refuses before it works."""

import json

import numpy as np
import pytest

from colorcli.cli.evaluate import Pace, headings, on_a_square, that_fit, within_limit
from colorcli.cli.main import main
from colorcli.model.weights import write_list
from colorcli.presets import default_preset, load_preset
from colorcli.train.data.archives import png_bytes, write_archives
from colorcli.train.evaluation.scores.table import METRICS, columns_of
from colorcli.variants import VARIANTS
from tests.finish.studio import face
from tests.shot.studio import FakeColorizer, draw, draw_key


@pytest.fixture
def engine(monkeypatch):
    """Nothing is loaded: every canvas is painted in the mean color of its key."""
    monkeypatch.setattr("colorcli.cli.render.load_engine", lambda *asked, **more: FakeColorizer())


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "unet.safetensors").write_bytes(b"not to be loaded")
    write_list(folder, "mini", "Apache-2.0")
    return str(folder)


@pytest.fixture
def shots(tmp_path):
    for name, color in (("front", (0.8, 0.3, 0.2)), ("side", (0.1, 0.3, 0.7))):
        for part in ("line", "color"):
            for number in (1, 2):
                target = tmp_path / "data" / name / part / f"{number:04}.png"
                draw(target) if part == "line" else draw_key(target, color)
        draw_key(tmp_path / "data" / name / "key.png", color)
    return tmp_path / "data"


@pytest.fixture
def training_set(tmp_path):
    drawn, truth, _ = face((200, 190))
    with write_archives(tmp_path / "set", "0001", ("color", "sketch")) as writer:
        for number in range(4):
            for kind, picture in (("color", np.roll(truth, number, axis=2)), ("sketch", drawn)):
                pixels = png_bytes(np.rint(picture * 255).astype(np.uint8))
                writer.add(kind, f"{number}.png", pixels[:90] if (kind, number) == ("color", 3) else pixels)
    return tmp_path / "set"


def printed(capsys, *arguments):
    assert main(["evaluate", *map(str, arguments)]) == 0
    return capsys.readouterr()


def refused(capsys, *arguments):
    code = main(["evaluate", *map(str, arguments)])
    return code, capsys.readouterr().err


def test_the_summary_has_what_it_takes_to_make_the_same_again(capsys, engine, model, shots):
    out = printed(capsys, shots, "--json", "--model", model, "--shuffled", "--metrics", "default,psnr,tags").out
    *rows, end = [json.loads(line) for line in out.splitlines()]
    summary = end["summary"]
    assert [row["pairing"] for row in rows] == ["own", "shuffled"] * 2
    assert {len(summary["data"]["sha256"]), len(summary["model"]["sha256"]), len(summary["judge"]["sha256"])} == {64}
    assert summary["preset"]["settings"]["sampling"]["seed"] == 7
    assert summary["plan"]["metrics"] == ["regions", "flicker", "seconds", "psnr", "tags"]
    assert {"torch", "torchmetrics", "colorcli"} <= set(summary["versions"])
    assert [(group["pairing"], group["frames"]) for group in summary["groups"]] == [("own", 4), ("shuffled", 4)]
    assert "Infinity" not in out and "NaN" not in out


def test_two_runs_are_set_side_by_side(capsys, engine, model, shots, tmp_path):
    for name in ("one", "two"):
        out = printed(capsys, shots, "--json", "--model", model).out
        (tmp_path / f"{name}.json").write_text(out)
    page = tmp_path / "both.html"
    shown = printed(capsys, "--compare", tmp_path / "one.json", tmp_path / "two.json", "--report", page)
    assert shown.out.splitlines()[0].split() == ["own", "one", "two"]
    assert "right, higher is better" in shown.out and "(+0.000 ± 0.000)" in shown.out
    assert page.read_text().startswith("<!DOCTYPE html>")
    lines = printed(capsys, "--compare", tmp_path / "one.json", tmp_path / "two.json", "--json").out.splitlines()
    assert json.loads(lines[0])["evaluations"][1]["name"] == "two"


def test_a_training_set_is_measured_as_the_papers_do(capsys, engine, model, training_set, tmp_path):
    report = tmp_path / "report.html"
    shown = printed(capsys, training_set, "--model", model, "--report", report)
    assert "own, 3 frames" in shown.out and "shuffled, 2 frames" in shown.out
    assert "FID (mini tagger features), shuffled" in shown.out and "on 2 frames" in shown.out
    assert "3 could not be read and were left out" in shown.out
    assert "color/0001/3.png" in shown.err
    assert report.read_text().count("data:image/jpeg") == 4 * 5


def test_a_limit_and_kept_frames(capsys, engine, model, shots, tmp_path):
    out = printed(capsys, shots, "--model", model, "--limit", 2, "-o", tmp_path / "kept").out
    assert [line.split()[:3] for line in out.splitlines()][1:3] == [["front", "front", "1"], ["side", "side", "1"]]
    assert sorted(path.name for path in (tmp_path / "kept").rglob("*.png")) == ["0001.png", "0001.png"]


def test_drawn_characters_have_as_many_frames_as_asked(capsys, engine, model):
    *rows, end = map(json.loads, printed(
        capsys, "moving", "--model", model, "--characters", 5, "--frames", 3, "--limit", 7, "--json"
    ).out.splitlines())
    assert [row["frames"] for row in rows] == [3, 3]
    assert (end["summary"]["data"]["characters"], end["summary"]["data"]["frames"]) == (2, 3)


@pytest.mark.parametrize(
    ("limit", "drawn"), [(None, (5, 3)), (100, (5, 3)), (7, (2, 3)), (3, (1, 3)), (2, (1, 2)), (1, (1, 1))]
)
def test_no_more_frames_are_drawn_than_the_limit(limit, drawn):
    assert within_limit(5, 3, limit) == drawn


def test_a_line_holds_no_more_columns_than_fit():
    everything = columns_of(METRICS)
    kept = that_fit(everything)
    assert 6 < len(kept) < len(everything)
    assert sum(headings(kept)[1]) + 2 * (len(kept) + 2) <= 130
    assert that_fit(everything[:3]) == everything[:3]


def test_a_long_evaluation_tells_how_far_it_is(capsys, monkeypatch):
    clock = iter(range(0, 4000, 4))
    monkeypatch.setattr("colorcli.cli.evaluate.time.monotonic", lambda: next(clock))
    pace = Pace(40)
    for _ in range(40):
        pace.tell()
    told = capsys.readouterr().err.splitlines()
    # Four seconds each: nothing is said in the first ten, and a twentieth is two of forty.
    assert told[:2] == ["3 of 40 colored, about 2 min 28 s left", "4 of 40 colored, about 2 min 24 s left"]
    assert told[2].startswith("6 of 40") and len(told) == 19


def test_published_models_see_whole_drawings_in_a_square():
    xl = on_a_square(default_preset("xl"), VARIANTS["xl"]).canvas
    assert (xl.size, xl.crop) == ((1024, 1024), "frame")
    assert on_a_square(default_preset("v2"), VARIANTS["v2"]).canvas.size == (768, 768)
    assert on_a_square(default_preset("mini"), VARIANTS["mini"]).canvas.size is None
    asked = load_preset("xl", ["canvas.size=[768, 768]"])
    assert on_a_square(asked, VARIANTS["xl"]).canvas.size == (768, 768)


def test_the_papers_settings_are_a_preset():
    papers = load_preset("papers")
    assert (papers.sampling.sampler, papers.sampling.steps, papers.sampling.seed) == ("diffusers-dpm", 20, 42)
    assert (papers.reference.guidance, papers.sketch.guidance, papers.finish.fill) == (5, 1, "model")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--metrics", "psnrr"], 2, "--metrics psnrr is no metric"),
        (["--metrics", "fid", "--features", "nowhere.pt"], 5, "there is no feature network nowhere.pt"),
        (["--metrics", "tags", "--judge", "nobody"], 5, "nobody"),
        (["--metrics", "tags", "--judge", "BLIND"], 5, "the judge blind has no tagger"),
        (["--report", "page.pdf"], 2, "is no HTML file"),
        (["--report", "/nowhere/page.html"], 2, "/nowhere is no folder"),
        (["more"], 2, "one DATA, and here are 2"),
        (["--limit", "0"], 2, "limit"),
    ],
)
def test_what_is_wrong_is_told_before_a_model_is_loaded(capsys, monkeypatch, model, shots, arguments, code, says):
    def load(*asked, **more):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("colorcli.cli.render.load_engine", load)
    (shots.parent / "blind").mkdir()
    write_list(shots.parent / "blind", "v2", "CC-BY-NC-SA-4.0")
    arguments = [str(shots.parent / "blind") if word == "BLIND" else word for word in arguments]
    found, told = refused(capsys, shots, *arguments, "--model", model)
    assert found == code, told
    assert says in told


def test_a_folder_that_is_nothing_of_both_says_what_each_needs(capsys, tmp_path):
    code, told = refused(capsys, tmp_path)
    assert code == 3
    assert "each needs line/, color/ and key.png; a training set needs color/ and sketch/" in told


def test_comparing_what_is_no_evaluation_names_the_file_and_how_to_make_one(capsys, tmp_path):
    (tmp_path / "a.json").write_text("{")
    code, told = refused(capsys, "--compare", tmp_path / "a.json", tmp_path / "a.json")
    assert code == 2
    assert "line 1 of a.json is no JSON" in told
    assert "colorcli evaluate DATA --json > a.json" in told

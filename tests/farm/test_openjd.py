"""Job bundles: what a task is told, read by the reference library; and jobs that `openjd run` runs for real."""

import json
import sys
from pathlib import Path

import pytest
import typer
from openjd.model import IntRangeExpr

from colorcli.cli import render
from colorcli.cli.app import COLOR
from colorcli.cli.main import app, main
from colorcli.farm.openjd import FarmJob, Work, make_bundle, openjd_range, write_bundle
from colorcli.presets import load_preset
from colorcli.shot.manifest import read_records
from colorcli.shot.plan import ShotRequest, plan_shots
from tests.farm.farmer import (
    COLORCLI,
    colorcli,
    commands,
    job_of,
    make_job,
    openjd,
    pictures,
    read,
    run_job,
    tasks_of,
)
from tests.shot.studio import draw, draw_key, draw_shot, hollow_model

CRUEL = "it's {{Param.Out}} \"a\" $(touch x) é }}"


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    return draw_shot(tmp_path / "walk", (1, 2, 3, 5, 7, 9))


def key_of(shot: Path) -> Path:
    return shot.parent / "key.png"


def run_here(words: list[str], monkeypatch: pytest.MonkeyPatch):
    """(request, machine) that a command line ends up as; nothing is colored."""
    caught = []
    with monkeypatch.context() as patched:
        patched.setattr(render, "render", lambda requests, machine, **_: caught.append((*requests, machine)) or 0)
        assert main(words) == 0
    return caught[0]


@pytest.mark.parametrize("numbers", [[4], [1, 2, 3], [1, 3, 5, 7, 9], [-3, -2, -1, 4, 6, 8, 9], [7, 1, 7]])
def test_numbers_are_written_as_the_reference_library_reads_them(numbers):
    assert list(IntRangeExpr.from_str(openjd_range(numbers))) == sorted(set(numbers))


def test_the_tasks_of_a_job_are_the_frames_of_the_shot_each_once(tmp_path, walk):
    bundle = make_job(tmp_path / "job", walk, "--ref", key_of(walk), "--frames-per-task", "2")
    check, color, finish = job_of(bundle).steps
    assert [step.name for step in (check, color, finish)] == ["check", "color walk", "merge and verify"]
    chunks = [task["Frame"] for task in tasks_of(color)]
    assert [list(IntRangeExpr.from_str(chunk)) for chunk in chunks] == [[1, 2], [3, 5], [7, 9]]
    assert [one.dependsOn for one in color.dependencies] == ["check"]
    assert [one.dependsOn for one in finish.dependencies] == ["color walk"]


def test_the_tool_of_the_reference_library_finds_nothing_wrong(tmp_path, walk):
    bundle = make_job(tmp_path / "job", walk, "--ref", key_of(walk))
    done = openjd("check", bundle / "template.yaml")
    assert done.returncode == 0, done.stdout


def test_whoever_submits_a_job_may_ask_for_other_frames_and_larger_chunks(tmp_path, walk):
    bundle = make_job(tmp_path / "job", walk, "--ref", key_of(walk), "--frames-per-task", "2")
    (_, color, _) = job_of(bundle, Frames="2,5-9:4", FramesPerTask="10").steps
    (task,) = tasks_of(color)
    assert list(IntRangeExpr.from_str(task["Frame"])) == [2, 5, 9]


def test_all_that_decides_on_the_picture_reaches_the_task(tmp_path, walk, monkeypatch):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: soft\nlines:\n  gap_px: 3\n")
    masks = draw_shot(tmp_path / "masks", (1, 2))
    wall = draw_key(tmp_path / "wall.png", (0.1, 0.2, 0.9))
    typed = [
        str(walk), "--ref", str(key_of(walk)), "--ref", str(draw_key(tmp_path / "second.png")), "--masks", str(masks),
        "--preset", str(mine), "--set", "sampling.steps=3", "--set", "background.split=true", "--steady",
        "--set", f"background.image={wall}", "--format", "exr-half", "--overwrite", "--device", "cpu", "--memory", "8g",
        "--precision", "bf16", "--max-pixels", "5M", "--thorough", "--layers", "color,line", "--layers-as", "psd",
    ]  # fmt: skip
    bundle = tmp_path / "job"
    assert main(["farm", "openjd", *typed, "-o", str(bundle), "--command", COLORCLI, "--frames", "1-3"]) == 0
    mine.write_text("extends: pencil\n")   # whoever edits a preset does not edit the jobs that are under way
    told = [words for step, words in commands(bundle) if step == "color walk"]
    mine.write_text("extends: soft\nlines:\n  gap_px: 3\n")
    assert len(told) == 1
    request, machine = run_here(told[0], monkeypatch)
    wanted, wanted_machine = run_here([*typed, "--frames", "1-3"], monkeypatch)
    assert request.preset == wanted.preset
    assert request.preset.steady.on and request.preset.lines.gap_px == 3 and request.preset.sampling.steps == 3
    assert machine == wanted_machine
    for name in ("shots", "refs", "masks", "overwrite", "thorough", "max_pixels", "frames"):
        got, want = getattr(request, name), getattr(wanted, name)
        assert got == (want if name != "frames" else "openjd:1-3"), name


def test_a_job_takes_every_option_of_the_bare_command_that_has_a_meaning_on_a_farm():
    group = typer.main.get_command(app)
    bare, job = group.commands[COLOR], group.commands["farm"].commands["openjd"]
    options = {option for parameter in bare.params for option in parameter.opts}
    here_only = {"--chunk", "--dry-run", "-n", "--progress", "--on", "--workers", "--collect"}
    assert options - {option for parameter in job.params for option in parameter.opts} == here_only


def test_a_preset_that_a_bundle_keeps_is_whole_and_moves_with_it(tmp_path, walk):
    bundle = make_job(tmp_path / "job", walk, "--ref", key_of(walk), "--preset", "pencil")
    moved = bundle.rename(tmp_path / "elsewhere")
    ((_, words), *_) = commands(moved)
    assert words[words.index("--preset") + 1] == str(moved / "preset.yaml")
    assert main(["presets", "check", str(moved / "preset.yaml")]) == 0


def test_a_tree_has_a_step_for_each_shot_with_the_frames_of_that_shot(tmp_path):
    tree = tmp_path / "tree"
    draw_shot(tree / "sc01" / "c001", (1, 2))
    draw_shot(tree / "sc01" / "c002", (101, 102))
    draw_shot(tree / "sc01", (8,))     # a shot that has shots in it
    (tree / "sc01" / "key.png").unlink()
    for name in ("sc01", "c001", "c002"):
        draw_key(tmp_path / "keys" / f"{name}.png")
    bundle = make_job(tmp_path / "job", tree, "--ref", tmp_path / "keys" / "{shot}.png", "--out", tmp_path / "out")
    colored = {step: words for step, words in commands(bundle) if step.startswith("color")}
    assert list(colored) == ["color sc01", "color sc01/c001", "color sc01/c002"]
    assert {"--frames=openjd:101,102", "--shot=sc01/c002"} <= set(colored["color sc01/c002"])
    assets = read(bundle, "asset_references.yaml")["assetReferences"]
    assert assets["inputs"]["directories"] == [str(tree)]
    keys = [str(tmp_path / "keys" / f"{name}.png") for name in ("c001", "c002", "sc01")]
    assert sorted(assets["inputs"]["filenames"]) == keys
    assert assets["outputs"]["directories"] == [str(tmp_path / "out")]


def test_several_shots_go_where_the_bare_command_brings_them(tmp_path, monkeypatch):
    first, second = draw_shot(tmp_path / "a" / "walk"), draw_shot(tmp_path / "b" / "run")
    words = [str(first), str(second), "--ref", str(tmp_path / "a" / "key.png"), "--engine", "stand-in"]
    bundle = make_job(tmp_path / "job", first, second, "--ref", tmp_path / "a" / "key.png", "--out", tmp_path / "out")
    assert main([*words, "-o", str(tmp_path / "out"), "--progress", "none"]) == 0
    wanted = pictures(tmp_path / "out")
    for picture in tmp_path.glob("out/*/*"):
        picture.unlink()
    for _, told in commands(bundle):
        assert main(told) == 0
    assert pictures(tmp_path / "out") == wanted


def test_the_shots_of_a_list_keep_what_is_their_own(tmp_path, monkeypatch):
    for name in ("c001", "c002", "c003"):
        draw_shot(tmp_path / name, (1, 2))
    draw_key(tmp_path / "other.png")
    listed = tmp_path / "shots.yaml"
    listed.write_text(
        "ref: key.png\nout: colors\nset: sampling.steps=2\nshots:\n"
        "- {shot: c001}\n- {shot: c002, ref: other.png, frames: 2}\n- {shot: c003, preset: soft}\n"
    )
    bundle = make_job(tmp_path / "job", listed)
    colored = {step: words for step, words in commands(bundle) if step.startswith("color")}
    requests = {step: run_here(words, monkeypatch)[0] for step, words in colored.items()}
    first, second, third = requests["color c001"], requests["color c002"], requests["color c003"]
    assert (first.refs, first.frames) == ((str(tmp_path / "key.png"),), "openjd:1,2")
    assert (second.refs, second.frames) == ((str(tmp_path / "other.png"),), "openjd:2")
    assert first.preset == second.preset != third.preset
    assert third.preset == load_preset("soft", ["sampling.steps=2"])
    assert [str(one.out) for one in (first, second, third)] == [
        str(tmp_path / "colors" / name) for name in ("c001", "c002", "c003")
    ]
    assert sorted(path.name for path in bundle.glob("preset*")) == ["preset.yaml", "preset2.yaml"]


def test_an_episode_of_many_shots_stays_below_the_limit_of_parameters(tmp_path):
    names = [f"c{number:03d}" for number in range(26)]
    for name in names:
        draw_shot(tmp_path / "ep01" / name, (1,))
    bundle = make_job(tmp_path / "job", *(tmp_path / "ep01" / name for name in names), "--ref",
                      tmp_path / "ep01" / "key.png")
    colored = {step: words for step, words in commands(bundle) if step.startswith("color")}
    assert list(colored) == [f"color {name}" for name in names]
    assert colored["color c007"][0] == str(tmp_path / "ep01" / "c007")
    assert colored["color c007"][colored["color c007"].index("-o") + 1] == str(tmp_path / "ep01" / "c007_color")
    assets = read(bundle, "asset_references.yaml")["assetReferences"]
    assert assets["inputs"]["directories"] == [str(tmp_path / "ep01" / name) for name in names]
    assert assets["outputs"]["directories"] == [str(tmp_path / "ep01" / f"{name}_color") for name in names]


# What YAML, a shell, a command line or a format string would read as something else.
ODD_NAMES = [
    "null", "~x", "1e5", "- a", "a: b #c", "{{", "}}", "{{{", "}}}}}", "{ {", "{{Param.Shot}}", "Param.Out", "%(x)s",
    "\u2028x", "é", "e\u0301", "🎬", "a\\b", "\"'", "*", "&x", "!tag", "@x", "`x`", "|", "> x", "? x", "x" * 200, "-x",
    "--help", "$HOME", "a\u00a0b", " x ", "=", "a=b", "Task.Param.Frame",
]  # fmt: skip


def test_odd_names_of_shots_reach_their_tasks_as_they_are(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    for name in ODD_NAMES:
        draw_shot(tree / name, (1,))
    key = (tree / "key.png").rename(tmp_path / "{{Param.Out}} 'key'.png")
    bundle = make_job(tmp_path / "job", tree, "--ref", key, "--out", tmp_path / "out }} {{")
    told = [words for step, words in commands(bundle) if step.startswith("color")]
    requests = [run_here(words, monkeypatch)[0] for words in told]
    assert sorted(request.only for request in requests) == sorted((name,) for name in ODD_NAMES)
    assert {request.refs for request in requests} == {(str(key),)}
    assert {request.out for request in requests} == {tmp_path / "out }} {{"}
    for request in requests[::8]:
        assert [plan.out for plan in plan_shots(request)] == [tmp_path / "out }} {{" / request.only[0]]


def test_a_model_and_an_engine_that_are_folders_go_along(tmp_path, walk, monkeypatch):
    model, engine = hollow_model(tmp_path / "model"), tmp_path / "engine"
    preset = load_preset("cel", [f"model={model}"], lambda name: "mini")
    request = ShotRequest((str(walk),), (str(key_of(walk)),), preset=preset)
    bundle = make_bundle(FarmJob((Work(request, "mini", model),), engine_folder=engine))
    write_bundle(bundle, tmp_path / "job")
    (_, (_, words), _) = commands(tmp_path / "job")
    assert words[words.index("--model") + 1] == str(model)
    assert words[words.index("--engine") + 1] == str(engine)
    assert {str(model), str(engine)} <= set(bundle.input_folders)


def test_the_files_of_a_preset_go_along_and_are_mapped_like_everything_else(tmp_path, walk, monkeypatch):
    walls = tmp_path / "walls"
    draw_key(walls / "walk.png", (0.1, 0.2, 0.9))
    draw_key(walls / "run.png")
    words = ["--set", "background.split=true", "--set", f"background.image={walls}/{{shot}}.png"]
    bundle = make_job(tmp_path / "job", walk, "--ref", key_of(walk), *words)
    inputs = read(bundle, "asset_references.yaml")["assetReferences"]["inputs"]
    assert inputs["filenames"] == [str(key_of(walk)), str(walls / "walk.png")]
    values = {one["name"]: one["value"] for one in read(bundle, "parameter_values.yaml")["parameterValues"]}
    assert values["BackgroundImageFolder"] == str(walls)
    moved = walls.rename(tmp_path / "moved")
    told = [words for step, words in commands(bundle, BackgroundImageFolder=str(moved)) if step == "color walk"]
    request, _ = run_here(told[0], monkeypatch)
    assert request.preset.background.image == f"{moved}/{{shot}}.png"
    assert [plan.background for plan in plan_shots(request)] == [moved / "walk.png"]


def test_pictures_without_a_number_are_parted_by_count(tmp_path, monkeypatch):
    shot = tmp_path / "looks"
    for number, name in enumerate(["front", "back", "left", "right", "above"]):
        draw(shot / f"{name}.png", number)
    bundle = make_job(tmp_path / "job", shot, "--ref", draw_key(tmp_path / "key.png"), "--frames-per-task", "2")
    told = [words for step, words in commands(bundle) if step == "color looks"]
    assert [word for words in told for word in words if word.startswith("--chunk")] == [
        "--chunk=1/3", "--chunk=2/3", "--chunk=3/3",
    ]


def test_a_pattern_brings_its_own_frames_along_and_no_others(tmp_path):
    shot = draw_shot(tmp_path / "walk", (1, 2))
    draw(shot / "other.0001.png")
    pattern = shot / "walk.####.png"
    bundle = make_job(tmp_path / "job", pattern, "--ref", key_of(shot))
    inputs = read(bundle, "asset_references.yaml")["assetReferences"]["inputs"]
    assert inputs["directories"] == []
    assert sorted(inputs["filenames"]) == [str(key_of(shot)), str(shot / "walk.0001.png"), str(shot / "walk.0002.png")]
    assert [words[0] for step, words in commands(bundle)][:2] == [str(pattern), str(pattern)]


def test_farm_parameters_reach_the_farm_and_others_the_template(tmp_path, walk):
    bundle = make_job(
        tmp_path / "job", walk, "--ref", key_of(walk), "--parameter", "deadline:priority=80",
        "--parameter", "CondaPackages=colorcli =1.0", "--name", "a job",
    )  # fmt: skip
    values = {one["name"]: one["value"] for one in read(bundle, "parameter_values.yaml")["parameterValues"]}
    assert values["deadline:priority"] == 80   # Deadline Cloud refuses "80"
    template = read(bundle, "template.yaml")
    defaults = {one["name"]: one.get("default") for one in template["parameterDefinitions"]}
    assert defaults["CondaPackages"] == "colorcli =1.0"
    assert template["name"] == "a job"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--ref", "{parent}/nowhere.png"], 3, "there is no key"),
        (["--parameter", "Shot=x"], 2, "Shot is one of colorcli's own"),
        (["--parameter", "1x=x"], 2, "1x is no name for a parameter"),
        (["--parameter", "x"], 2, "not of the form NAME=VALUE"),
        (["--need", "gpu=many"], 2, "--need gpu=many is no need"),
        (["--command", "a 'b"], 2, "--command a 'b"),
        (["--name", "x" * 2000], 0, ""),
        (["--parameter", "x=" + "y" * 2000], 2, "has 2000 characters"),
        (["--frames", "50"], 3, "has no frame of 50"),
        (["--set", "sampling.stepz=1"], 4, "stepz"),
        (["--out", "{parent}/walk/colors"], 2, "lies inside the shot"),
        (["-o", "{parent}/walk"], 2, "lies in {parent}/walk, which goes into the job"),
        (["-o", "{parent}/walk/job"], 2, "lies in {parent}/walk, which goes into the job"),
        (["-o", "{parent}"], 2, "holds something else than a job bundle"),
        (["--engine", "{parent}/nowhere"], 2, "nowhere"),
        (["--device", "gpu"], 2, "--device gpu is no device"),
        (["-o", "{parent}/key.png"], 9, "is a file, not a folder"),
    ],
)
def test_what_cannot_become_a_job_is_told_at_once(tmp_path, walk, capsys, words, code, message):
    typed = [word.replace("{parent}", str(tmp_path)) for word in words]
    usual = {"--ref": key_of(walk), "-o": tmp_path / "job", "--engine": "stand-in"}
    given = [str(word) for option, value in usual.items() if option not in words for word in (option, value)]
    before = sorted(tmp_path.rglob("*"))
    assert main(["farm", "openjd", str(walk), *given, *typed]) == code
    assert message.replace("{parent}", str(tmp_path)) in capsys.readouterr().err
    assert code == 0 or sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "/".join(letter * 230 for letter in "abcde")])
def test_names_that_no_job_description_holds_are_refused(tmp_path, capsys, name):
    shot = draw_shot(tmp_path / name / "walk", (1,))
    assert main(["farm", "openjd", str(shot), "--ref", str(key_of(shot)), "-o", str(tmp_path / "job")]) == 2
    assert "try:   rename it" in capsys.readouterr().err


def test_without_the_library_that_checks_bundles_the_extra_is_named(tmp_path, walk, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openjd.model", None)
    words = ["farm", "openjd", str(walk), "--ref", str(key_of(walk)), "-o", str(tmp_path / "job")]
    assert main([*words, "--engine", "stand-in"]) == 2
    assert "try:   pip install 'colorcli[farm]'" in capsys.readouterr().err
    assert not (tmp_path / "job").exists()


def test_a_bundle_is_written_over_by_the_next_one_of_its_name(tmp_path, walk):
    bundle = make_job(tmp_path / "job", walk, "--ref", key_of(walk))
    assert make_job(bundle, walk, "--ref", key_of(walk), "--frames", "9") == bundle
    (_, color, _) = job_of(bundle).steps
    assert [task["Frame"] for task in tasks_of(color)] == ["9"]


def test_frames_with_hundreds_of_gaps_each_have_their_task(tmp_path):
    """Too many ranges for the value of a parameter, which holds 1024 characters."""
    numbers = [number * number for number in range(300)]
    shot = tmp_path / "walk"
    shot.mkdir()
    drawn = draw(tmp_path / "drawn.png").read_bytes()
    for number in numbers:
        (shot / f"walk.{number}.png").write_bytes(drawn)
    bundle = make_job(tmp_path / "job", shot, "--ref", draw_key(tmp_path / "key.png"))
    (_, color, _) = job_of(bundle).steps
    assert [number for task in tasks_of(color) for number in IntRangeExpr.from_str(task["Frame"])] == numbers


def test_a_failing_frame_stops_the_job_and_a_retry_colors_only_what_is_left(tmp_path):
    """For real: the job is run, a frame in the middle is torn, it is mended, the job is run again."""
    shot = draw_shot(tmp_path / "walk", (1, 3, 5, 7, 9, 10))
    good = (shot / "walk.0003.png").read_bytes()
    (shot / "walk.0003.png").write_bytes(good[: len(good) // 2])
    bundle = make_job(tmp_path / "job", shot, "--ref", key_of(shot), "--frames-per-task", "3")
    out = tmp_path / "walk_color"

    failed = run_job(bundle)
    assert failed.returncode == 1
    assert "Frame(CHUNK[INT]) = 1-5:2" in failed.stdout       # a step as Open Job Description writes it
    assert "openjd_fail: 1 of 3 frames failed: walk.0003" in failed.stdout
    assert "merge and verify" not in failed.stdout
    before = {name: (out / name).stat().st_mtime_ns for name in pictures(out)}
    assert sorted(before) == ["walk.0001.png", "walk.0005.png"]

    (shot / "walk.0003.png").write_bytes(good)
    retried = run_job(bundle)
    assert retried.returncode == 0, retried.stdout
    assert "6 of 6 frames are there, 0 failed" in retried.stdout
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert {record.number for record in read_records(out)} == {1, 3, 5, 7, 9, 10}

    plain = colorcli(shot, "--ref", key_of(shot), "-o", tmp_path / "plain", "--engine", "stand-in")
    assert plain.returncode == 0
    assert pictures(out) == pictures(tmp_path / "plain")


def test_steady_colors_need_no_step_of_their_own(tmp_path):
    """For real: tasks of three frames come to the same votes as one run, as each hears the drawings around its own."""
    shot = draw_shot(tmp_path / "walk", range(1, 8))
    bundle = make_job(tmp_path / "job", shot, "--ref", key_of(shot), "--frames-per-task", "3", "--steady")
    done = run_job(bundle)
    assert done.returncode == 0, done.stdout
    for name, more in (("steady", ["--steady"]), ("alone", [])):
        plain = colorcli(shot, "--ref", key_of(shot), "-o", tmp_path / name, "--engine", "stand-in", *more)
        assert plain.returncode == 0
    assert pictures(tmp_path / "walk_color") == pictures(tmp_path / "steady") != pictures(tmp_path / "alone")


def test_cruel_names_on_a_machine_that_sees_the_disk_elsewhere(tmp_path):
    """For real: spaces, quotes, dollars and braces in all names, and a path mapping rule as Deadline Cloud sends it."""
    disk = tmp_path / "artist" / "disk"
    tree = disk / CRUEL
    draw_shot(tree / "c 1'\"{{x}}", (1, 2))
    for number in (1, 2):
        draw(tree / "-c2" / f"{CRUEL} {number:04d}.png", number)
    (tree / "key.png").rename(disk / "keys'.png")
    bundle = make_job(tmp_path / "job", tree, "--ref", disk / "keys'.png", "--out", disk / "o u t")
    there = tmp_path / "node"
    disk.rename(there)
    rules = {
        "version": "pathmapping-1.0",
        "path_mapping_rules": [
            {"source_path_format": "POSIX", "source_path": str(disk), "destination_path": str(there)}
        ],
    }
    done = run_job(bundle, "--path-mapping-rules", json.dumps(rules))
    assert done.returncode == 0, done.stdout
    assert not disk.exists()
    assert len(pictures(there / "o u t")) == 4
    assert not list(tmp_path.rglob("x"))

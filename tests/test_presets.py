"""Presets as people write them: extended, overridden, explained, and refused with the line that is wrong."""

from pathlib import Path

import pytest
import yaml

from colorcli.errors import PresetError
from colorcli.presets import (
    BackgroundSettings,
    Preset,
    check_for_variant,
    check_preset,
    default_preset,
    explain_preset,
    flat_settings,
    load_preset,
    preset_keys,
    shipped_presets,
)
from colorcli.variants import VARIANTS


def write(folder: Path, text: str, name: str = "style.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(name: str, *overrides: str) -> PresetError:
    with pytest.raises(PresetError) as caught:
        load_preset(name, overrides)
    return caught.value


SHIPPED = [
    "cel", "draft", "fast", "keep-background", "papers", "pencil", "published", "soft", "turbo", "xl", "xl-draft",
    "xl-fast", "xl-turbo",
]  # fmt: skip


def test_the_presets_that_are_shipped_begin_with_cel() -> None:
    assert list(shipped_presets()) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_preset_is_valid_and_says_what_it_is_for(name: str) -> None:
    assert check_preset(name) == []
    assert explain_preset(name).description


@pytest.mark.parametrize("model", sorted(VARIANTS))
@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.startswith(("xl", "papers", "fast", "turbo"))])
def test_a_shipped_preset_leaves_how_the_picture_is_drawn_to_the_model(name: str, model: str) -> None:
    explained = explain_preset(name, [f"model={model}"])
    how = {path: origin for path, origin in explained.origins.items() if path.startswith("sampling.")}
    assert {origin for origin in how.values() if origin not in ("default", f"model {model}")} == set()


def test_the_default_preset_is_the_defaults_of_the_groups() -> None:
    assert load_preset("cel") == Preset()


def test_what_a_file_does_not_say_comes_from_the_preset_it_extends(tmp_path: Path) -> None:
    style = write(tmp_path, "extends: soft\nsampling:\n  steps: 20\n")
    soft, extended = flat_settings(load_preset("soft")), flat_settings(load_preset(style))
    assert {path for path in soft if soft[path] != extended[path]} == {"sampling.steps"}


def test_extends_with_a_path_is_read_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "studio").mkdir()
    write(tmp_path / "studio", "sampling: {seed: 99}\n", "base.yaml")
    style = write(tmp_path / "studio", "extends: base.yaml\n")
    monkeypatch.chdir("/")
    assert load_preset(style).sampling.seed == 99


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    style = write(tmp_path, "sampling:\n  steps: 20\n  seed: 5\n")
    explained = explain_preset(style, ["sampling.steps=3"])
    assert (explained.preset.sampling.steps, explained.preset.sampling.seed) == (3, 5)
    assert explained.origins["sampling.steps"] == "--set sampling.steps=3"
    assert explained.origins["sampling.seed"] == f"{style}:3"
    assert explained.origins["sampling.sampler"] == "default"


def test_the_last_of_two_overrides_of_one_setting_wins() -> None:
    assert load_preset("cel", ["sampling.steps=3", "sampling.steps=4"]).sampling.steps == 4


def test_a_list_and_a_null_can_be_set_on_the_command_line() -> None:
    preset = load_preset("draft", ["sketch.levels=[1, 1, 0.5, 0]", "canvas.area=null"])
    assert preset.sketch.levels == (1.0, 1.0, 0.5, 0.0)
    assert preset.canvas.area is None


def test_off_is_the_word_and_not_false(tmp_path: Path) -> None:
    assert load_preset(write(tmp_path, "finish:\n  palette: off\n")).finish.palette == "off"


def test_a_model_may_have_a_number_for_a_name() -> None:
    assert load_preset("cel", ["model=2"]).model == "2"


def test_a_group_whose_lines_are_commented_out_changes_nothing(tmp_path: Path) -> None:
    assert load_preset(write(tmp_path, "sampling:\n  # steps: 12\n")) == Preset()


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_preset(write(tmp_path, "# nothing yet\n")) == Preset()


@pytest.mark.parametrize("model", ["mini", "xl", "xlv2"])
def test_settings_written_as_yaml_load_as_the_same_preset(tmp_path: Path, model: str) -> None:
    preset = load_preset("pencil", ["sketch.levels=[1, 1, 0.5, 0]", f"model={model}", "injection.on=true"])
    assert load_preset(write(tmp_path, yaml.safe_dump(preset.model_dump(mode="json")))) == preset


def test_a_whole_number_and_the_same_number_with_a_point_are_one_setting() -> None:
    one, two = (load_preset("cel", [f"sketch.strength={text}"]) for text in ("1", "1.0"))
    assert repr(one.model_dump(mode="json")) == repr(two.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("text", "line", "key", "near"),
    [
        ("sampling:\n  step: 12\n", 2, "sampling.step", "sampling.steps"),
        ("steps: 12\n", 1, "steps", "sampling.steps"),
        ("samplign:\n  steps: 12\n", 1, "samplign", "sampling"),
        ("finish:\n  fil: flat\n", 2, "finish.fil", "finish.fill"),
        ("reference:\n  palette_reach: 3\n", 2, "reference.palette_reach", "finish.palette_reach"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_good_one(
    tmp_path: Path, text: str, line: int, key: str, near: str
) -> None:
    style = write(tmp_path, text)
    error = refusal(style)
    assert error.message == f"{style}:{line}: {key} is no setting"
    assert error.hint == f"did you mean {near}?"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("sampling.steps=twelve", 'sampling.steps is "twelve", but it must be a whole number, 0 to 100'),
        ("sampling.steps=-1", "sampling.steps is -1, but it must be a whole number, 0 to 100"),
        ("sampling.steps=true", "sampling.steps is true, but it must be a whole number, 0 to 100"),
        ("sampling.steps=6.5", "sampling.steps is 6.5, but it must be a whole number, 0 to 100"),
        ("sampling.steps=", "sampling.steps is null, but it must be a whole number, 0 to 100"),
        ("sketch.levels=[1, 2]", "sketch.levels is [1, 2], but it must be a list of 4 values, each a number"),
        ("finish.fill=flatt", 'finish.fill is "flatt", but it must be one of flat, soft'),
        ("background.split=yes", 'background.split is "yes", but it must be true or false'),
        ("canvas.area=9", "canvas.area is 9, but it must be a whole number, 4096 to 4194304, or null"),
        ("canvas.margin=.nan", 'canvas.margin is ".nan", but it must be a number, 0 to 0.5'),
        ("sampling=3", "sampling is a group of settings"),
        ("sampling.steps", "is not of the form key=value"),
    ],
)
def test_a_wrong_value_is_shown_with_what_was_expected(override: str, says: str) -> None:
    message = refusal("cel", override).message
    assert message.startswith(f"--set {override}")
    assert says in message


def test_a_choice_that_was_nearly_right_is_suggested() -> None:
    assert refusal("cel", "sampling.sampler=dpm++").hint == "did you mean dpm++2m?"
    assert refusal("cel", "sampling.sampler=DPM++ 3M SDE").hint == "did you mean dpm++3m-sde?"


def test_a_value_where_a_group_belongs_is_named(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "sampling: 12\n"))
    assert "sampling is 12, but it is a group of settings" in error.message
    assert "steps" in (error.hint or "")


def test_check_lists_every_problem_and_loading_says_how_many_there_are(tmp_path: Path) -> None:
    style = write(tmp_path, "lines:\n  papper: 0.9\nsampling:\n  steps: -1\n  seed: x\n")
    assert len(check_preset(style)) == 3
    error = refusal(style)
    assert "(and 2 more)" in error.message
    assert error.hint == f"`colorcli presets check {style}` lists them all"


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    assert "is set twice" in refusal(write(tmp_path, "sampling:\n  steps: 1\n  steps: 2\n")).message


def test_a_python_tag_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    victim = tmp_path / "ran"
    error = refusal(write(tmp_path, f"model: !!python/object/apply:os.mkdir ['{victim}']\n"))
    assert "!!python/object/apply:os.mkdir is refused" in error.message
    assert not victim.exists()


@pytest.mark.parametrize("text", ["!!python/name:os.system", "!!set {a}", "!mine x", "!!python/object:os.x y"])
def test_every_tag_is_refused(tmp_path: Path, text: str) -> None:
    assert "is refused" in refusal(write(tmp_path, f"model: {text}\n")).message


def test_a_bomb_of_aliases_is_refused_before_it_expands(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    bomb = "sampling:\n  window: [" + ", ".join(["*a29"] * 2) + "]\n"
    # The anchors stand in front of the place where they are used, inside one setting that exists.
    text = "model: mini\nsketch:\n  levels:\n" + "".join(f"    - &a{n} {line.split(' ', 2)[2]}\n"
                                                         for n, line in enumerate(lines)) + bomb
    assert "refused" in refusal(write(tmp_path, text)).message


def test_an_alias_of_itself_is_refused(tmp_path: Path) -> None:
    assert "refused" in refusal(write(tmp_path, "sketch:\n  levels: &loop [*loop, 1]\n")).message


def test_brackets_without_end_are_refused(tmp_path: Path) -> None:
    assert "nested too deeply" in refusal(write(tmp_path, "model: " + "[" * 50_000)).message


def test_a_file_of_more_than_256_kb_is_refused(tmp_path: Path) -> None:
    assert "larger than 256 kB" in refusal(write(tmp_path, "# x\n" * 100_000)).message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "style.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xff")
    assert "is no UTF-8 text" in refusal(str(tmp_path / "style.yaml")).message


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    style = write(tmp_path, "sampling:\n\tsteps: 3\n")
    error = refusal(style)
    assert error.message.startswith(f"{style}:2 is no readable YAML")
    assert error.hint == "indent with spaces, not with tabs"


def test_a_list_is_no_preset(tmp_path: Path) -> None:
    assert "must hold settings" in refusal(write(tmp_path, "- cel\n- soft\n")).message


def test_presets_that_extend_each_other_in_a_circle_are_refused_with_the_circle(tmp_path: Path) -> None:
    first = write(tmp_path, "extends: b.yaml\n", "a.yaml")
    write(tmp_path, "extends: a.yaml\n", "b.yaml")
    message = refusal(first).message
    assert "extends itself" in message
    assert "a.yaml -> " in message


def test_a_file_may_have_the_name_of_the_shipped_preset_it_extends(tmp_path: Path) -> None:
    style = write(tmp_path, "extends: cel\nsampling: {seed: 1}\n", "cel.yaml")
    assert load_preset(style).sampling.seed == 1


def test_a_wrong_name_suggests_the_nearest_preset() -> None:
    assert refusal("pencl").hint == "did you mean pencil?"


def test_a_wrong_name_in_extends_names_the_file_that_says_it(tmp_path: Path) -> None:
    style = write(tmp_path, "extends: sofft\n")
    error = refusal(style)
    assert error.message == f'{style} extends "sofft", but there is no preset called "sofft"'
    assert error.hint == "did you mean soft?"


def test_a_name_without_its_yaml_points_to_the_file_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "", "mystyle.yaml")
    monkeypatch.chdir(tmp_path)
    assert refusal("mystyle").hint == "for the file write mystyle.yaml"


def test_every_setting_has_a_meaning_and_a_default_that_it_allows() -> None:
    keys = preset_keys()
    assert {key.path for key in keys} == set(flat_settings(Preset()))
    assert [key.path for key in keys if not key.meaning] == []


@pytest.mark.parametrize(
    ("overrides", "says", "hint"),
    [
        (["background.image=sky.png"], "background.image is set, but only split attention sees it",
         "--set background.split=true"),
        (["background.remove_foreground=true"], "there is no background.image to take a character out of",
         "--set background.image=PICTURE"),
        (["background.latent_copy=true"], "there is no background.image to copy", "--set background.image=PICTURE"),
        (["masks.source=network"], "neither masks.network nor masks.key_network names a file",
         "--set masks.network=FILE.onnx"),
        (["lines.extractor=network"], "lines.network names no file", "--set lines.network=FILE.onnx"),
        (["sampling.schedule=exponential"], "the sampler ddim knows only automatic",
         "--set sampling.schedule=automatic"),
        (["sampling.sampler=diffusers-dpm", "sampling.schedule=uniform"], "knows only automatic and karras",
         "--set sampling.schedule=karras"),
        (["sampling.steps=100", "sampling.start_level=0.05"], "more than the noise schedule has",
         "--set sampling.steps=12"),
        (["sampling.sampler=diffusers-pndm", "sampling.steps=20"], "whose first steps lead out of noise",
         "--set sampling.start=noise"),
        (["sampling.sampler=diffusers-pndm", "sampling.start=noise", "sampling.steps=3"], "needs 4 or more",
         "--set sampling.steps=4"),
        (["reference.guidance_window=[0.8, 0.2]"], "begins at 0.8, after its end at 0.2",
         "write the smaller number first"),
        (["sampling.start=noise", "sampling.steps=0"], "which nothing would then be made of",
         "--set sampling.steps=12"),
        (["warm_start.on=true", "canvas.crop=frame"], "such a run begins from the key's colors already",
         "--set warm_start.on=false"),
        (["warm_start.on=true", "sampling.start=noise"], "the canvas would move between the frames",
         "--set canvas.crop=frame"),
        (["warm_start.on=true", "sampling.start=noise", "canvas.crop=frame", "sampling.sampler=diffusers-pndm",
          "sampling.steps=9"], "whose first steps lead out of noise", "--set sampling.sampler=dpm++2m"),
        (["sampling.window=[0.8, 0.2]"], "begins at 0.8, after its end at 0.2", "write the smaller number first"),
    ],
)
def test_two_settings_that_disagree_are_named_with_a_way_out(overrides: list[str], says: str, hint: str) -> None:
    error = refusal("cel", *overrides)
    assert says in error.message
    assert error.hint == hint
    assert error.message.startswith("--set ")


def test_a_disagreement_in_a_file_names_its_line(tmp_path: Path) -> None:
    style = write(tmp_path, "background:\n  rule: model\n  image: sky.png\n")
    assert refusal(style).message == f"{style}:3: background.image is set, but only split attention sees it"


def test_a_disagreement_is_gone_when_either_side_gives_way() -> None:
    assert load_preset("cel", ["background.split=true", "background.image=a.png", "background.latent_copy=true"])
    assert load_preset("cel", ["sampling.sampler=dpm++2m", "sampling.schedule=exponential"])


def test_a_file_named_in_a_preset_is_looked_for_beside_it_and_one_on_the_command_line_here(tmp_path: Path) -> None:
    style = write(tmp_path, "masks: {source: network, network: nets/isnet.onnx, key_network: /opt/key.onnx}\n")
    masks = load_preset(style).masks
    assert (masks.network, masks.key_network) == (f"{tmp_path}/nets/isnet.onnx", "/opt/key.onnx")
    assert load_preset(style, ["masks.network=mine.onnx"]).masks.network == "mine.onnx"


def test_a_file_in_the_home_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ink")
    style = write(tmp_path, "masks: {source: network, network: ~/nets/isnet.onnx}\n")
    assert load_preset(style).masks.network == "/home/ink/nets/isnet.onnx"
    assert load_preset(style, ["masks.network=~/mine.onnx"]).masks.network == "/home/ink/mine.onnx"


@pytest.mark.parametrize(
    ("model", "override", "lacks"),
    [
        ("xl", "sampling.start=match", "the model xl has no color match (has one: mini)"),
        ("mini", "background.reference_net=true", "the model mini has no ReferenceNet (has one: xlv2)"),
        ("xl", "background.reference_net=true", "the model xl has no ReferenceNet (has one: xlv2)"),
        ("mini", "background.adapter=0.5", "the model mini has no low-rank adapter (has one: xlv2, v2)"),
        ("xl", "background.hints=0.5", "the model xl has no background encoder (has one: v2)"),
        ("xlv2", "style.enhance=true", "the model xlv2 has no style encoder (has one: v2)"),
        ("v2", "sampling.start=match", "the model v2 has no color match (has one: mini)"),
        ("v2", "background.reference_net=true", "the model v2 has no ReferenceNet (has one: xlv2)"),
    ],
)
def test_a_model_that_lacks_what_a_setting_asks_for_says_which_have_it(model: str, override: str, lacks: str) -> None:
    path, _, value = override.partition("=")
    message = f"{path} is {value}, but {lacks}"
    asked = [f"model={model}", "background.split=true", override]
    assert refusal("cel", *asked).message == f"--set {override}: {message}"


def test_what_a_model_lacks_may_be_named_where_nobody_looks_at_it() -> None:
    unseen = ["background.reference_net=true", "background.adapter=0.5", "background.hints=0.5"]
    assert not load_preset("cel", unseen).background.split


def test_a_preset_made_in_python_is_checked_against_its_model_too() -> None:
    with pytest.raises(PresetError) as caught:
        check_for_variant(Preset(model="xl"), VARIANTS["xl"])
    assert caught.value.message == "sampling.start is match, but the model xl has no color match (has one: mini)"
    with pytest.raises(PresetError, match="only split attention sees it"):
        check_for_variant(Preset(background=BackgroundSettings(image="sky.png")), VARIANTS["mini"])
    check_for_variant(Preset(), VARIANTS["mini"])


def test_the_adapter_model_reads_either_the_key_or_the_background_in_self_attention() -> None:
    both = ["injection.on=true", "background.split=true"]
    assert "in self-attention already" in refusal("cel", "model=xlv2", *both).message
    assert load_preset("cel", ["model=xl", *both]).injection.on
    assert load_preset("cel", ["model=xlv2", *both, "background.reference_net=false"]).injection.on


WORDS = "manipulate:\n  - target: red hair\n    scale: 8\n    anchor: hair\n"


def test_edits_by_words_are_read_in_their_order(tmp_path: Path) -> None:
    style = write(tmp_path, "model: v2\n" + WORDS + "  - {target: night, scale: 3, thresholds: [0, 0.1, 0.2, 0.3]}\n")
    first, second = load_preset(style).manipulate
    assert (first.target, first.scale, first.anchor, first.control) == ("red hair", 8, "hair", None)
    assert (second.target, second.thresholds) == ("night", (0, 0.1, 0.2, 0.3))
    replaced = load_preset(style, ["manipulate=[{target: 'a: b', scale: 1}]"]).manipulate
    assert [edit.target for edit in replaced] == ["a: b"]


def test_edits_by_words_written_as_yaml_load_as_the_same(tmp_path: Path) -> None:
    preset = load_preset(write(tmp_path, "model: v2\n" + WORDS))
    again = write(tmp_path, yaml.safe_dump(preset.model_dump(mode="json")), "again.yaml")
    assert load_preset(again) == preset


@pytest.mark.parametrize("model", ["mini", "xl", "xlv2"])
def test_edits_by_words_are_refused_by_models_that_read_none(tmp_path: Path, model: str) -> None:
    style = write(tmp_path, WORDS)
    error = refusal(style, f"model={model}", "sampling.start=noise")
    lacks = f"manipulate is set (1 edit), but the model {model} has no text encoder (has one: v2)"
    assert error.message == f"{style}:1: {lacks}"


@pytest.mark.parametrize(
    ("entries", "says", "hint"),
    [
        ("[{target: a, scale: 99}]", "manipulate, entry 1: scale is 99, but it must be a number, 0 to 15", "scale:"),
        ("[{target: a, scale: 1}, {scale: 1}]", "manipulate, entry 2 has no target", "what the key shall show"),
        ("[{target: a, scale: 1, ancor: b}]", "manipulate, entry 1: ancor is no setting", "did you mean anchor?"),
        ("[{target: a, scale: 1, thresholds: [0, 1]}]", "must be a list of 4 values", "thresholds:"),
        ("[red]", 'manipulate, entry 1 is "red", but it must be a group', "{target: ..., ...}"),
        ("{target: a, scale: 1}", "it must be a list of up to 20 groups, each with target, scale", "- target: ..."),
        ("[{target: a, scale: 1, enhance: true}]", "enhance in entry 1, but no anchor", "write an anchor"),
        ("[{target: a, scale: 1, thresholds: [0, 1, 0.5, 1]}]", "thresholds that fall", "write them rising"),
    ],
)
def test_what_is_wrong_with_an_edit_is_named_with_its_entry(
    tmp_path: Path, entries: str, says: str, hint: str
) -> None:
    style = write(tmp_path, f"model: v2\nmanipulate: {entries}\n")
    error = refusal(style)
    assert error.message.startswith(f"{style}:2: ") and says in error.message
    assert hint in (error.hint or "")


def test_every_setting_of_an_edit_has_a_meaning() -> None:
    entries = next(key.entries for key in preset_keys() if key.path == "manipulate")
    assert [key.path for key in entries][:2] == ["target", "scale"]
    assert all(key.meaning for key in entries)


@pytest.mark.parametrize("model", sorted(VARIANTS))
def test_a_models_own_settings_fit_it(model: str) -> None:
    preset = default_preset(model)
    assert preset.model == model
    check_for_variant(preset, VARIANTS[model])
    assert {path: flat_settings(preset)[path] for path in VARIANTS[model].settings} == VARIANTS[model].settings


def test_a_strength_for_each_block_has_to_be_one_for_each_block() -> None:
    right, wrong = (f"reference.blocks=[{', '.join(['0.5'] * n)}]" for n in (17, 16))
    assert load_preset("cel", [right]).reference.blocks == (0.5,) * 17
    says = "holds 16 numbers, but the model mini has 17 transformer blocks"
    assert says in refusal("cel", wrong).message


def test_the_published_defaults_lie_under_a_preset_and_over_ours(tmp_path: Path) -> None:
    style = write(tmp_path, "sampling:\n  steps: 8\n")
    explained = explain_preset(style, ["model=xl", "reference.guidance=2"])
    sampling = explained.preset.sampling
    assert (sampling.sampler, sampling.steps, sampling.start) == ("dpm++3m-sde", 8, "noise")
    assert explained.preset.reference.guidance == 2
    assert explained.origins["sampling.sampler"] == "model xl"
    assert explained.origins["sampling.steps"] == f"{style}:2"
    assert explained.origins["reference.guidance"] == "--set reference.guidance=2"
    assert explained.origins["sampling.seed"] == "default"


def test_a_folder_gets_the_settings_of_the_family_it_belongs_to() -> None:
    preset = load_preset("cel", ["model=/models/mine"], lambda model: "xl" if model == "/models/mine" else "mini")
    assert (preset.model, preset.sampling.steps) == ("/models/mine", 20)
    assert load_preset("cel", ["model=/models/mine"]).sampling.steps == 1


def test_a_canvas_size_has_to_fit_the_model_and_the_nearest_that_does_is_named() -> None:
    assert load_preset("cel", ["canvas.size=[320, 320]"]).canvas.size == (320, 320)
    error = refusal("cel", "model=xl", "canvas.size=[1000, 400]")
    assert error.message.endswith("canvas.size is 1000 x 400, but the model xl takes multiples of 32")
    assert error.hint == "--set canvas.size=[992, 384]"
    assert load_preset("cel", ["model=xl", error.hint.removeprefix("--set ")]).canvas.size == (992, 384)

"""`colorcli models pull`: what it shows, what it asks, and what is there in the end."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from colorcli.cli import pull as pull_module
from colorcli.cli.main import main
from colorcli.model.description import describe, recorded_source
from colorcli.model.hub import CLIP, CLIP_H, PUBLISHED, PUBLISHED_SD, TAGGER
from colorcli.model.weights import write_list
from tests.hub_server import FakeHub, sha256
from tests.model.published import write_published, write_tokenizer, write_towers, write_vit_h

LARGE = b"not weights, but as many bytes as this says" * 3000
pytestmark = pytest.mark.usefixtures("models")


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.add(PUBLISHED, {"sdxl-a.safetensors": LARGE, "sdxl-b.safetensors": LARGE[:2000]},
                    license="cc-by-nc-sa-4.0")
        running.add(CLIP.repository, {"config.json": b"{}", "model.safetensors": LARGE[:5000]})
        running.add(TAGGER.repository, {"model.safetensors": LARGE[:4000]})
        yield running


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    """(exit code, stdout, lines of stderr) of a command line."""
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err.splitlines()


def pull(capsys: pytest.CaptureFixture[str], server: FakeHub, *more: str) -> tuple[int, str, list[str]]:
    return run(capsys, "models", "pull", "xl", "--endpoint", server.url, *more)


def nothing_was_fetched(server: FakeHub, models: Path) -> bool:
    return not server.transfers and not models.exists()


def test_without_a_terminal_a_license_has_to_be_accepted_by_an_option(
    capsys: pytest.CaptureFixture[str], server: FakeHub, models: Path
) -> None:
    code, out, err = pull(capsys, server)
    assert code == 5
    assert err[-1].startswith("colorcli: error[weights]: license not accepted: xl comes under Apache-2.0, CC-BY-NC-SA")
    assert err[-2] == "try:   read them, then: colorcli models pull xl --accept-license"
    assert "CC-BY-NC-SA-4.0 (non-commercial use only" in out and "sdxl-a.safetensors" in out
    assert nothing_was_fetched(server, models)


def test_on_a_terminal_it_asks_and_a_no_fetches_nothing(
    capsys: pytest.CaptureFixture[str], server: FakeHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = []
    monkeypatch.setattr("colorcli.console.can_ask", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or "")
    code, _, err = pull(capsys, server)
    assert code == 5 and "license not accepted: nothing was fetched" in err[-1]
    assert questions == [
        "Do you accept Apache-2.0, CC-BY-NC-SA-4.0, MIT, and shall the files be fetched? [y/N] "]
    assert nothing_was_fetched(server, models)


def test_too_small_a_disk_is_found_before_anything_is_fetched(
    capsys: pytest.CaptureFixture[str], server: FakeHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "free_bytes", lambda folder: 200_000)
    code, _, err = pull(capsys, server, "--accept-license")
    assert code == 9
    # All files together: 129000 + 2 + 5000 + 4000 bytes, to fetch and once more to install.
    assert "has 200.0 kB free, and xl needs 276.0 kB: 138.0 kB to fetch" in err[-1]
    assert nothing_was_fetched(server, models)


def test_a_pull_offline_asks_nobody(
    capsys: pytest.CaptureFixture[str], server: FakeHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pull(capsys, server, "--offline")[0] == 5
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = pull(capsys, server, "--accept-license")
    assert code == 5 and "HF_HUB_OFFLINE is set" in err[-1]
    assert not server.requests


def test_ctrl_c_keeps_what_is_here_and_the_same_command_fetches_the_rest(
    capsys: pytest.CaptureFixture[str], server: FakeHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from colorcli.console import Transfers

    def stop_at_half(self: Transfers, name: str, done: int, size: int, done_of_all: int) -> None:
        if name == "sdxl-a.safetensors" and done >= size / 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(Transfers, "update", stop_at_half)
        code, _, err = pull(capsys, server, "--accept-license")
    assert code == 130
    assert re.match(r"70\.0 kB of 138\.0 kB are here and stay in .*downloads", err[0])
    assert err[-1] == ("colorcli: error[interrupted]: interrupted; what is finished stays, "
                       "the same command goes on from there")
    part = next((models / "downloads").rglob("*.part"))
    kept = part.stat().st_size
    assert 50_000 < kept <= 70_000
    pull(capsys, server, "--accept-license")  # what came is no model, so that it ends in an error
    again = [transfer for transfer in server.transfers if transfer.path == "sdxl-a.safetensors"][-1]
    assert (again.start, again.sent) == (kept, len(LARGE) - kept)


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (("mini",), 5, "ships inside colorcli"),
    (("xxl",), 5, "colorcli can pull xl, xlv2, v2"),
    (("xl", "--dtype", "int3"), 2, "none of"),
])
def test_a_pull_that_cannot_be_meant_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, words: str
) -> None:
    got, _, err = run(capsys, "models", "pull", *arguments)
    assert got == code and any(words in line for line in err)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that the hub has of both models, at a width that a test can run."""
    folder = tmp_path_factory.mktemp("published")
    clip, tagger = write_towers(folder)
    return {"clip": clip.read_bytes(), "tagger": tagger.read_bytes(),
            "sdxl-small.safetensors": write_published(folder / "xl.safetensors", "sdxl").read_bytes(),
            "xlv2-small.safetensors": write_published(folder / "xlv2.safetensors", "xlv2").read_bytes()}


@pytest.fixture
def whole_hub(published: dict[str, bytes]) -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.add(PUBLISHED, {name: content for name, content in published.items() if "-" in name},
                    license="cc-by-nc-sa-4.0")
        running.add(CLIP.repository, {"config.json": b"{}", "model.safetensors": published["clip"]})
        running.add(TAGGER.repository, {"model.safetensors": published["tagger"]})
        yield running


def test_a_pulled_model_is_that_of_the_published_file_and_can_be_loaded(
    capsys: pytest.CaptureFixture[str], whole_hub: FakeHub, models: Path, published: dict[str, bytes]
) -> None:
    import safetensors.torch

    from colorcli.loading import load_pipeline

    code, out, err = pull(capsys, whole_hub, "--accept-license")
    assert code == 0, err
    assert out.splitlines()[-1] == "next: colorcli SHOT --ref KEY --model xl"
    assert not (models / "downloads").exists()
    written = json.loads((models / "xl" / "weights.json").read_text())
    assert written["license"] == "CC-BY-NC-SA-4.0" and written["source"]["hub"] == whole_hub.url
    commit = whole_hub.repositories[PUBLISHED].commit
    assert [(entry["part"], entry["revision"] == commit) for entry in written["source"]["files"]] == [
        ("checkpoint", True), ("clip", False), ("clip", False), ("tagger", False)]
    assert written["source"]["files"][0]["sha256"] == sha256(published["sdxl-small.safetensors"])

    assert str(models) not in json.dumps(written)   # the downloads are gone
    assert run(capsys, "models", "verify", "xl")[0] == 0
    assert run(capsys, "models", "list")[1].splitlines()[2].split()[:2] == ["xl", "installed"]
    loaded = load_pipeline("xl", device="cpu")
    theirs = safetensors.torch.load(published["sdxl-small.safetensors"])
    first = loaded.unet.get_parameter("conv_in.weight")
    assert torch.equal(first.float(), theirs["model.diffusion_model.input_blocks.0.0.weight"].float())
    assert tuple(load_pipeline(PUBLISHED, device="cpu").unet.config.block_out_channels) == (32, 64, 128)

    before = len(whole_hub.transfers)
    code, out, _ = pull(capsys, whole_hub)
    assert code == 0 and "installed already" in out and len(whole_hub.transfers) == before


def test_the_towers_of_an_installed_model_are_not_fetched_again(
    capsys: pytest.CaptureFixture[str], whole_hub: FakeHub, models: Path
) -> None:
    assert pull(capsys, whole_hub, "--accept-license", "--quiet")[0] == 0
    before = len(whole_hub.transfers)
    code, out, err = run(capsys, "models", "pull", "xlv2", "--endpoint", whole_hub.url, "--accept-license", "--json")
    assert code == 0, err
    assert {transfer.path for transfer in whole_hub.transfers[before:]} == {"xlv2-small.safetensors"}
    events = [json.loads(line) for line in out.splitlines()]
    assert events[0]["towers"] == {"clip": str(models / "xl"), "tagger": str(models / "xl")}
    assert events[-1] == {"event": "end", "model": "xlv2", "folder": str(models / "xlv2"), "already": False}
    assert describe("xlv2").family == "xlv2"
    same = [(models / name / "tagger" / "diffusion_pytorch_model.safetensors").read_bytes() for name in ("xl", "xlv2")]
    assert same[0] == same[1]
    recorded = [recorded_source(models / name)["files"] for name in ("xl", "xlv2")]
    assert recorded[0][1:] == recorded[1][1:] and recorded[0][0] != recorded[1][0]


def test_a_pulled_v2_has_both_sides_of_clip_and_its_words(
    capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path
) -> None:
    from colorcli.loading import load_pipeline

    clip = write_tokenizer(write_vit_h(tmp_path / "clip").parent)
    v2 = write_published(tmp_path / "v2.safetensors", "v2").read_bytes()
    with FakeHub() as hub:
        hub.add(PUBLISHED_SD, {"v2-full.safetensors": v2, "mult-eps-ft.safetensors": LARGE}, license="cc-by-nc-sa-4.0")
        hub.add(CLIP_H.repository, {"config.json": b"{}", **{path.name: path.read_bytes() for path in clip.iterdir()}},
                license="mit")
        code, out, err = run(capsys, "models", "pull", "v2", "--endpoint", hub.url)
        assert code == 5 and "v2 comes under CC-BY-NC-SA-4.0, MIT" in err[-1] and not hub.transfers
        code, out, err = run(capsys, "models", "pull", "v2", "--endpoint", hub.url, "--accept-license")
    assert code == 0, err
    assert out.splitlines()[-1] == "next: colorcli SHOT --ref KEY --model v2"
    written = json.loads((models / "v2" / "weights.json").read_text())
    assert (written["model"], written["license"]) == ("v2", "CC-BY-NC-SA-4.0")
    assert written["source"]["image_encoder"] == written["source"]["text_encoder"] == CLIP_H.repository
    assert str(models) not in json.dumps(written)   # the downloads are gone
    loaded = load_pipeline("v2", device="cpu")
    assert loaded.text_encoder is not None and len(loaded.tokenizer) == 20


def test_another_file_does_not_replace_an_installed_model_unasked(
    capsys: pytest.CaptureFixture[str], whole_hub: FakeHub, models: Path
) -> None:
    (models / "xl").mkdir(parents=True)
    write_list(models / "xl", "xl", "MIT", source={"sha256": "0" * 64})
    code, _, err = pull(capsys, whole_hub, "--accept-license")
    assert code == 2 and "is there already, and was not made of sdxl-small" in err[-1]
    assert not whole_hub.transfers
    assert pull(capsys, whole_hub, "--accept-license", "--force", "--keep-downloads")[0] == 0
    assert describe("xl").parts
    kept = [path.name for path in (models / "downloads").rglob("*") if path.is_file()]
    assert sorted(kept) == ["config.json", "model.safetensors", "model.safetensors", "sdxl-small.safetensors"]


def test_a_file_whose_name_lies_about_its_family_is_told(
    capsys: pytest.CaptureFixture[str], whole_hub: FakeHub, models: Path, published: dict[str, bytes]
) -> None:
    whole_hub.repositories[PUBLISHED].files["sdxl-small.safetensors"] = published["xlv2-small.safetensors"]
    code, _, err = pull(capsys, whole_hub, "--accept-license")
    assert code == 5 and "sdxl-small.safetensors holds a model of the family xlv2, not xl" in err[-1]
    assert not (models / "xl").exists()


def test_towers_that_are_here_need_not_be_fetched(
    capsys: pytest.CaptureFixture[str], whole_hub: FakeHub, models: Path, published: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("clip", "tagger"):
        (tmp_path / f"{name}.safetensors").write_bytes(published[name])
    more = ("--clip", str(tmp_path / "clip.safetensors"), "--tagger", str(tmp_path / "tagger.safetensors"))
    assert pull(capsys, whole_hub, "--accept-license", "--name", "mine", "--dtype", "fp32", *more)[0] == 0
    assert {transfer.path for transfer in whole_hub.transfers} == {"sdxl-small.safetensors"}
    assert {dtype for part in describe("mine").parts for dtype in part.dtypes} == {"F32"}
    code, _, err = pull(capsys, whole_hub, "--accept-license", "--clip", str(tmp_path / "nowhere.safetensors"))
    assert code == 5 and "nowhere.safetensors" in err[-1]

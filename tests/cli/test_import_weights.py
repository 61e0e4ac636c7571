"""`colorcli models import`: what it says, what is there in the end, and what it refuses."""

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from colorcli.cli.main import main
from colorcli.model.weights import read_list, verify
from tests.model.published import write_published, write_towers, write_vit_h


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("published")
    clip, tagger = write_towers(folder / "towers")
    return {"xl": str(write_published(folder / "sdxl-base.safetensors", "sdxl")), "clip": str(clip),
            "tagger": str(tagger)}


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLORCLI_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    """(exit code, stdout, lines of stderr) of an import."""
    code = main(["models", "import", *arguments])
    out, err = capsys.readouterr()
    return code, out, err.splitlines()


def test_a_file_becomes_a_model_and_a_second_import_of_it_is_refused_until_forced(
    capsys: pytest.CaptureFixture[str], files: dict[str, str], models: Path
) -> None:
    towers = ("--clip", files["clip"], "--tagger", files["tagger"])
    code, out, err = run(capsys, files["xl"], *towers)
    assert code == 0, err
    rows = {line.split()[0]: line for line in out.splitlines()}
    # What was made is on stdout, by itself; how far it is, is not.
    assert out.splitlines()[0].split() == ["model", "xl"] and any(line.startswith("writing unet: ") for line in err)
    assert str(models / "xl") in rows["folder"]
    assert "CC-BY-NC-SA-4.0" in rows["license"] and files["clip"] in rows["image_encoder"]
    assert re.search(r"left out, tables of the noise schedule, which are computed: \w+, \w+, \w+ and 9 more", out)
    assert "no commercial use" in out
    assert out.splitlines()[-1] == "now: colorcli SHOT --ref KEY --model xl"
    assert all(check.state == "ok" for check in verify(models / "xl"))
    with safe_open(files["xl"], "pt") as theirs:
        first = theirs.get_tensor("model.diffusion_model.input_blocks.0.0.weight")
    with safe_open(models / "xl" / "unet" / "diffusion_pytorch_model.safetensors", "pt") as ours:
        assert torch.equal(ours.get_tensor("conv_in.weight"), first)

    before = read_list(models / "xl")
    code, _, err = run(capsys, files["xl"], *towers)
    assert code == 2 and f"{models / 'xl'} is there already" in err[-1]
    assert "--force" in err[-2]
    assert read_list(models / "xl") == before
    assert run(capsys, files["xl"], "--force", "--prediction", "eps", "--quiet")[0] == 0   # with its own towers
    scheduler = (models / "xl" / "scheduler" / "scheduler_config.json").read_text()
    assert '"prediction_type": "epsilon"' in scheduler
    assert [path.name for path in models.iterdir()] == ["xl"]


def test_another_name_place_and_number_type(
    capsys: pytest.CaptureFixture[str], files: dict[str, str], models: Path, tmp_path: Path
) -> None:
    more = ("--to", str(tmp_path / "disk"), "--name", "mine", "--dtype", "bf16")
    code, out, err = run(capsys, files["xl"], "--clip", files["clip"], "--tagger", files["tagger"], *more)
    assert code == 0, err
    folder = tmp_path / "disk" / "mine"
    assert out.splitlines()[-1] == f"now: colorcli SHOT --ref KEY --model {folder}"
    with safe_open(folder / "vae" / "diffusion_pytorch_model.safetensors", "pt") as written:
        assert written.get_tensor("encoder.conv_in.weight").dtype == torch.bfloat16
    assert not models.exists()


def test_a_v2_file_says_which_clip_it_lacks_and_is_imported_with_it(
    capsys: pytest.CaptureFixture[str], models: Path, tmp_path: Path
) -> None:
    file = str(write_published(tmp_path / "v2-full.safetensors", "v2"))
    code, _, err = run(capsys, file)
    assert code == 5 and "v2-full.safetensors comes without CLIP ViT-H/14" in err[-1]
    assert "laion/CLIP-ViT-H-14-laion2B-s32B-b79K" in err[-1] and "--clip FILE" in err[-2]
    code, out, err = run(capsys, file, "--clip", str(write_vit_h(tmp_path / "clip")))
    assert code == 0, err
    assert out.splitlines()[-1] == "now: colorcli SHOT --ref KEY --model v2"
    assert read_list(models / "v2").model == "v2"


def test_a_pickle_is_refused_without_being_opened(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    # It is not even there: nothing but the name is looked at.
    code, _, err = run(capsys, "sdxl-base.ckpt")
    assert code == 5 and "sdxl-base.ckpt is a pickle: loading one runs any program" in err[-1]
    assert "weights_only=True" in err[-2]
    assert not models.exists()


def test_missing_towers_are_named_with_what_to_download(
    capsys: pytest.CaptureFixture[str], files: dict[str, str], models: Path
) -> None:
    code, _, err = run(capsys, files["xl"])
    assert code == 5 and "comes without CLIP ViT-bigG/14" in err[-1] and "laion/CLIP-ViT-bigG-14" in err[-1]
    assert "colorcli models pull" in err[-2]
    code, _, err = run(capsys, files["xl"], "--clip", files["clip"])
    assert code == 5 and "SmilingWolf/wd-v1-4-swinv2-tagger-v2" in err[-1] and "--tagger FILE" in err[-2]
    code, _, err = run(capsys, files["clip"])
    assert code == 5 and "clip.safetensors is a CLIP tower" in err[-1] and "--clip clip.safetensors" in err[-2]
    assert not models.exists() or not list(models.iterdir())


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (("--dtype", "int3"), 2, "--dtype int3 is none of fp32, fp16, bf16"),
    (("--prediction", "x0"), 2, "--prediction x0 is none of v, eps"),
    (("--name", "../mine"), 2, "is no name of a folder"),
    (("--clip", "nowhere.safetensors", "--tagger", "nowhere.safetensors"), 5, "there is no nowhere.safetensors"),
])
def test_what_cannot_be_meant_is_refused(
    capsys: pytest.CaptureFixture[str], files: dict[str, str], arguments: tuple[str, ...], code: int, words: str
) -> None:
    got, _, err = run(capsys, files["xl"], *arguments)
    assert got == code and words in err[-1]


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "nowhere.safetensors")
    assert code == 5 and "nowhere.safetensors" in err[-1]

"""A model folder is whole, or colorcli says which file is not."""

import json
from pathlib import Path

import pytest

from colorcli.errors import WeightsError
from colorcli.model.weights import (
    FileCheck,
    family_of,
    find_weights,
    models_folder,
    read_list,
    require_whole,
    verify,
    weights_digest,
    weights_folder,
    write_list,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "model.safetensors").write_bytes(b"weights" * 100)
    (folder / "config.json").write_text("{}")
    write_list(folder, "tiny", "Apache-2.0")
    return folder


def test_the_list_names_every_file_with_its_size_and_license(model: Path) -> None:
    listed = read_list(model)
    assert (listed.model, listed.license) == ("tiny", "Apache-2.0")
    assert {name: file.bytes for name, file in listed.files.items()} == {
        "config.json": 2,
        "unet/model.safetensors": 700,
    }


def test_the_recorded_hash_is_that_of_the_sha256sum_program(model: Path) -> None:
    # printf '{}' | sha256sum
    expected = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert read_list(model).files["config.json"].sha256 == expected


def test_a_whole_model_verifies(model: Path) -> None:
    assert verify(model) == [FileCheck("config.json", "ok"), FileCheck("unet/model.safetensors", "ok")]


def test_a_changed_byte_is_found_though_the_size_is_the_same(model: Path) -> None:
    (model / "unet" / "model.safetensors").write_bytes(b"Weights" + b"weights" * 99)
    require_whole(model)
    assert verify(model)[1] == FileCheck("unet/model.safetensors", "damaged")


def test_a_missing_file_stops_the_render_before_it_begins(model: Path) -> None:
    (model / "unet" / "model.safetensors").unlink()
    assert verify(model)[1] == FileCheck("unet/model.safetensors", "missing")
    with pytest.raises(WeightsError, match=r"lack .*model\.safetensors"):
        require_whole(model)


def test_a_file_cut_off_by_a_broken_copy_is_found_by_its_size(model: Path) -> None:
    (model / "unet" / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(WeightsError, match="has 7 bytes, it should have 700"):
        weights_digest(model)


def test_the_digest_changes_with_any_file_and_not_with_the_folder(model: Path, tmp_path: Path) -> None:
    before = weights_digest(model)
    moved = model.rename(tmp_path / "elsewhere")
    assert weights_digest(moved) == before
    (moved / "config.json").write_text("[]")
    write_list(moved, "tiny", "Apache-2.0")
    assert weights_digest(moved) != before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "model": "x", "license": "y", "files": []}']
)
def test_a_damaged_list_is_called_damaged(model: Path, text: str) -> None:
    (model / "weights.json").write_text(text)
    with pytest.raises(WeightsError, match=r"weights\.json is damaged"):
        read_list(model)


def test_a_folder_without_a_list_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no weights\.json"):
        read_list(tmp_path)


def test_a_wrong_name_suggests_the_nearest_model() -> None:
    with pytest.raises(WeightsError) as caught:
        weights_folder("mnii")
    assert caught.value.hint == "did you mean mini?"


def test_a_path_that_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no model folder"):
        weights_folder(str(tmp_path / "nowhere"))


def test_a_folder_that_diffusers_saved_needs_no_list(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    before = weights_digest(folder)
    assert require_whole(folder).license == "NOASSERTION"
    (folder / "model_index.json").write_text("[]")
    assert weights_digest(folder) != before


def test_a_folder_may_be_named_without_a_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert weights_folder("mine") == Path("mine")


def test_models_are_looked_for_where_the_user_says_then_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLORCLI_MODELS", "/big/disk")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("HOME", "/home/ink")
    assert models_folder() == Path("/big/disk")
    monkeypatch.delenv("COLORCLI_MODELS")
    assert models_folder() == Path("/data/colorcli/models")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert models_folder() == Path("/home/ink/.local/share/colorcli/models")


def test_a_model_that_is_not_installed_comes_with_both_ways_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLORCLI_MODELS", str(tmp_path))
    with pytest.raises(WeightsError, match="not installed") as caught:
        find_weights("xl")
    assert "models import" in str(caught.value.hint) and "models pull xl" in str(caught.value.hint)


def test_an_installed_model_is_found_by_any_name_and_its_family_by_its_list(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLORCLI_MODELS", str(tmp_path))
    write_list(model, "xlv2", "CC-BY-NC-SA-4.0")
    assert find_weights("tiny") == model
    assert family_of("tiny") == family_of(str(model)) == "xlv2"
    with pytest.raises(WeightsError) as caught:
        find_weights("tinny")
    assert caught.value.hint == "did you mean tiny?"


@pytest.mark.parametrize(("parts", "family"), [
    ({}, "xl"), ({"reference_net": ["colorcli.model.reference_net", "ReferenceNet"]}, "xlv2"),
    ({"reference_net": [None, None]}, "xl"), ({"token_head": ["colorcli.model.parts", "TokenPartHead"]}, "mini"),
])
def test_the_family_of_a_folder_that_diffusers_saved_is_told_by_its_networks(
    tmp_path: Path, parts: dict[str, list[str]], family: str
) -> None:
    index = {"unet": ["colorcli.model.unet", "ColorUNet"], "sketch_encoder": ["a", "b"], **parts}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert family_of(str(tmp_path)) == family

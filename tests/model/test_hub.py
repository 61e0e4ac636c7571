"""Models come from the hub whole, from where they stopped, or with a reason; against a small hub on this machine."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from colorcli.errors import OutputError, WeightsError
from colorcli.model.hub import (
    CLIP,
    CLIP_H,
    PUBLISHED,
    PUBLISHED_SD,
    SOURCES,
    TAGGER,
    Hub,
    HubFile,
    PullPlan,
    bytes_here,
    fetch,
    local_path,
    plan_pull,
    remove_downloads,
    require_online,
    source_record,
    tokenizer_folder,
    weights_of,
)
from colorcli.variants import VARIANTS
from tests.hub_server import FakeHub, blob_id, sha256

LARGE = random.Random(7).randbytes(300_000)


@pytest.fixture
def server() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.add(
            PUBLISHED,
            {"README.md": b"# Models", "sdxl-v0.safetensors": LARGE[:20_000], "sdxl-v1-eps.safetensors": LARGE,
             "xlv2-base.safetensors": LARGE[:50_000], "old/sdxl.ckpt": b"pickle"},
            license="cc-by-nc-sa-4.0",
            dates={"sdxl-v0.safetensors": "2026-03-01T00:00:00.000Z"},
        )
        running.add(CLIP.repository, {
            "config.json": b'{"model_type": "clip"}',
            "model.safetensors.index.json": b"{}",
            "model-00001-of-00002.safetensors": LARGE[:3000],
            "model-00002-of-00002.safetensors": LARGE[:4000],
            "pytorch_model.bin": b"pickle" * 300,
            "open_clip_model.safetensors": LARGE[:5000],
        })
        running.add(TAGGER.repository, {"model.safetensors": LARGE[:2000], "model.onnx": b"onnx"}, license="apache-2.0")
        yield running


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting or cache of whoever runs the tests."""
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)


def published(plan: PullPlan) -> HubFile:
    return plan.of("checkpoint")[0]


def plan_of(server: FakeHub, model: str = "xl", **choice: str) -> PullPlan:
    return plan_pull(model, Hub(server.url), **choice)


def test_the_newest_file_of_the_family_is_chosen_and_the_others_are_named(server: FakeHub) -> None:
    plan = plan_of(server)
    assert published(plan).path == "sdxl-v0.safetensors"
    assert plan.others == ("sdxl-v1-eps.safetensors",)
    assert published(plan_of(server, "xlv2")).path == "xlv2-base.safetensors"


def test_of_files_committed_together_the_largest_is_chosen(server: FakeHub) -> None:
    server.repositories[PUBLISHED].dates.clear()
    assert published(plan_of(server)).path == "sdxl-v1-eps.safetensors"


def test_a_file_can_be_chosen_by_name(server: FakeHub) -> None:
    assert published(plan_of(server, file="sdxl-v1-eps.safetensors")).bytes == 300_000


@pytest.mark.parametrize(
    ("file", "words"),
    [("sdxl-v9.safetensors", "has no file sdxl-v9"), ("sdxl.ckpt", "is a pickle"),
     ("xlv2-base.safetensors", "is no sdxl"), ("README.md", "is no sdxl")],
)
def test_a_file_that_cannot_be_meant_is_refused(server: FakeHub, file: str, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        plan_of(server, file=file)


def test_of_the_tower_the_shards_of_transformers_are_taken_and_never_a_pickle(server: FakeHub) -> None:
    assert [file.path for file in plan_of(server).of("clip")] == [
        "config.json", "model.safetensors.index.json",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    ]
    server.repositories[CLIP.repository].files["model.safetensors"] = LARGE[:6000]
    assert [file.path for file in plan_of(server).of("clip")] == ["config.json", "model.safetensors"]


def test_a_tower_in_the_names_of_open_clip_is_taken_where_there_is_no_other(server: FakeHub) -> None:
    for path in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        del server.repositories[CLIP.repository].files[path]
    assert [file.path for file in plan_of(server).of("clip")] == ["config.json", "open_clip_model.safetensors"]
    del server.repositories[CLIP.repository].files["open_clip_model.safetensors"]
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin is a pickle") as caught:
        plan_of(server)
    assert "--clip FILE" in str(caught.value.hint)
    plan = plan_pull("xl", Hub(server.url), without=("clip",))
    assert {file.role for file in plan.files} == {"checkpoint", "tagger"}


def test_a_repository_of_pickles_only_is_refused_by_name(server: FakeHub) -> None:
    server.add(TAGGER.repository, {"model.bin": b"pickle"})
    with pytest.raises(WeightsError, match=rf"{TAGGER.repository}/model\.bin is a pickle"):
        plan_of(server)


def test_a_file_that_the_hub_marks_as_unsafe_is_refused_by_name(server: FakeHub) -> None:
    server.repositories[TAGGER.repository].unsafe.add("model.safetensors")
    with pytest.raises(WeightsError, match=rf"marks {TAGGER.repository}/model\.safetensors as unsafe"):
        plan_of(server)


def test_the_license_is_the_cards_and_else_ours(server: FakeHub) -> None:
    assert plan_of(server).licenses == {PUBLISHED: "CC-BY-NC-SA-4.0", CLIP.repository: "MIT",
                                        TAGGER.repository: "Apache-2.0"}
    server.repositories[TAGGER.repository].license = "gpl-3.0"
    assert plan_of(server).licenses[TAGGER.repository] == "gpl-3.0"
    server.repositories[PUBLISHED].license = None
    assert plan_of(server).license == "CC-BY-NC-SA-4.0"


def test_every_file_arrives_as_it_is_on_the_hub(server: FakeHub, tmp_path: Path) -> None:
    plan = plan_of(server)
    for file in plan.files:
        assert fetch(file, tmp_path, Hub(server.url)).read_bytes() == server.repositories[file.repository].files[
            file.path]
        assert bytes_here(file, tmp_path) == file.bytes
    assert len(server.transfers) == len(plan.files)
    for file in plan.files:   # a second pull finds them
        fetch(file, tmp_path, Hub(server.url))
    assert len(server.transfers) == len(plan.files)


def test_small_files_are_verified_by_the_hash_that_git_gives(server: FakeHub, tmp_path: Path) -> None:
    content = b'{"model_type": "clip"}'
    git = subprocess.run(["git", "hash-object", "--stdin"], input=content, capture_output=True, check=True)
    assert git.stdout.decode().strip() == blob_id(content)
    config = plan_of(server).of("clip")[0]
    assert config.blob_id == blob_id(content) and config.sha256 is None
    server.repositories[CLIP.repository].damaged.add("config.json")
    with pytest.raises(WeightsError, match=r"config\.json arrived damaged"):
        fetch(config, tmp_path, Hub(server.url))


def test_a_connection_that_breaks_in_the_middle_is_taken_up_again(server: FakeHub, tmp_path: Path) -> None:
    server.repositories[PUBLISHED].breaks["sdxl-v1-eps.safetensors"] = [120_000, 100_000]
    file = published(plan_of(server, file="sdxl-v1-eps.safetensors"))
    assert fetch(file, tmp_path, Hub(server.url)).read_bytes() == LARGE
    starts = [transfer.start for transfer in server.transfers]
    assert starts == [0, 120_000, 220_000]
    assert sum(transfer.sent for transfer in server.transfers) == 300_000


def test_an_interrupted_pull_goes_on_from_where_it_stopped(server: FakeHub, tmp_path: Path) -> None:
    file = published(plan_of(server, file="sdxl-v1-eps.safetensors"))

    def stop_at_half(file: HubFile, done: int) -> None:
        if done >= 150_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(file, tmp_path, Hub(server.url), stop_at_half)
    kept = bytes_here(file, tmp_path)
    assert 130_000 <= kept < 300_000 and not local_path(file, tmp_path).exists()
    assert fetch(file, tmp_path, Hub(server.url)).read_bytes() == LARGE
    assert (server.transfers[-1].start, server.transfers[-1].sent) == (kept, 300_000 - kept)


def test_a_new_commit_with_the_same_file_goes_on_with_what_is_here(server: FakeHub, tmp_path: Path) -> None:
    def stop_at_half(file: HubFile, done: int) -> None:
        if done >= 150_000:
            raise KeyboardInterrupt

    def published_now() -> HubFile:
        return published(plan_of(server, file="sdxl-v1-eps.safetensors"))

    before = published_now()
    with pytest.raises(KeyboardInterrupt):
        fetch(before, tmp_path, Hub(server.url), stop_at_half)
    kept = bytes_here(before, tmp_path)
    server.repositories[PUBLISHED].files["NEWS.md"] = b"# News"
    after = published_now()
    assert after.revision != before.revision and bytes_here(after, tmp_path) == kept > 0
    assert fetch(after, tmp_path, Hub(server.url)).read_bytes() == LARGE
    assert server.transfers[-1].start == kept
    server.repositories[PUBLISHED].files["NEWS.md"] = b"# More"
    server.repositories[PUBLISHED].files["MORE.md"] = b"# More"
    fetch(published_now(), tmp_path, Hub(server.url))
    assert server.transfers[-1].start == kept   # nothing more was sent
    # Another content under the same name begins anew.
    server.repositories[PUBLISHED].files["sdxl-v1-eps.safetensors"] = LARGE[::-1]
    assert fetch(published_now(), tmp_path, Hub(server.url)).read_bytes() == LARGE[::-1]
    assert sum(transfer.sent for transfer in server.transfers[-2:]) >= 300_000


def test_a_hub_that_goes_away_in_the_middle_leaves_the_part(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    server.repositories[PUBLISHED].breaks["sdxl-v1-eps.safetensors"] = [100_000] + [0] * 50
    file = published(plan_of(server, file="sdxl-v1-eps.safetensors"))
    with pytest.raises(WeightsError, match=r"broke while fetching .*sdxl-v1-eps") as caught:
        fetch(file, tmp_path, Hub(server.url))
    assert "goes on from where it stopped" in str(caught.value.hint)
    assert bytes_here(file, tmp_path) == 100_000


def test_a_damaged_file_is_thrown_away_and_fetched_again(server: FakeHub, tmp_path: Path) -> None:
    server.repositories[TAGGER.repository].damaged.add("model.safetensors")
    file = plan_of(server).of("tagger")[0]
    with pytest.raises(WeightsError, match="arrived damaged"):
        fetch(file, tmp_path, Hub(server.url))
    assert bytes_here(file, tmp_path) == 0
    server.repositories[TAGGER.repository].damaged.clear()
    assert sha256(fetch(file, tmp_path, Hub(server.url)).read_bytes()) == file.sha256


def test_a_download_that_was_changed_on_disk_is_fetched_again(server: FakeHub, tmp_path: Path) -> None:
    file = plan_of(server).of("tagger")[0]
    fetch(file, tmp_path, Hub(server.url)).write_bytes(bytes(file.bytes))
    assert fetch(file, tmp_path, Hub(server.url)).read_bytes() == LARGE[:2000]


def test_what_the_hubs_own_cache_has_is_not_fetched(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_hub_download

    file = plan_of(server).of("tagger")[0]
    hf_hub_download(file.repository, file.path, endpoint=server.url, cache_dir=tmp_path / "hf-cache")
    before = len(server.transfers)
    path = fetch(file, tmp_path / "downloads", Hub(server.url))
    assert path.is_relative_to(tmp_path / "hf-cache") and path.read_bytes() == LARGE[:2000]
    assert len(server.transfers) == before


def test_a_token_goes_to_the_hub_and_not_to_its_storage(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(plan_of(server).of("tagger")[0], tmp_path, Hub(server.url))
    told = dict(server.tokens)
    assert told[f"/{TAGGER.repository}/resolve/{server.repositories[TAGGER.repository].commit}/model.safetensors"
                ] == "Bearer hf_secret"
    assert told[f"/lfs/{TAGGER.repository}/model.safetensors"] == ""


def test_a_gated_file_tells_where_to_accept_its_terms(server: FakeHub, tmp_path: Path) -> None:
    server.repositories[TAGGER.repository].gated = True
    with pytest.raises(WeightsError, match=f"{TAGGER.repository} is gated") as caught:
        fetch(plan_of(server).of("tagger")[0], tmp_path, Hub(server.url))
    assert f"{server.url}/{TAGGER.repository}" in str(caught.value.hint)


def test_a_repository_that_is_gone_or_private_is_named(server: FakeHub) -> None:
    del server.repositories[CLIP.repository]
    with pytest.raises(WeightsError, match=f"there is no {CLIP.repository} on {server.url}, or it is private"):
        plan_of(server)


@pytest.mark.parametrize(("status", "words"), [(401, "private|does not let"), (403, "does not let you have"),
                                               (404, "answered 404|there is no"), (418, "answered 418")])
def test_each_refusal_of_the_hub_is_told(server: FakeHub, status: int, words: str) -> None:
    server.repositories[PUBLISHED].status = status
    with pytest.raises(WeightsError, match=words):
        plan_of(server)


def test_a_revision_that_is_not_there_is_named(server: FakeHub) -> None:
    with pytest.raises(WeightsError, match=f"{PUBLISHED} has no revision v9"):
        plan_of(server, revision="v9")


def test_a_file_that_vanished_after_the_listing_is_named(server: FakeHub, tmp_path: Path) -> None:
    file = plan_of(server).of("tagger")[0]
    del server.repositories[TAGGER.repository].files["model.safetensors"]
    # The commit that was listed went with it, as after a forced push.
    with pytest.raises(WeightsError, match=r"has no revision [0-9a-f]{40}"):
        fetch(file, tmp_path, Hub(server.url))


def test_a_hub_that_cannot_be_reached_is_named() -> None:
    with pytest.raises(WeightsError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        plan_pull("xl", Hub("http://127.0.0.1:9"))


def test_a_server_that_is_no_hub_is_told(server: FakeHub) -> None:
    with pytest.raises(WeightsError, match=r"there is no .*elsewhere"):
        plan_pull("xl", Hub(server.url + "/elsewhere"))


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(WeightsError, match="nonsense is no address of a hub"):
        plan_pull("xl", Hub("nonsense"))


def test_the_endpoint_of_the_environment_counts_though_the_library_is_loaded(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    assert published(plan_pull("xl", Hub())).path == "sdxl-v0.safetensors"


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_mode_is_obeyed(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    require_online()
    monkeypatch.setenv(variable, "1")
    with pytest.raises(WeightsError, match=f"{variable} is set"):
        require_online()


def test_a_full_disk_is_told_with_the_file(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    file = plan_of(server).of("tagger")[0]
    part = local_path(file, tmp_path).with_name(f"model.safetensors.{str(file.sha256)[:12]}.part")
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(OutputError, match=rf"disk of .* is full while fetching {TAGGER.repository}/model"):
        fetch(file, tmp_path, Hub(server.url))


def test_a_folder_that_cannot_be_written_is_told(server: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "downloads").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="cannot be written"):
        fetch(plan_of(server).of("tagger")[0], tmp_path / "downloads", Hub(server.url))


def test_a_name_that_leaves_our_folder_is_refused(server: FakeHub) -> None:
    server.repositories[PUBLISHED].files["../sdxl-evil.safetensors"] = LARGE
    server.repositories[PUBLISHED].dates["../sdxl-evil.safetensors"] = "2027-01-01T00:00:00.000Z"
    with pytest.raises(WeightsError, match="sdxl-evil"):
        plan_of(server)


def test_the_record_names_repository_commit_and_hash(server: FakeHub) -> None:
    record = source_record(plan_of(server), Hub(server.url))
    assert record["hub"] == server.url
    assert record["files"][0] == {
        "part": "checkpoint", "repository": PUBLISHED, "revision": server.repositories[PUBLISHED].commit,
        "file": "sdxl-v0.safetensors", "bytes": 20_000, "sha256": sha256(LARGE[:20_000]),
        "license": "CC-BY-NC-SA-4.0",
    }


def test_removing_the_downloads_leaves_those_of_others(server: FakeHub, tmp_path: Path) -> None:
    xl, xlv2 = plan_of(server), plan_of(server, "xlv2")
    downloads = tmp_path / "downloads"
    for file in (*xl.files, *xlv2.files):
        fetch(file, downloads, Hub(server.url))
    remove_downloads(xl.files, downloads)
    assert [path.name for path in downloads.rglob("*") if path.is_file()] == ["xlv2-base.safetensors"]
    remove_downloads(xlv2.files, downloads)
    assert not downloads.exists()


@pytest.fixture
def earlier(server: FakeHub) -> FakeHub:
    """The repositories of v2, the newest file of which is of an earlier model."""
    server.add(
        PUBLISHED_SD,
        {name: LARGE[:size] for name, size in (("mult-eps-ft.safetensors", 3000), ("switch-eps.safetensors", 4000),
                                               ("v2-full.safetensors", 5000))},
        license="cc-by-nc-sa-4.0", dates={"mult-eps-ft.safetensors": "2026-03-01T00:00:00.000Z"},
    )
    server.add(CLIP_H.repository, {
        "config.json": b"{}", "vocab.json": b"{}", "merges.txt": b"#", "README.md": b"# CLIP",
        "open_clip_pytorch_model.bin": b"pickle", "open_clip_model.safetensors": LARGE[:2000],
    }, license="mit")
    return server


def test_of_v2_its_own_files_are_chosen_and_clip_with_its_tokenizer(earlier: FakeHub, tmp_path: Path) -> None:
    plan = plan_of(earlier, "v2")
    assert (published(plan).path, plan.others, plan.license) == ("v2-full.safetensors", (), "CC-BY-NC-SA-4.0")
    assert {file.path for file in plan.of("clip")} == {
        "config.json", "open_clip_model.safetensors", "vocab.json", "merges.txt"}
    assert not plan.of("tagger") and plan.licenses[CLIP_H.repository] == "MIT"
    with pytest.raises(WeightsError, match=r"mult-eps-ft\.safetensors is no v2\*") as caught:
        plan_of(earlier, "v2", file="mult-eps-ft.safetensors")
    assert caught.value.hint == "there are v2-full.safetensors"
    paths = {file: fetch(file, tmp_path, Hub(earlier.url)) for file in plan.of("clip")}
    weights, folder = weights_of(plan.of("clip"), paths), tokenizer_folder(plan.of("clip"), paths)
    assert weights is not None and weights.name == "open_clip_model.safetensors"
    assert folder is not None and (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()


def test_a_tokenizer_is_fetched_whole_though_the_hubs_cache_has_a_part_of_it(earlier: FakeHub, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(CLIP_H.repository, "vocab.json", endpoint=earlier.url, cache_dir=tmp_path / "hf-cache")
    plan = plan_of(earlier, "v2")
    folders = {fetch(file, tmp_path / "downloads", Hub(earlier.url)).parent for file in plan.of("clip")
               if file.name in ("vocab.json", "merges.txt")}
    assert len(folders) == 1


def test_every_source_is_of_a_model_that_exists() -> None:
    assert set(SOURCES) <= {name for name, variant in VARIANTS.items() if not variant.shipped}

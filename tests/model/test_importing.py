"""A published file becomes a model with every number in its place, or one learns what is wrong with it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from colorcli.errors import OutputError, UsageError, WeightsError
from colorcli.loading import load_pipeline
from colorcli.model import importing
from colorcli.model.architecture import (
    adapter_from,
    adapter_origin,
    image_encoder_from,
    open_clip_origin,
    projection_from,
    projection_origin,
    reference_net_from,
    same_name,
    sketch_encoder_from,
    sketch_encoder_origin,
    tagger_from,
    tagger_origin,
    unet_from,
    unet_origin,
    vae_from,
    vae_origin,
)
from colorcli.model.importing import import_model
from colorcli.model.published_file import NOISE_SCHEDULE, read_published
from colorcli.model.single_file import kind_of
from colorcli.model.unet import build_unet, unet_config
from colorcli.model.weights import find_weights, read_list, verify, weights_digest
from colorcli.pipeline import ColorizePipeline
from colorcli.sampling import PUBLISHED_SCHEDULE
from tests.model.conversion import unet_state, vae_state
from tests.model.published import (
    CLIP,
    TAGGER,
    build_directly,
    manifest,
    published_tensors,
    write_published,
    write_towers,
)

UNET = "model.diffusion_model."
NETWORKS = ("vae", "tagger", "image_encoder", "projection", "sketch_encoder", "unet")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    clip, tagger = write_towers(folder / "towers")
    return {
        "xl": write_published(folder / "sdxl-base.safetensors", "sdxl"),
        "xl with towers": write_published(folder / "sdxl-all.safetensors", "sdxl", towers=True),
        "xlv2 with towers": write_published(folder / "xlv2-eps.safetensors", "xlv2", towers=True),
        "clip": clip,
        "tagger": tagger,
    }


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLORCLI_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def assert_same(found: Any, expected: Any, dtype: torch.dtype | None = None) -> None:
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value if dtype is None else value.to(dtype)), name
        assert dtype is None or ours[name].dtype == dtype, name


# --- names and sizes of the real files ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sdxl", "xlv2"])
def test_every_tensor_of_the_real_files_is_used_once_or_known_to_be_left_out(family: str) -> None:
    shapes = manifest(family)
    taken: list[str] = []

    def take(prefix: str, make: Callable[[Any], Any], origin: Callable[[str], Any]) -> Any:
        network = make({n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)})
        for name, value in network.state_dict().items():
            found = origin(name)
            full = prefix + found.name
            count = value.numel() * (found.piece[1] if found.piece else 1)
            assert torch.Size(shapes[full]).numel() == count, full
            if found.piece is None or found.piece[0] == 0:
                taken.append(full)
        return network

    unet = take(UNET, unet_from, unet_origin)
    take("first_stage_model.", vae_from, vae_origin)
    take("control_encoder.", sketch_encoder_from, sketch_encoder_origin)
    take("proj.", projection_from, projection_origin)
    take(CLIP + "model.", image_encoder_from, same_name)
    take(TAGGER + "model.", tagger_from, tagger_origin)
    if family == "xlv2":
        take("bg_encoder.", reference_net_from, unet_origin)
        take(UNET, lambda _: adapter_from(unet), adapter_origin(unet))
    left = set(shapes) - set(taken)
    assert len(taken) == len(set(taken))
    assert len(left) == {"sdxl": 12 + 2, "xlv2": 12 + 2 + 2 + 14}[family]   # tables, tags, conv_fg, behind the readers


def test_the_sizes_read_from_the_real_shapes_are_the_published_ones() -> None:
    shapes = manifest("xlv2")

    def under(prefix: str) -> dict[str, list[int]]:
        return {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}

    unet: Any = unet_from(under(UNET))
    assert {key: unet.config[key] for key in unet_config()} == {
        key: list(value) if isinstance(value, tuple) and isinstance(unet.config[key], list) else value
        for key, value in unet_config().items()
    }
    net: Any = reference_net_from(under("bg_encoder."))
    assert (list(net.config["block_out_channels"]), net.config["y_dim"], net.config["in_channels"]) == (
        [320, 640, 1280], 1024, 6)
    clip: Any = image_encoder_from(under(CLIP + "model."))
    assert (clip.config.hidden_size, clip.config.num_hidden_layers, clip.config.num_attention_heads,
            clip.config.intermediate_size, clip.config.projection_dim, clip.config.hidden_act) == (
        1664, 48, 16, 8192, 1280, "gelu")
    tagger: Any = tagger_from(under(TAGGER + "model."))
    assert (tagger.config["embed_dim"], list(tagger.config["num_heads"]), tagger.config["mlp_ratio"]) == (
        128, [4, 8, 16, 32], 4.0)
    sketch: Any = sketch_encoder_from(under("control_encoder."))
    assert list(sketch.config["stem_channels"]) == [16, 16, 32, 32, 96, 96, 256]
    projection: Any = projection_from(under("proj."))
    assert (projection.config["input_dim"], projection.config["tagger_dim"], projection.config["output_dim"],
            projection.config["token_length"]) == (1280, 1024, 2048, 196)


def test_our_names_lead_where_the_converters_of_diffusers_lead() -> None:
    empty = {n: torch.empty(s, device="meta") for n, s in manifest("sdxl").items()}
    theirs = {n.removeprefix(UNET): t for n, t in empty.items() if n.startswith(UNET)}
    with torch.device("meta"):
        unet = build_unet()
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
    for name, tensor in unet_state(theirs, unet.config).items():
        assert theirs[unet_origin(name).name] is tensor, name
    theirs = {n.removeprefix("first_stage_model."): t for n, t in empty.items() if n.startswith("first_stage_model.")}
    for name, tensor in vae_state(theirs, vae.config).items():
        # A view of the same memory: the attention's 1x1 convolutions become matrices.
        assert theirs[vae_origin(name).name].untyped_storage()._cdata == tensor.untyped_storage()._cdata, name


def test_the_noise_schedule_of_an_import_is_that_of_the_samplers() -> None:
    assert {**PUBLISHED_SCHEDULE, "clip_sample": False} == {**NOISE_SCHEDULE, "prediction_type": "v_prediction"}


# --- whole imports ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["xl", "xlv2"])
def test_an_imported_model_has_every_number_of_the_file(files: dict[str, Path], models: Path, family: str) -> None:
    file = files[f"{family} with towers"]
    made = import_model(file)
    assert (made.folder, made.model, made.license) == (models / family, family, "CC-BY-NC-SA-4.0")
    expected = build_directly(file)
    loaded = ColorizePipeline.from_pretrained(family, dtype=torch.float16)
    read = read_published(file)
    for name in expected.keys() - {"scheduler"}:
        assert_same(getattr(loaded, name), expected[name])
        assert_same(read[name], expected[name], torch.float16)
        for (what, buffer), other in zip(read[name].named_buffers(), expected[name].buffers(), strict=True):
            assert torch.equal(buffer, other), (name, what)
    assert all(check.state == "ok" for check in verify(made.folder))


def test_the_result_and_the_list_say_where_all_came_from(files: dict[str, Path]) -> None:
    told: list[tuple[str, int, int]] = []
    made = import_model(files["xlv2 with towers"], on_progress=lambda *step: told.append(step))
    assert made.prediction == "eps"   # the file is called so
    assert json.loads((made.folder / "scheduler" / "scheduler_config.json").read_text())["prediction_type"] == "epsilon"
    assert {len(names) for reason, names in made.ignored.items() if "noise schedule" in reason} == {12}
    assert made.used + sum(len(names) for names in made.ignored.values()) == len(manifest("xlv2"))
    source = json.loads((made.folder / "weights.json").read_text())["source"]
    done = subprocess.run(["sha256sum", files["xlv2 with towers"]], capture_output=True, text=True, check=True)
    assert (source["file"], source["sha256"]) == ("xlv2-eps.safetensors", done.stdout.split()[0])
    assert told[-1][1] == told[-1][2] and [step[1] for step in told] == sorted(step[1] for step in told)


def test_large_parts_are_written_as_shards_that_load_again(files: dict[str, Path]) -> None:
    file = files["xl with towers"]
    made = import_model(file, shard_bytes=5_000_000)
    shards = sorted((made.folder / "unet").glob("*.safetensors"))
    assert len(shards) > 5 and all(shard.stat().st_size < 5_500_000 for shard in shards)
    assert (made.folder / "image_encoder" / "model.safetensors.index.json").is_file()
    loaded, expected = ColorizePipeline.from_pretrained("xl", dtype=torch.float16), build_directly(file)
    for name in NETWORKS:
        assert_same(getattr(loaded, name), expected[name])


def test_another_number_type_is_the_rounding_of_torch(files: dict[str, Path]) -> None:
    made = import_model(files["xl with towers"], dtype="bf16", name="xl-bf16")
    found = load_file(made.folder / "unet" / "diffusion_pytorch_model.safetensors")
    expected = build_directly(files["xl with towers"])["unet"].state_dict()
    assert all(torch.equal(found[name], value.bfloat16()) for name, value in expected.items())
    assert find_weights("xl-bf16") == made.folder


def test_towers_come_from_files_then_from_the_model_that_has_them(files: dict[str, Path]) -> None:
    first = import_model(files["xl"], clip=files["clip"], tagger=files["tagger"])
    second = import_model(files["xl"], name="again")
    expected = build_directly(files["xl with towers"])
    loaded = ColorizePipeline.from_pretrained("again", dtype=torch.float16)
    for name in NETWORKS:
        assert_same(getattr(loaded, name), expected[name])
    one, other = (made.folder / "image_encoder" / "model.safetensors" for made in (first, second))
    assert one.samefile(other)   # a link, not 3.7 GB more
    read = read_published(files["xl"], towers=first.folder)
    assert_same(read["image_encoder"], expected["image_encoder"])
    assert len(weights_digest(files["xl"])) == 64


def test_a_clip_tower_named_as_open_clip_does_is_the_same_tower(files: dict[str, Path], tmp_path: Path) -> None:
    official = load_file(files["clip"])
    network = image_encoder_from({name: value.shape for name, value in official.items()})
    theirs: dict[str, Tensor] = {"logit_scale": torch.ones(1), "token_embedding.weight": torch.ones(2, 2)}
    for name in network.state_dict():
        origin = open_clip_origin(name)
        if origin.piece is not None:
            i, (stem, kind) = origin.piece[0], (name.rsplit(".", 2)[0], name.rsplit(".", 1)[1])
            if i == 0:
                theirs[origin.name] = torch.cat([official[f"{stem}.{layer}_proj.{kind}"] for layer in "qkv"])
        else:
            theirs[origin.name] = official[name].mT.contiguous() if origin.transposed else official[name]
    assert theirs["visual.transformer.resblocks.47.attn.in_proj_weight"].shape == (3 * 208, 208)
    assert theirs["visual.proj"].shape == (208, 128)
    save_file(theirs, tmp_path / "open_clip_model.safetensors")
    made = import_model(files["xl"], clip=tmp_path / "open_clip_model.safetensors", tagger=files["tagger"])
    found = load_file(made.folder / "image_encoder" / "model.safetensors")
    assert all(torch.equal(found[name], official[name]) for name in found)


def test_a_folder_of_shards_is_taken_as_the_tower(files: dict[str, Path], tmp_path: Path) -> None:
    state = load_file(files["clip"])
    names, folder = list(state), tmp_path / "hub"
    folder.mkdir()
    pieces = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for piece, inside in pieces.items():
        save_file({name: state[name] for name in inside}, folder / piece)
    index = {"weight_map": {name: piece for piece, inside in pieces.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    made = import_model(files["xl"], clip=folder, tagger=files["tagger"])
    found = load_file(made.folder / "image_encoder" / "model.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in found.items())


# --- what is refused ----------------------------------------------------------------------------------------------


def refused(file: Path, **options: Any) -> str:
    with pytest.raises((WeightsError, OutputError, UsageError)) as caught:
        import_model(file, **options)
    return f"{caught.value.message} | {caught.value.hint}"


def assert_nothing_left(models: Path) -> None:
    assert not models.exists() or not list(models.iterdir())


def test_a_missing_tower_is_named_with_where_to_get_it(files: dict[str, Path], models: Path) -> None:
    assert "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k" in refused(files["xl"])
    assert "--tagger" in refused(files["xl"], clip=files["clip"])
    assert "not a CLIP tower" in refused(files["xl"], clip=files["tagger"], tagger=files["tagger"])
    assert "not a tagger" in refused(files["xl"], clip=files["clip"], tagger=files["clip"])
    assert_nothing_left(models)


@pytest.mark.parametrize(("change", "said"), [
    ({"proj.norm.bias": None}, "1 tensor is missing (proj.norm.bias)"),
    ({UNET + "out.2.bias": None, "control_encoder.model.0.bias": None}, "2 tensors are missing"),
    ({"proj.norm.bias": torch.zeros(7)}, "proj.norm.bias is [7] and should be [128]"),
    ({"proj.norm.bias": torch.zeros(128, dtype=torch.float64)}, "proj.norm.bias is F64"),
    ({"proj.norm.bias": torch.zeros(128, dtype=torch.int32)}, "is not F32, F16 or BF16"),
    ({"surprise.weight": torch.zeros(2)}, "1 is unknown (surprise.weight)"),
    ({"proj.norm.bias": torch.full((128,), float("nan"))}, "norm.bias of broken.safetensors holds infinity or NaN"),
])
def test_a_tensor_that_does_not_fit_is_named(
    files: dict[str, Path], tmp_path: Path, models: Path, change: dict[str, Tensor | None], said: str
) -> None:
    file = write_published(tmp_path / "broken.safetensors", "sdxl", change=change)
    assert said in refused(file, clip=files["clip"], tagger=files["tagger"])
    assert_nothing_left(models)


def test_a_file_without_an_autoencoder_takes_another_one(files: dict[str, Path], tmp_path: Path) -> None:
    state = published_tensors("sdxl")
    vae = {name: value for name, value in state.items() if name.startswith("first_stage_model.")}
    file = write_published(tmp_path / "sdxl-bare.safetensors", "sdxl", change=dict.fromkeys(vae))
    towers = {"clip": files["clip"], "tagger": files["tagger"]}
    assert "--vae FILE" in refused(file, **towers)
    save_file(vae, tmp_path / "vae.safetensors")
    first = import_model(file, vae=tmp_path / "vae.safetensors", **towers)
    second = import_model(file, vae=first.folder, name="b", **towers)   # by the names of diffusers
    expected = build_directly(files["xl with towers"])["vae"].state_dict()
    for made in (first, second):
        found = load_file(made.folder / "vae" / "diffusion_pytorch_model.safetensors")
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_other_files_are_called_what_they_are(files: dict[str, Path], tmp_path: Path) -> None:
    names = list(manifest("xlv2"))
    adapter = {n: torch.zeros(1) for n in names if n.startswith("bg_encoder.") or ".lora_" in n}
    save_file(adapter, tmp_path / "adapter.safetensors")
    assert "without the base model" in refused(tmp_path / "adapter.safetensors")
    save_file({"conditioner.embedders.0.x": torch.zeros(1), UNET + "input_blocks.0.0.weight": torch.zeros(1)},
              tmp_path / "sdxl-base-1.0.safetensors")
    assert "text-to-image" in refused(tmp_path / "sdxl-base-1.0.safetensors")
    assert "goes with a model" in refused(files["clip"])
    whole = files["xl"].read_bytes()
    for name, content, said in (
        ("half", whole[: len(whole) // 2], "is cut off"), ("start", whole[:5000], "cut off within its list"),
        ("empty", b"", "is empty"), ("page", b"<!DOCTYPE html><html>....", "is a web page"),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\noid ...", "Git LFS"),
        ("zip", b"PK\x03\x04" + b"0" * 99, "pickle"),
        ("noise", bytes(range(256)), "no .safetensors file"),
        ("json", (9).to_bytes(8, "little") + b"[1, 2, 3]", "damaged"),
    ):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        assert said in refused(tmp_path / f"{name}.safetensors"), name
    for suffix in (".ckpt", ".pt", ".pth", ".bin"):
        assert "runs any program" in refused(tmp_path / f"model{suffix}")


@pytest.mark.parametrize("family", ["sdxl", "xlv2", "v2"])
def test_the_family_is_told_by_the_names_in_the_file(family: str) -> None:
    names = [n for n in manifest(family) if not n.startswith((CLIP, TAGGER))]
    assert kind_of(names) == {"sdxl": "xl"}.get(family, family)


def test_a_full_disk_is_told_with_both_numbers_before_anything_is_written(
    files: dict[str, Path], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 30_000_000})
    monkeypatch.setattr(importing.shutil, "disk_usage", lambda path: usage)
    said = refused(files["xl with towers"])
    assert "0.03 GB free" in said and "needs 0.10 GB" in said
    assert_nothing_left(models)


def test_a_disk_that_fills_up_while_a_model_is_written_leaves_the_old_one_and_nothing_else(
    files: dict[str, Path], models: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    before = read_list(import_model(files["xl with towers"]).folder)
    written: list[str] = []

    def fills_up(path: Path) -> BinaryIO:
        """Let three parts be written; the fourth goes to a device that is full."""
        written.append(path.parent.name)
        return (path if len(written) < 4 else Path("/dev/full")).open("wb")

    said = refused(files["xl with towers"], force=True, create=fills_up)
    assert f"the disk of {models} is full" in said and "--to" in said
    assert len(written) == 4
    assert [path.name for path in models.iterdir()] == ["xl"]
    assert read_list(models / "xl") == before and all(check.state == "ok" for check in verify(models / "xl"))


def test_a_model_that_is_there_is_kept_unless_forced(files: dict[str, Path], tmp_path: Path, models: Path) -> None:
    made = import_model(files["xl with towers"])
    before = read_list(made.folder)
    assert "is there already" in refused(files["xl with towers"])
    broken = write_published(tmp_path / "sdxl.safetensors", "sdxl", towers=True,
                             change={UNET + "out.2.bias": torch.full((4,), float("inf"))})
    assert "infinity" in refused(broken, force=True)
    assert read_list(made.folder) == before   # the old one outlives a failure
    other = write_published(tmp_path / "sdxl-2.safetensors", "sdxl", seed=1, towers=True)
    import_model(other, force=True)
    assert read_list(made.folder).digest != before.digest
    assert [path.name for path in models.iterdir()] == ["xl"]


def test_a_folder_that_is_no_model_is_never_replaced(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "to" / "xl").mkdir(parents=True)
    (tmp_path / "to" / "xl" / "film.txt").write_text("work of weeks")
    assert "no model folder" in refused(files["xl with towers"], to=tmp_path / "to", force=True)
    assert (tmp_path / "to" / "xl" / "film.txt").read_text() == "work of weeks"


def test_an_interrupted_import_leaves_nothing_and_what_a_killed_one_left_goes(
    files: dict[str, Path], models: Path
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "writing unet":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_model(files["xl with towers"], on_progress=stop)
    assert_nothing_left(models)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = models / f".xl.{os.uname().nodename}-{process.pid}.partial"
    dead.mkdir(parents=True)
    import_model(files["xl with towers"])
    assert [path.name for path in models.iterdir()] == ["xl"]


def test_memory_stays_that_of_a_few_tensors_whatever_the_size_of_the_file(tmp_path: Path) -> None:
    # In a process of its own, because the largest use of memory is counted for a whole process.
    code = (
        "import resource, sys; from pathlib import Path; from colorcli.model.tensor_files import write_shard; "
        "import torch; from torch import nn; from colorcli.model.file_parts import Part; "
        "from colorcli.model.architecture import Origin; "
        "from colorcli.model.single_file import read_header\n"
        "net = nn.ModuleList(nn.Linear(4096, 2048, bias=False, device='meta') for _ in range(40))\n"
        "file = Path(sys.argv[1]); header = read_header(file)\n"
        "part = Part('unet', ('diffusers', 'x'), net, {n: Origin(n) for n in net.state_dict()}, header)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "out, dtype = file.with_name('out.safetensors'), sys.argv[2] or None\n"
        "write_shard(out, part, list(part.origins), dtype, lambda stage, count: None)\n"
        "print('grew', (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)\n"
    )
    file = tmp_path / "large.safetensors"
    each = 4096 * 2048 * 2   # 16.8 MB
    header = {f"{i}.weight": {"dtype": "F16", "shape": [2048, 4096], "data_offsets": [i * each, (i + 1) * each]}
              for i in range(40)}
    text = json.dumps(header).encode()
    # A sparse file: zeros that take no disk.
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + 40 * each)
    for dtype, largest in (("", each), ("F32", 2 * each)):
        command = [sys.executable, "-c", code, str(file), dtype]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        # Nothing near the 0.67 and 1.34 GB of the file that is written.
        assert int(done.stdout.split()[-1]) < 5 * largest, done.stdout
        (tmp_path / "out.safetensors").unlink()


def test_a_single_file_loads_as_the_model_that_its_import_makes(files: dict[str, Path]) -> None:
    file = files["xl with towers"]
    import_model(file)
    one, other = (load_pipeline(model, device="cpu", memory="full") for model in (str(file), "xl"))
    for name in NETWORKS:
        assert_same(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
        for a, b in zip(getattr(one, name).buffers(), getattr(other, name).buffers(), strict=True):
            assert torch.equal(a, b) and a.dtype == b.dtype, name
    schedules = [{k: v for k, v in p.scheduler.config.items() if not k.startswith("_")} for p in (one, other)]
    assert schedules[0] == schedules[1]
    assert one.variant == other.variant

"""`colorcli models`: what there is, under which license, and whether it is whole."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from colorcli.cli.main import main
from colorcli.errors import WeightsError
from colorcli.model.description import describe
from colorcli.model.hub import CLIP, PUBLISHED
from colorcli.model.weights import family_of, find_weights, shipped_folder, write_list
from tests.hub_server import sha256

ROOT = Path(__file__).parent.parent.parent
LARGE = b"not weights, but as many bytes as this says" * 3000
pytestmark = pytest.mark.usefixtures("models")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, list[str]]:
    """(exit code, stdout, lines of stderr) of a command line."""
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err.splitlines()


def test_the_list_tells_what_is_here_and_what_a_pull_would_bring(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "models", "list")
    assert code == 0
    states = {line.split()[0]: line.split()[1] for line in out.splitlines()}
    assert states["mini"] == "installed" and states["xl"] == "missing"
    assert "CC-BY-NC-SA-4.0" in next(line for line in out.splitlines() if line.startswith("xl "))
    assert any("colorcli models pull" in line for line in err)


def test_the_list_names_other_folders_in_the_models_folder_and_damage(
    capsys: pytest.CaptureFixture[str], models: Path
) -> None:
    for name, family in (("mine", "mini"), ("xl", "xl")):
        (models / name).mkdir(parents=True)
        (models / name / "weights.bin").write_bytes(b"12345")
        write_list(models / name, family, "MIT")
    (models / "xl" / "weights.bin").write_bytes(b"123")
    _, out, err = run(capsys, "models", "list")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert re.search(r"installed +5 bytes +MIT +mini +.*models/mine$", rows["mine"])
    assert rows["xl"].split()[1] == "damaged"
    assert any(line.startswith("xl: ") and "has 3 bytes, it should have 5" in line for line in err)


def test_the_list_as_json_has_a_model_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "models", "list", "--json")
    listed = {row["name"]: row for row in map(json.loads, out.splitlines())}
    files = [path for path in shipped_folder("mini").rglob("*") if path.is_file() and path.name != "weights.json"]
    assert listed["mini"]["bytes"] == sum(path.stat().st_size for path in files)
    assert listed["xl"]["path"] is None and "pull xl" in listed["xl"]["hint"]


def test_a_download_that_is_not_whole_is_mentioned(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    part = models / "downloads" / "owner--name" / "c0ffee" / "model.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(2000))
    _, _, err = run(capsys, "models", "list")
    assert any(line.startswith("downloads: 2.0 kB in") for line in err)


def test_list_and_info_load_neither_torch_nor_the_hub() -> None:
    script = """
import sys
from colorcli.cli.main import main
assert main(["models", "list"]) == main(["models", "info", "mini"]) == 0
print({"torch", "huggingface_hub", "transformers", "safetensors"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_info_says_what_the_license_means(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    (models / "xl").mkdir(parents=True)
    (models / "xl" / "model_index.json").write_text("{}")
    write_list(models / "xl", "xl", "CC-BY-NC-SA-4.0", source={
        "hub": "https://hub", "files": [{"part": "checkpoint", "repository": "owner/name", "file": "sdxl-a",
                                         "revision": "0123456789abcdef", "license": "CC-BY-NC-SA-4.0"}]})
    _, out, _ = run(capsys, "models", "info", "xl")
    assert "CC-BY-NC-SA-4.0: non-commercial use only" in out
    assert re.search(r"checkpoint +owner/name/sdxl-a, commit 0123456789, CC-BY-NC-SA-4\.0", out)
    assert "about 1024 x 1024 pixels" in out


def test_info_counts_the_values_of_each_part() -> None:
    import safetensors

    unet = next(part for part in describe("mini").parts if part.name == "unet")
    file = shipped_folder("mini") / "unet" / "diffusion_pytorch_model.safetensors"
    with safetensors.safe_open(file, "numpy") as opened:
        tensors = [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118 (it is no dict)
    assert unet.values == sum(tensor.size for tensor in tensors)
    assert unet.bytes == sum(tensor.nbytes for tensor in tensors)
    assert unet.kind == "ColorUNet" and unet.dtypes == ("F16",)


def test_info_knows_a_published_file_by_what_is_in_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "anything.safetensors"
    save_file({
        "model.diffusion_model.input_blocks.0.0.weight": np.zeros((2, 3), np.float16),
        "control_encoder.model.0.weight": np.zeros(4, np.float32),
        "proj.norm.weight": np.zeros(5, np.float32),
        "betas": np.zeros(7, np.float32),
        "alphas_cumprod": np.zeros(7, np.float32),
    }, file)
    _, out, _ = run(capsys, "models", "info", str(file), "--json")
    told = json.loads(out)
    assert told["family"] == "xl" and told["license"] == "CC-BY-NC-SA-4.0"
    assert told["digest"] == sha256(file.read_bytes())
    assert {part["name"]: (part["values"], part["bytes"]) for part in told["parts"]} == {
        "unet": (6, 12), "sketch_encoder": (4, 16), "projection": (5, 20),
        "noise schedule (computed)": (14, 56)}


@pytest.mark.parametrize(("name", "content", "words"), [
    ("no.safetensors", None, "there is no file"),
    ("cut.safetensors", b"\x90\x01\0\0\0\0\0\0{", "is cut off|is no"),
    ("model.ckpt", b"\x80\x02}", "is a pickle"),
    ("net.onnx", b"<html>", "web page"),
])
def test_info_says_what_is_wrong_with_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, _, err = run(capsys, "models", "info", str(tmp_path / name))
    assert code == 5 and re.search(words, err[-1])


def test_verify_names_the_damaged_file_also_as_json(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    (models / "mine").mkdir(parents=True)
    (models / "mine" / "weights.bin").write_bytes(b"12345")
    write_list(models / "mine", "mini", "MIT")
    assert run(capsys, "models", "verify", "mine")[1] == "mine: weights.bin: ok\n"
    (models / "mine" / "weights.bin").write_bytes(b"12346")
    code, out, err = run(capsys, "models", "verify", "mine", "--json")
    assert json.loads(out) == {"model": "mine", "file": "weights.bin", "state": "damaged"}
    assert code == 5 and err[-1].endswith("weights.bin is missing or damaged")


WITHOUT_NETWORK = """
import socket, sys
def refuse(*arguments, **named):
    raise AssertionError(f"something opened a connection: {arguments}")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from colorcli.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def without_network(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT_NETWORK, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_the_block_of_the_network_blocks_a_pull() -> None:
    script = WITHOUT_NETWORK.replace("main(sys.argv[1:])", "plan_pull('xl', Hub())").replace(
        "from colorcli.cli.main import main", "from colorcli.model.hub import Hub, plan_pull")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "something opened a connection" in done.stderr


def test_a_render_never_touches_the_network(tmp_path: Path) -> None:
    from tests.shot.studio import draw, draw_key

    draw(tmp_path / "shot" / "walk.0001.png")
    draw_key(tmp_path / "key.png")
    done = without_network(str(tmp_path / "shot"), "--ref", str(tmp_path / "key.png"), "-o", str(tmp_path / "out"),
                           "--set", "canvas.area=16384", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "walk.0001.png").is_file()


def test_a_name_of_the_hub_that_was_never_fetched_is_an_error_without_a_connection(tmp_path: Path) -> None:
    from tests.shot.studio import draw, draw_key

    draw(tmp_path / "shot" / "walk.0001.png")
    draw_key(tmp_path / "key.png")
    done = without_network(str(tmp_path / "shot"), "--ref", str(tmp_path / "key.png"), "--model", "owner/name")
    assert done.returncode == 5, done.stderr
    assert "owner/name" in done.stderr and "something opened a connection" not in done.stderr


def test_the_name_on_the_hub_finds_the_model_that_was_pulled_from_there(models: Path) -> None:
    for name in ("xl", "xlv2"):
        (models / name).mkdir(parents=True)
        (models / name / "model_index.json").write_text("{}")
        source = {"files": [{"repository": PUBLISHED, "part": "checkpoint"},
                            {"repository": CLIP.repository, "part": "clip"}]}
        write_list(models / name, name, "CC-BY-NC-SA-4.0", source=source)
        if name == "xl":
            assert find_weights(PUBLISHED) == models / "xl" and family_of(PUBLISHED) == "xl"
    with pytest.raises(WeightsError, match="xl and xlv2 were both pulled"):
        find_weights(PUBLISHED)
    with pytest.raises(WeightsError, match="nothing of that name was fetched"):
        find_weights(CLIP.repository)   # a part of a model is no model

"""What a job asks of its machines, held against what the program itself does on a card of that size."""

import pytest

from colorcli.cli.main import main
from colorcli.errors import UsageError
from colorcli.farm.needs import MIB, Needs, needs_of
from colorcli.presets import load_preset
from colorcli.variants import VARIANTS
from tests.farm.farmer import read
from tests.shot.studio import draw, draw_key, draw_shot


def needs(model: str, *overrides: str, **options: str) -> Needs:
    return needs_of(load_preset("cel" if model == "mini" else "xl", [f"model={model}", *overrides]), model, **options)


def test_mini_asks_for_no_card_unless_one_is_named():
    assert needs("mini").gpus == 0
    assert needs("mini", device="cuda").gpus == 1
    assert needs("mini", device="cuda", engine="openvino").gpus == 1


@pytest.mark.parametrize("model", ["xl", "xlv2", "v2"])
def test_on_a_card_as_small_as_a_large_model_asks_for_nothing_is_moved_between_frames(model):
    from colorcli.model.memory import choose_precision, choose_profile, fits

    side = round(VARIANTS[model].canvas_area ** 0.5)
    numbers = choose_precision("auto", "cuda", model)

    def settled(mib: int) -> bool:
        profile = choose_profile("auto", "cuda", mib * MIB, model, (side, side), numbers)
        return fits(profile, mib * MIB, model, (side, side), settled=True)

    asked = needs(model)
    assert asked.gpus == 1
    assert settled(asked.gpu_memory_mib)
    assert not settled(asked.gpu_memory_mib - 512)


@pytest.mark.parametrize(("memory", "sold_as_gib"), [("8g", 8), ("12g", 12), ("24g", 24)])
def test_a_card_that_a_profile_is_made_for_is_large_enough_for_it(memory, sold_as_gib):
    asked = needs("xl", memory=memory).gpu_memory_mib
    # Drivers keep some of what is sold: of 24 GiB they tell 23028 MiB on an A10G, of 8 GiB 8188 on a 3070.
    assert 0.85 * sold_as_gib * 1024 < asked <= 0.93 * sold_as_gib * 1024


def test_a_larger_canvas_asks_for_a_larger_card():
    assert needs("xl", "canvas.area=2250000").gpu_memory_mib > needs("xl").gpu_memory_mib


def test_a_large_model_on_the_cpu_asks_for_the_memory_of_its_weights():
    asked = needs("xl", device="cpu")
    assert asked.gpus == asked.gpu_memory_mib == 0
    parameters = 2_223_727_364 + 340_787_200 + 1_844_907_264   # its network, and CLIP
    assert 4 * parameters / MIB < asked.memory_mib < 6 * parameters / MIB


def test_the_stand_in_asks_for_little_whatever_the_model():
    assert needs("xl", engine="stand-in").amounts() == {"vcpu": 2, "memory": 512}


def test_large_frames_ask_for_more_memory_than_they_were_seen_to_take():
    mini = needs("mini")
    # Resident memory of 8 drawn frames with mini on two cores.
    for size, seen_kb in (((1920, 1080), 1_317_496), ((4096, 2160), 2_262_192)):
        assert seen_kb / 1024 < mini.for_frames(size).memory_mib < 2.5 * seen_kb / 1024
    assert mini.for_frames((0, 0)) == mini


def test_what_is_typed_counts_more():
    typed = Needs(2, 8192, 1, 8000).changed(("vcpu=16", "memory=65536"))
    assert typed.amounts() == {"vcpu": 16, "memory": 65536, "gpu": 1, "gpu.memory": 8000}
    assert typed.changed(("gpu=0",)).amounts() == {"vcpu": 16, "memory": 65536}


@pytest.mark.parametrize("text", ["", "gpu", "gpu=", "gpu=-1", "gpu=1.5", "disk=5", "memory=9999999999", "vcpu=²"])
def test_a_need_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--need"):
        Needs().changed((text,))


def test_the_largest_frame_of_a_shot_decides(tmp_path):
    shot = draw_shot(tmp_path / "walk", (1, 2))
    draw(shot / "walk.0003.png", 3, (1600, 1200))
    words = ["farm", "openjd", str(shot), "--ref", str(tmp_path / "key.png"), "--engine", "stand-in"]
    amounts = []
    for number, more in enumerate([[], ["--frames", "1-2"], ["--need", "memory=100"]]):
        bundle = tmp_path / f"job{number}"
        assert main([*words, "-o", str(bundle), *more]) == 0
        (_, color, _) = read(bundle, "template.yaml")["steps"]
        amounts.append({one["name"]: one["min"] for one in color["hostRequirements"]["amounts"]})
    large, small, typed = (one["amount.worker.memory"] for one in amounts)
    assert large > small > typed == 100


def test_the_needs_are_in_the_template_of_the_steps_that_color(tmp_path):
    shot = draw_shot(tmp_path / "walk", (1,))
    key = draw_key(tmp_path / "key.png")
    words = ["farm", "openjd", str(shot), "--ref", str(key), "-o", str(tmp_path / "job"), "--need", "vcpu=8"]
    assert main([*words, "--model", "xl", "--preset", "xl"]) == 0
    check, color, finish = read(tmp_path / "job", "template.yaml")["steps"]
    amounts = {one["name"]: one["min"] for one in color["hostRequirements"]["amounts"]}
    assert list(amounts) == [
        "amount.worker.vcpu", "amount.worker.memory", "amount.worker.gpu", "amount.worker.gpu.memory",
    ]  # fmt: skip
    assert amounts["amount.worker.vcpu"] == 8 and amounts["amount.worker.gpu"] == 1
    assert check["hostRequirements"] == color["hostRequirements"]   # it looks for the weights
    assert "hostRequirements" not in finish

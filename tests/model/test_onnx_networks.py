"""Networks from ONNX files, with answers that follow from the picture by a formula."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from colorcli.errors import MissingExtraError, WeightsError
from colorcli.model import onnx_networks
from colorcli.model.onnx_file import read_onnx_file
from colorcli.model.onnx_networks import (
    OnnxNetworks,
    OnnxSession,
    as_probability,
    check_networks,
    ink_of,
    network_files,
    open_networks,
    thread_count,
)
from colorcli.presets import LineSettings, MaskSettings, Preset
from tests.model.onnx_made import channel, darkness, f32, near_ink, node, save

Float = NDArray[np.float32]
MEAN, STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))


def networks(frame: Path | None = None, key: Path | None = None, lines: Path | None = None,
             kind: str = "auto", **asked: bool) -> OnnxNetworks:
    files = {"masks.network": frame, "masks.key_network": key, "lines.network": lines}
    return OnnxNetworks({name: read_onnx_file(path) for name, path in files.items() if path is not None}, kind, **asked)


def ramp(height: int, width: int) -> Float:
    """A picture that goes from black on the left to white on the right, (H, W)."""
    return np.repeat(np.linspace(0, 1, width, dtype=np.float32)[None], height, axis=0)


def square(height: int, width: int, top: int, left: int, side: int) -> Float:
    picture = np.zeros((height, width), np.float32)
    picture[top : top + side, left : left + side] = 1
    return picture


# --- masks of line art --------------------------------------------------------------------------------------------


def test_line_art_is_shown_to_an_isnet_with_white_at_one_and_black_at_minus_one(tmp_path: Path) -> None:
    # 0.5 x (1 - x) of a value x in -1..1 is the darkness of the drawing itself.
    path = darkness(tmp_path / "a.onnx", gain=0.5, inputs={"picture": (1, 3, 64, 64)})
    drawing = ramp(64, 64)
    mask = networks(frame=path, kind="isnet").frame_mask(drawing)
    np.testing.assert_allclose(mask, 1 - drawing, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 64), (100, 160), (33, 21), (1, 1), (700, 300)])
@pytest.mark.parametrize("size", [(64, 64), (48, 80), ("height", "width")])
@pytest.mark.parametrize("kind", ["isnet", "birefnet"])
def test_a_mask_is_as_large_as_its_drawing(
    tmp_path: Path, shape: tuple[int, int], size: tuple[int | str, int | str], kind: str
) -> None:
    path = near_ink(tmp_path / "a.onnx", reach=5, inputs={"picture": (1, 3, *size)})
    found = networks(frame=path, key=path, kind=kind)
    white = np.ones(shape, np.float32)
    for mask in (found.frame_mask(white), found.key_mask(np.repeat(white[:, :, None], 3, axis=2))):
        assert mask.shape == shape and mask.dtype == np.float32
        assert mask.min() >= 0 and mask.max() <= 1


def test_a_large_drawing_keeps_its_thin_lines_on_the_way_to_a_small_network(tmp_path: Path) -> None:
    path = darkness(tmp_path / "a.onnx", gain=0.5, inputs={"picture": (1, 3, 64, 64)})
    drawing = np.ones((1024, 1024), np.float32)
    drawing[:, 500:502] = 0  # one eighth of the network's pixel
    mask = networks(frame=path, kind="isnet").frame_mask(drawing)
    assert 0.85 < mask.mean() / (2 / 1024) < 1.15  # bicubic overshoots a little and is cut at 0
    assert mask[:, 490:512].mean() > 0.05


def test_a_birefnet_sees_the_values_of_imagenet(tmp_path: Path) -> None:
    # The channel's own mean and deviation are taken out, so that 0.485 becomes 0.
    path = channel(tmp_path / "a.onnx", 0, above=0.0, inputs={"picture": (1, 3, 200, 200)})
    mask = networks(frame=path, kind="birefnet").frame_mask(ramp(200, 200))
    edge = int((mask[100] > 0.5).argmax())
    assert abs(edge - 0.485 * 199) < 1.5


# --- masks of color pictures --------------------------------------------------------------------------------------


def test_a_key_is_shown_to_an_isnet_as_it_is_with_its_aspect_kept_on_black(tmp_path: Path) -> None:
    # Red above a half: the black around the letterbox is not red, a white one would be.
    path = channel(tmp_path / "a.onnx", 0, inputs={"picture": (1, 3, 128, 128)})
    color = np.zeros((64, 128, 3), np.float32)
    color[10:30, 20:70, 0] = 1
    mask = networks(key=path, kind="isnet").key_mask(color)
    np.testing.assert_array_equal(mask > 0.5, color[:, :, 0] > 0.5)


def test_the_published_program_inverts_the_key_and_grows_its_mask(tmp_path: Path) -> None:
    path = channel(tmp_path / "a.onnx", 0, inputs={"picture": (1, 3, 128, 128)})
    color = np.ones((128, 128, 3), np.float32)
    color[50:60, 50:60, 0] = 0
    mask = networks(key=path, kind="isnet", published=True).key_mask(color)
    expected = cv2.dilate(1 - color[:, :, 0], np.ones((21, 21), np.uint8))
    np.testing.assert_array_equal(mask > 0.5, expected > 0.5)


def test_the_published_mask_of_a_birefnet_is_hard_and_grown(tmp_path: Path) -> None:
    color = np.zeros((128, 128, 3), np.float32)
    color[40:70, 40:70] = 1
    path = channel(tmp_path / "a.onnx", 0, above=0.0, inputs={"picture": (1, 3, 128, 128)})
    mask = networks(key=path, kind="birefnet", published=True).key_mask(color)
    assert set(np.unique(mask)) <= {0.0, 1.0}
    np.testing.assert_array_equal(mask > 0.5, cv2.dilate(color[:, :, 0], np.ones((21, 21), np.uint8)) > 0.5)


def test_the_values_of_a_birefnet_in_closed_form(tmp_path: Path) -> None:
    # Logits 3 x (1 - mean of the normalised channels), told from their values alone.
    path = darkness(tmp_path / "a.onnx", gain=3, inputs={"picture": (1, 3, 96, 96)})
    color = np.random.default_rng(0).random((96, 96, 3)).astype(np.float32)
    mask = networks(key=path, kind="birefnet").key_mask(color)
    logits = 3 * (1 - ((color - MEAN) / STD).mean(axis=2))
    np.testing.assert_allclose(mask, 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_a_mask_that_ends_in_a_sigmoid_gets_no_second_one() -> None:
    values = np.float32([[0.2, 0.9]])
    np.testing.assert_array_equal(as_probability(values, "Sigmoid"), values)
    np.testing.assert_array_equal(as_probability(values, ""), values)


def test_a_mask_far_outside_of_0_and_1_is_logits() -> None:
    values = np.float32([[-8, 0, 8]])
    np.testing.assert_allclose(as_probability(values, "Conv"), 1 / (1 + np.exp(-values)), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "metadata", "size", "expected"),
    [
        ("isnet-anime.onnx", {}, 1024, "isnet"),
        ("isnet-general-use.onnx", {}, 1024, "birefnet"),
        ("my_sketch_masks.onnx", {}, 512, "isnet"),
        ("u2net.onnx", {}, 320, "birefnet"),
        ("BiRefNet_HR.onnx", {}, 2048, "birefnet"),
        ("mine.onnx", {"colorcli.kind": "isnet"}, 320, "isnet"),
        ("isnet-anime.onnx", {"colorcli.kind": "birefnet"}, 1024, "birefnet"),
        ("mine.onnx", {}, 1024, "isnet"),
        ("mine.onnx", {}, 320, "birefnet"),
    ],
)
def test_the_kind_is_told_from_metadata_name_and_size(
    tmp_path: Path, name: str, metadata: dict[str, str], size: int, expected: str
) -> None:
    path = near_ink(tmp_path / name, reach=3, inputs={"picture": (1, 3, size, size)}, metadata=metadata)
    assert networks(frame=path).kind("masks.network") == expected
    assert networks(frame=path, kind="isnet").kind("masks.network") == "isnet"


def test_a_kind_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = near_ink(tmp_path / "a.onnx", metadata={"colorcli.kind": "sam"})
    with pytest.raises(WeightsError, match="sam"):
        networks(frame=path).frame_mask(ramp(8, 8))


# --- outputs ------------------------------------------------------------------------------------------------------


def outputs_of(tmp_path: Path, *values: float, sizes: tuple[int, ...] = ()) -> Path:
    """A network whose outputs are the picture's first channel times a number each, cut to a size."""
    nodes, constants = [node("Gather", "picture zero", "red", axis=1)], {"zero": np.array([0])}
    names = [f"out{number}" for number in range(len(values))]
    for number, value in enumerate(values):
        side = sizes[number] if sizes else 16
        constants |= {f"v{number}": f32(value), f"from{number}": np.array([0, 0]), f"to{number}": np.array([side] * 2),
                      f"axes{number}": np.array([2, 3])}
        nodes += [node("Mul", f"red v{number}", f"all{number}"),
                  node("Slice", f"all{number} from{number} to{number} axes{number}", names[number])]
    return save(tmp_path / "many.onnx", nodes, outputs=names, constants=constants, inputs={"picture": (1, 3, 16, 16)})


@pytest.mark.parametrize(
    ("values", "sizes", "first", "expected"),
    [
        ((0.1, 0.2), (), False, 0.2),                      # the last of several
        ((0.1, 0.2), (), True, 0.1),                       # the first of a network with side outputs
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7), (), False, 0.1),  # so many are side outputs
        ((0.1, 0.2, 0.3), (16, 16, 8), False, 0.2),        # a smaller one is no answer
    ],
)
def test_one_of_several_outputs_is_the_answer(
    tmp_path: Path, values: tuple[float, ...], sizes: tuple[int, ...], first: bool, expected: float
) -> None:
    session = OnnxSession(read_onnx_file(outputs_of(tmp_path, *values, sizes=sizes)))
    found, _ = session.map_of(np.ones((16, 16, 3), np.float32), first=first)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("kind", "expected"), [("isnet", 0.25), ("birefnet", 0.75)])
def test_an_isnet_answers_first_and_a_birefnet_last(tmp_path: Path, kind: str, expected: float) -> None:
    nodes = [
        node("ReduceMean", "picture", "mean", axes=[1], keepdims=1),
        node("Mul", "mean zero", "nothing"),
        node("Add", "nothing low", "first"),
        node("Add", "nothing high", "last"),
    ]
    path = save(tmp_path / "a.onnx", nodes, outputs=("first", "last"), inputs={"picture": (1, 3, 16, 16)},
                constants={"zero": f32(0), "low": f32(0.25), "high": f32(0.75)})
    np.testing.assert_allclose(networks(frame=path, kind=kind).frame_mask(ramp(16, 16)), expected, atol=1e-6)


def test_a_network_of_one_channel_sees_luminance(tmp_path: Path) -> None:
    nodes = [node("Identity", "picture", "mask")]
    path = save(tmp_path / "gray.onnx", nodes, inputs={"picture": (1, 1, 8, 8)})
    color = np.zeros((8, 8, 3), np.float32)
    color[:, :] = 1, 0.5, 0.25
    found, _ = OnnxSession(read_onnx_file(path)).map_of(color, first=False)
    np.testing.assert_allclose(found, 0.2126 + 0.7152 * 0.5 + 0.0722 * 0.25, atol=1e-6)


def test_half_precision_is_fed_half_precision(tmp_path: Path) -> None:
    path = channel(tmp_path / "half.onnx", kind=TensorProto.FLOAT16, inputs={"picture": (1, 3, 8, 8)})
    import onnx

    model = onnx.load(path)
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.float16(0.5), "level"))
    onnx.save(model, path)
    found, _ = OnnxSession(read_onnx_file(path)).map_of(np.ones((8, 8, 3), np.float32), first=False)
    assert found.dtype == np.float32 and (found == 1).all()


# --- lines --------------------------------------------------------------------------------------------------------


def drawing(height: int, width: int) -> Float:
    """Black lines on white, (H, W)."""
    page = np.ones((height, width), np.float32)
    cv2.rectangle(page, (width // 4, height // 4), (width // 2, height // 2), 0.0, 2)
    return page


@pytest.mark.parametrize(
    ("gain", "offset", "metadata"),
    [
        (1.0, 0.0, {}),                                  # lines light, 0..1
        (-1.0, 1.0, {}),                                 # lines dark, 0..1
        (2.0, -1.0, {}),                                 # lines light, -1..1
        (-2.0, 1.0, {}),                                 # lines dark, -1..1
        (255.0, 0.0, {}),                                # lines light, 0..255
        (-255.0, 255.0, {}),                             # lines dark, 0..255
        (0.5, 0.0, {"colorcli.values": "-1..1"}),        # it wants -1..1 and gives 0..1
        (1.0, 254.0, {"colorcli.values": "0..255"}),     # it wants 0..255 and gives 0..255: 254 + 1 - 255 x value
    ],
)
def test_ink_is_ink_whatever_the_range_and_polarity_of_the_network(
    tmp_path: Path, gain: float, offset: float, metadata: dict[str, str]
) -> None:
    path = darkness(tmp_path / "a.onnx", gain=gain, offset=offset, metadata=metadata,
                    inputs={"picture": (1, 3, 128, 128)})
    page = drawing(128, 128)
    ink = networks(lines=path).lines(np.repeat(page[:, :, None], 3, axis=2))
    np.testing.assert_allclose(ink, 1 - page, atol=1e-5)


def test_logits_of_lines_become_ink() -> None:
    found = np.full((20, 20), -9.0, np.float32)
    found[10] = 9
    ink = ink_of(found, "Conv")
    assert ink[10].min() > 0.99 and np.delete(ink, 10, axis=0).max() < 0.01


@pytest.mark.parametrize(("value", "ending"), [(0.0, "Sigmoid"), (1.0, "Sigmoid"), (-1.0, "Tanh"), (1.0, "Tanh"),
                                               (255.0, ""), (0.0, "")])
def test_a_blank_page_has_no_ink(value: float, ending: str) -> None:
    assert ink_of(np.full((8, 8), value, np.float32), ending).max() == 0


@pytest.mark.parametrize("size", [(128, 128), (96, 160), ("height", "width")])
@pytest.mark.parametrize("shape", [(90, 150), (150, 90), (300, 500), (128, 128)])
def test_lines_lie_where_they_are_in_the_picture(
    tmp_path: Path, size: tuple[int | str, int | str], shape: tuple[int, int]
) -> None:
    path = darkness(tmp_path / "a.onnx", inputs={"picture": (1, 3, *size)})
    page = np.ones(shape, np.float32)
    cv2.circle(page, (shape[1] // 3, shape[0] // 4), 5, 0.0, -1)
    ink = networks(lines=path).lines(np.repeat(page[:, :, None], 3, axis=2))
    assert ink.shape == shape
    for axis, expected in ((0, shape[1] // 3), (1, shape[0] // 4)):
        center = (ink.sum(axis=axis) * np.arange(shape[1 - axis])).sum() / ink.sum()
        assert abs(center - expected) < 0.2  # pixels, of which the network sees a third


def test_a_picture_of_any_size_is_given_to_a_free_network_exactly(tmp_path: Path) -> None:
    path = darkness(tmp_path / "a.onnx")
    page = drawing(301, 203)
    ink = networks(lines=path).lines(np.repeat(page[:, :, None], 3, axis=2))
    np.testing.assert_allclose(ink, 1 - page, atol=1e-6)


def test_the_edge_of_a_painting_gets_no_line_from_what_fills_the_canvas_up(tmp_path: Path) -> None:
    # Where neighbors differ there is a line: |x - its mean over 3 x 3|.
    nodes = [
        node("ReduceMean", "picture", "mean", axes=[1], keepdims=1),
        node("Pad", "mean pads", "wide", mode="edge"),
        node("AveragePool", "wide", "around", kernel_shape=[3, 3]),
        node("Sub", "mean around", "away"),
        node("Abs", "away", "mask"),
    ]
    path = save(tmp_path / "a.onnx", nodes, constants={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
                inputs={"picture": (1, 3, 128, 128)})
    gray = np.full((64, 128, 3), 0.4, np.float32)
    assert networks(lines=path).lines(gray).max() < 1e-6


def test_the_preset_decides_over_the_file_what_a_line_extractor_sees(tmp_path: Path) -> None:
    # Of values v in 0..255 it gives 255 - v, which is ink in 0..255; of others nothing like it.
    path = darkness(tmp_path / "a.onnx", offset=254, metadata={"colorcli.values": "0..1"},
                    inputs={"picture": (1, 3, 128, 128)})
    page = drawing(128, 128)
    lines = LineSettings(mode="extract", extractor="network", network=str(path), network_values="0..255")
    found = open_networks(Preset(lines=lines))
    assert found is not None
    np.testing.assert_allclose(found.lines(np.repeat(page[:, :, None], 3, axis=2)), 1 - page, atol=1e-5)


def test_values_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    path = darkness(tmp_path / "a.onnx", metadata={"colorcli.values": "lab"})
    with pytest.raises(WeightsError, match="lab"):
        networks(lines=path).lines(np.ones((8, 8, 3), np.float32))


# --- files that cannot be used ------------------------------------------------------------------------------------

IDENTITY = (node("Identity", "picture", "mask"),)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 64, 64, 3), "channels last"),
        ((1, "height", "width", 3), "channels last"),
        ((1, 4, 64, 64), "3 channels"),
        ((2, 3, 64, 64), "1x3xHxW"),
        ((3, 64, 64), "1x3xHxW"),
    ],
)
def test_a_network_that_takes_no_picture_is_refused_with_its_shape(
    tmp_path: Path, shape: tuple[int | str, ...], words: str
) -> None:
    path = save(tmp_path / "a.onnx", IDENTITY, inputs={"picture": shape})
    with pytest.raises(WeightsError, match=words) as caught:
        networks(frame=path).frame_mask(ramp(8, 8))
    assert str(path) in caught.value.message
    assert "x".join(map(str, shape)) in caught.value.message


def test_a_network_with_two_inputs_is_refused(tmp_path: Path) -> None:
    nodes = [node("Add", "picture prompt", "mask")]
    path = save(tmp_path / "a.onnx", nodes, inputs={"picture": (1, 3, 8, 8), "prompt": (1, 3, 8, 8)})
    with pytest.raises(WeightsError, match="prompt"):
        networks(frame=path).frame_mask(ramp(8, 8))


def test_a_network_of_whole_numbers_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", IDENTITY, kind=TensorProto.UINT8, inputs={"picture": (1, 3, 8, 8)})
    with pytest.raises(WeightsError, match="uint8"):
        networks(frame=path).frame_mask(ramp(8, 8))


def test_an_answer_that_is_no_map_is_refused_with_its_shape(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", "picture", "mask", axes=[2, 3], keepdims=0)]
    path = save(tmp_path / "a.onnx", nodes, inputs={"picture": (1, 3, 8, 8)})
    with pytest.raises(WeightsError, match="mask 1x3"):
        networks(frame=path).frame_mask(ramp(8, 8))


def test_an_answer_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = darkness(tmp_path / "a.onnx", gain=float("nan"), inputs={"picture": (1, 3, 8, 8)})
    with pytest.raises(WeightsError, match="NaN"):
        networks(frame=path).frame_mask(ramp(8, 8))


@pytest.mark.parametrize(
    "broken", [{"opset": 999}, {"nodes": [node("NoSuchOperation", "picture", "mask")]},
               {"nodes": [node("Identity", "nothing", "mask")]}]
)
def test_what_onnxruntime_refuses_is_told_with_the_files_name(tmp_path: Path, broken: dict[str, object]) -> None:
    nodes = broken.pop("nodes", IDENTITY)
    path = save(tmp_path / "a.onnx", nodes, **broken)  # type: ignore[arg-type]
    with pytest.raises(WeightsError) as caught:
        networks(frame=path).frame_mask(ramp(8, 8))
    assert str(path) in caught.value.message and "onnxruntime" in caught.value.message


def test_a_network_that_fails_on_the_picture_is_told_with_the_size(tmp_path: Path) -> None:
    nodes = [node("Reshape", "picture shape", "mask")]
    path = save(tmp_path / "a.onnx", nodes, constants={"shape": np.array([1, 1, 7, 7])})
    with pytest.raises(WeightsError, match="1024x1024"):
        networks(frame=path, kind="isnet").frame_mask(ramp(8, 8))


# --- what a preset asks for ---------------------------------------------------------------------------------------


def test_only_networks_that_are_used_are_looked_at() -> None:
    masks = MaskSettings(network="none.onnx", key_network="none.onnx")
    lines = LineSettings(network="none.onnx", extractor="network")
    assert network_files(Preset(masks=masks, lines=lines)) == {}
    assert open_networks(Preset(masks=masks, lines=lines)) is None
    used = Preset(
        masks=masks.model_copy(update={"source": "network"}), lines=lines.model_copy(update={"mode": "extract"})
    )
    assert set(network_files(used)) == {"masks.network", "masks.key_network", "lines.network"}


def test_a_missing_file_is_told_with_the_setting_that_names_it(tmp_path: Path) -> None:
    preset = Preset(masks=MaskSettings(source="network", key_network=str(tmp_path / "none.onnx")))
    with pytest.raises(WeightsError, match=r"masks\.key_network.*none\.onnx"):
        check_networks(preset)


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = darkness(tmp_path / "a.onnx")
    preset = Preset(masks=MaskSettings(source="network", network=str(path)))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError) as caught:
        networks(frame=path).frame_mask(ramp(8, 8))
    assert "[onnx]" in (caught.value.hint or "")
    monkeypatch.setattr(onnx_networks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"masks\.network"):
        check_networks(preset)


def test_a_file_that_two_settings_name_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = darkness(tmp_path / "a.onnx", gain=0.5)
    loaded: list[Path] = []
    load = onnx_networks.open_session
    monkeypatch.setattr(onnx_networks, "open_session", lambda path, device: loaded.append(path) or load(path, device))
    preset = Preset(masks=MaskSettings(source="network", network=str(path), key_network=str(path)))
    found = open_networks(preset)
    assert found is not None and loaded == []
    found.frame_mask(ramp(8, 8))
    found.key_mask(np.ones((8, 8, 3), np.float32))
    assert loaded == [path]


def test_many_threads_get_the_answers_of_one(tmp_path: Path) -> None:
    path = near_ink(tmp_path / "a.onnx", reach=5, inputs={"picture": (1, 3, 64, 64)})
    drawings = [drawing(60 + number, 80) for number in range(12)]
    alone = [networks(frame=path).frame_mask(one) for one in drawings]
    shared = networks(frame=path)
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(shared.frame_mask, drawings))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_picture_at_a_time_is_in_the_memory_of_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = near_ink(tmp_path / "a.onnx", reach=5, inputs={"picture": (1, 3, 64, 64)})
    load, inside, most = onnx_networks.open_session, [0], [0]

    class Counts:
        def __init__(self, session: object) -> None:
            self.session = session

        def __getattr__(self, name: str) -> object:
            return getattr(self.session, name)

        def run(self, *asked: object) -> object:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1
            return self.session.run(*asked)  # type: ignore[attr-defined]

    monkeypatch.setattr(onnx_networks, "open_session", lambda *asked: Counts(load(*asked)))
    shared = networks(frame=path)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(shared.frame_mask, [drawing(60, 80)] * 12))
    assert most == [1]


def test_threads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "400")
    assert thread_count() == onnx_networks.MOST_THREADS
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert 1 <= thread_count() <= onnx_networks.MOST_THREADS


def test_only_the_cpu_and_cuda_are_ever_asked_for(tmp_path: Path) -> None:
    session = onnx_networks.open_session(darkness(tmp_path / "a.onnx"), "auto")
    assert set(session.get_providers()) <= {"CPUExecutionProvider", "CUDAExecutionProvider"}
    assert onnx_networks.open_session(tmp_path / "a.onnx", "cpu").get_providers() == ["CPUExecutionProvider"]

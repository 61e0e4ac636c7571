"""Networks of the SD2.1 kind, small enough for a test, with random weights that leave nothing at zero."""

from colorcli.model.lora import RegionAdapters
from colorcli.model.side_encoders import BackgroundEncoder, SideUNet, StyleEncoder
from colorcli.model.sketch_encoder import PyramidSketchEncoder
from colorcli.model.unet import decoder_start, places
from tests.model.tiny import CONTEXT_DIM, randomised

WIDTHS = (32, 32, 64, 64)
SIZES = {"block_out_channels": WIDTHS, "depths": (1, 1, 1, 0), "head_dim": 16, "context_dim": CONTEXT_DIM}


def unet() -> SideUNet:
    net = SideUNet(**SIZES)
    randomised(net)
    return net


def background_encoder() -> BackgroundEncoder:
    net = BackgroundEncoder(**SIZES)
    randomised(net, seed=1)
    return net


def style_encoder() -> StyleEncoder:
    net = StyleEncoder(**SIZES)
    randomised(net, seed=2)
    return net


def sketch_encoder() -> PyramidSketchEncoder:
    net = PyramidSketchEncoder(block_out_channels=WIDTHS)
    randomised(net, seed=3)
    return net


def region_adapters() -> RegionAdapters:
    net = unet()
    widths = [place.width for place in places(net) if place.part == "decoder"]
    adapters = RegionAdapters(widths, decoder_start(net), CONTEXT_DIM)
    randomised(adapters, seed=4)
    return adapters

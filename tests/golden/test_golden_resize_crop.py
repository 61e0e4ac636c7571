"""Resizing, cropping and the encoders' preparation reproduce the golden numbers."""

import numpy as np

from colorcli.model import preprocess
from colorcli.prepare.background import aspect_crop_fractions
from tests.golden.fixture import load


def test_golden_stretch_and_aspect_crop() -> None:
    fixture = load("resize_crop")
    image = fixture.inputs["image"]
    for height, width in fixture.config["targets_hw"]:
        fixture.check(f"stretch.{height}x{width}", preprocess.stretch(image, (height, width)))
        fixture.check(f"aspect_crop.{height}x{width}", preprocess.crop_to_aspect(image, (height, width)))


def test_golden_scale() -> None:
    fixture = load("resize_crop")
    for factor in fixture.config["scale_factors"]:
        fixture.check(f"scale.{factor}", preprocess.scale(fixture.inputs["image"], factor))
        fixture.check(f"scale_nearest.{factor}", preprocess.scale_nearest(fixture.inputs["image"], factor))


def test_golden_crop_fractions() -> None:
    fixture = load("resize_crop")
    pairs = fixture.config["crop_pairs_hw_bg"]
    found = [aspect_crop_fractions((height, width), (rows, columns)) for height, width, rows, columns in pairs]
    fixture.check("crop_scale", np.asarray(found, np.float32))


def test_golden_encoder_preparation() -> None:
    fixture = load("resize_crop")
    image, config = fixture.inputs["image"], fixture.config
    fixture.check("clip_preprocess", preprocess.clip_pixels(image, config["clip_image_size"]))
    fixture.check("tagger_preprocess", preprocess.tagger_pixels(image, config["tagger_image_size"]))

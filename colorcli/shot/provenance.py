"""What a picture says of itself: by which tool and weights, under which license, and that a model had a part in it."""

from collections.abc import Mapping, Sequence

import colorcli
from colorcli.shot.manifest import ModelEntry
from colorcli.shot.stand_in import STAND_IN

# IPTC's word for a picture that people have drawn and a trained model has added to.
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"


def picture_notes(models: Sequence[ModelEntry], fingerprint: str | None) -> Mapping[str, str]:
    """Give the texts that go into a frame's file, by their names; nothing in them depends on machine or time.

    models: the one that colored, then networks and LoRA files. fingerprint: of all that decides how the frame looks.
    """
    notes = {"Software": f"colorcli {colorcli.__version__}"}
    for model in models:
        name = "model" if model.used_for == "color" else model.used_for
        notes[f"colorcli.{name}"] = f"{model.name}, license {model.license}, sha256 {model.sha256}"
    if fingerprint is not None:
        notes["colorcli.fingerprint"] = fingerprint
    if models and models[0].name != STAND_IN:
        notes["DigitalSourceType"] = COMPOSITE
    return notes

"""An EXR of layers in Blender's compositor: how far what it makes of them is from the finished frame.

For a Python that has Blender's own package, which needs nothing else of this project:

    pip install bpy==4.2.0
    python benchmarks/blender.py OUT/layers/walk.0001.exr

Lays line over color over paper, and line over flat times shade over paper, takes the first part of the file away from
each, and prints the largest differences as JSON.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import bpy  # type: ignore[import-not-found]
import numpy as np


def main() -> None:
    """Compose both ways, and report."""
    (file,) = map(Path, sys.argv[1:])
    result = {name: apart(file, shaded) for name, shaded in (("color", False), ("flat times shade", True))}
    told = {"benchmark": "blender", "blender": bpy.app.version_string, "largest difference": result}
    print(json.dumps(told, indent=2))


def apart(file: Path, shaded: bool) -> float:
    """Compose the layers of a file in Blender, and give the largest difference of a channel to the finished frame."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    camera = bpy.data.cameras.new("camera")   # without one there is nothing to render, and nothing is composed
    scene.camera = bpy.data.objects.new("camera", camera)
    scene.collection.objects.link(scene.camera)
    scene.use_nodes = True
    nodes, links = scene.node_tree.nodes, scene.node_tree.links
    nodes.clear()
    picture = bpy.data.images.load(str(file))

    def layer(name: str | None) -> Any:
        node = nodes.new("CompositorNodeImage")
        node.image = picture
        if name is not None:
            node.layer = name
        return node.outputs[0]

    def joined(kind: str, how: str | None, first: Any, second: Any) -> Any:
        node = nodes.new(kind)
        if how is not None:
            node.blend_type = how
            node.inputs[0].default_value = 1
        links.new(first, node.inputs[1])
        links.new(second, node.inputs[2])
        return node.outputs[0]

    colors = layer("color")
    if shaded:
        colors = joined("CompositorNodeMixRGB", "MULTIPLY", layer("flat"), layer("shade"))
    below = joined("CompositorNodeAlphaOver", None, layer("paper"), colors)
    made = joined("CompositorNodeAlphaOver", None, below, layer("line"))
    left = joined("CompositorNodeMixRGB", "DIFFERENCE", made, layer(None))
    with tempfile.TemporaryDirectory() as folder:
        output = nodes.new("CompositorNodeOutputFile")
        output.base_path, output.format.file_format, output.format.color_depth = folder, "OPEN_EXR", "32"
        links.new(left, output.inputs[0])
        links.new(left, nodes.new("CompositorNodeComposite").inputs[0])
        scene.render.resolution_x, scene.render.resolution_y = size_of(file)
        scene.render.engine, scene.cycles.samples = "CYCLES", 1
        bpy.ops.render.render()
        (written,) = Path(folder).iterdir()
        difference = bpy.data.images.load(str(written))
        values = np.asarray(difference.pixels[:], np.float64).reshape(-1, 4)
    return float(np.abs(values[:, :3]).max())


def size_of(file: Path) -> tuple[int, int]:
    """Width and height, by the header of an EXR; Blender does not tell them of a file of several layers."""
    header = file.read_bytes()[:4096]
    start = header.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    left, top, right, bottom = np.frombuffer(header[start : start + 16], "<i4")
    return int(right - left + 1), int(bottom - top + 1)


if __name__ == "__main__":
    main()

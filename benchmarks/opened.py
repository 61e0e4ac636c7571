"""What other programs make of all that colorcli writes: `python -m benchmarks.opened [--page docs/opened-with.md]`.

A frame of the sample is colored with all of its layers; page, movies, timeline and content credentials are made of it.
Each is opened with every program of the list that is here, and compared with the finished frame. A program that is not
here is named with what installs it. Nothing of colorcli reads back what it wrote; palettes go the other way, from
other programs to it.

The certificate is made for this and vouched for by nobody. Blender's Python is given by --blender (`pip install
bpy==4.2.0`, a Python 3.11 of its own), a folder with `npm install @trustnxt/c2pa-ts` by --node.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import note, report

ROOT = Path(__file__).parents[1]
WALK, WALK_KEY = ROOT / "samples" / "walk", ROOT / "samples" / "walk_key.png"
BEGIN, END = "<!-- opened -->", "<!-- /opened -->"
PATIENCE = 180   # seconds for one program
KRITA_TRIES = 5
FLAT_PX = 2000   # a color of more pixels is none of the soft edges of lines

READ_CREDENTIALS = """
import * as fs from 'node:fs/promises';
import { PNG } from '@trustnxt/c2pa-ts/asset';
import { SuperBox } from '@trustnxt/c2pa-ts/jumbf';
import { ManifestStore } from '@trustnxt/c2pa-ts/manifest';
const asset = new PNG(await fs.readFile(process.argv[2]));
const store = ManifestStore.read(SuperBox.fromBuffer(asset.getManifestJUMBF()));
const result = await store.validate(asset);
const actions = store.getActiveManifest().assertions.assertions.flatMap(one => one.actions ?? []);
console.log(JSON.stringify({ valid: result.isValid, codes: result.statusEntries.map(one => one.code),
                             source: actions.map(one => one.digitalSourceType) }));
"""
GIMP_OPENS = """
(define (say layers)
  (for-each (lambda (layer)
      (display (string-append "LAYER " (car (gimp-item-get-name layer)) "|"
        (number->string (car (gimp-layer-get-mode layer))) "|"
        (number->string (car (gimp-item-get-visible layer))) "\\n"))
      (if (= 1 (car (gimp-item-is-group layer))) (say (vector->list (cadr (gimp-item-get-children layer))))))
    layers))
(let* ((image (car (gimp-file-load RUN-NONINTERACTIVE "FILE" "a"))))
  (say (vector->list (cadr (gimp-image-get-layers image))))
  (gimp-image-convert-precision image PRECISION-U8-GAMMA)
  (file-png-save RUN-NONINTERACTIVE image (car (gimp-image-flatten image)) "MADE" "x" 0 9 0 0 0 0 0))
(gimp-quit 0)
"""
GIMP_MULTIPLY = "30"   # GIMP's number of the layer mode "Multiply"


@dataclass(frozen=True)
class Made:
    """What was written."""

    folder: Path
    frame: Path        # the finished frame, PNG
    exr: Path          # of layers
    psd: Path
    pictures: Mapping[str, Path]   # the same frame as another kind of file
    signed: Path
    page: Path
    movies: Sequence[Path]
    timeline: Path
    blender: Path | None
    node: Path | None

    def levels_apart(self, picture: Path) -> int:
        """The largest difference of a channel to the finished frame, 8-bit levels."""
        with Image.open(picture) as one, Image.open(self.frame) as other:
            return int(np.abs(np.asarray(one.convert("RGB"), np.int16) - np.asarray(other.convert("RGB"))).max())


@dataclass(frozen=True)
class Program:
    """Something that opens what was written."""

    output: str
    name: str
    install: str                    # what brings it
    version: Callable[[Made], str]  # raises Absent
    opens: Callable[[Made], str]    # what it makes of the output; raises AssertionError if that is wrong


class Absent(Exception):
    """A program is not here."""


def main() -> None:
    """Write everything, open it, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help=f"write the table there, between {BEGIN} and {END}")
    parser.add_argument("--blender", type=Path, metavar="PYTHON", help="a Python that has the package bpy")
    parser.add_argument("--node", type=Path, metavar="FOLDER", help="where `npm install @trustnxt/c2pa-ts` was run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = write_everything(Path(folder), options.blender, options.node)
        for program in PROGRAMS:
            row = {"output": program.output, "program": program.name, "install": program.install}
            try:
                row["version"] = program.version(made)
                row["result"] = program.opens(made)
            except Absent:
                row["result"] = "not here"
            except (AssertionError, subprocess.SubprocessError, OSError) as error:
                row["result"] = f"wrong: {error}"
            note(f"{row['output']}, {row['program']} {row.get('version', '')}: {row['result']}")
            rows.append(row)
    report({"benchmark": "opened", "rows": rows}, options.json)
    if options.page is not None:
        before, rest = options.page.read_text().split(BEGIN)
        after = rest.split(END)[1]
        options.page.write_text(before + BEGIN + "\n" + table(rows) + END + after)


def write_everything(folder: Path, blender: Path | None, node: Path | None) -> Made:
    """Color the sample in every kind of file, and make of it what can be made."""
    out, name = folder / "walk_color", "walk.0004"
    tool(str(WALK), "--ref", str(WALK_KEY), "--frames", "4-6x2", "-o", str(out), "--quiet",
         "--layers", "all", "--layers-as", "sequences,exr,psd")
    pictures = {}
    for kind, suffix in {"tiff16": ".tif", "tga": ".tga", "jpeg": ".jpg", "exr-half": ".exr"}.items():
        tool(str(WALK), "--ref", str(WALK_KEY), "--frames", "4", "-o", str(folder / kind), "--quiet",
             "--set", f"output.format={kind}")
        pictures[kind] = folder / kind / (name + suffix)
    signed = folder / "signed"
    shutil.copytree(out, signed)
    chain, key = certificate(folder)
    tool("manifest", "sign", str(signed), "--certificate", str(chain), "--private-key", str(key))
    page, timeline, movies = out / "review.html", folder / "walk.otio", [folder / "walk.mp4", folder / "walk.mov"]
    for movie in movies:
        tool("review", str(out), "--movie", str(movie), "--otio", str(timeline), "--rate", "23.976", "--quiet")
    return Made(
        folder=folder, frame=out / f"{name}.png", exr=out / "layers" / f"{name}.exr",
        psd=out / "layers" / f"{name}.psd", pictures=pictures, signed=signed / f"{name}.png", page=page,
        movies=movies, timeline=timeline, blender=blender, node=node,
    )


def tool(*words: str) -> None:
    """Run colorcli, as it lies here."""
    subprocess.run([sys.executable, "-m", "colorcli", *words], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate that may sign, vouched for by an authority of its own, and its private key."""
    from tests.shot.test_credentials import certificate as of
    from tests.shot.test_credentials import ec, pem, serialization

    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = (("Light Table", own, True), ("Authority", authority, False))
    both = [of(name, of_whom, "Authority", authority, may_sign) for name, of_whom, may_sign in names]
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in both))
    key.write_bytes(pem(own))
    return chain, key


def said(*words: str | Path, stdin: str | None = None, cwd: Path | None = None) -> str:
    """Run a program, and give what it says."""
    run = subprocess.run(
        [str(word) for word in words], input=stdin, capture_output=True, text=True, timeout=PATIENCE, cwd=cwd,
        env={**os.environ, "HOME": str(cwd)} if cwd is not None else None, check=False,
    )
    assert run.returncode == 0, (run.stderr or run.stdout)[-300:]
    return run.stdout


def here(name: str, *words: str, line: str = r"(\d+(?:\.\d+)+\S*)") -> Callable[[Made], str]:
    """Ask a program on the path for its version."""

    def version(made: Made) -> str:
        if shutil.which(name) is None:
            raise Absent
        run = subprocess.run(
            [name, *words], capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
        found = re.search(line, run.stdout + run.stderr)
        return found[1].rstrip(",") if found else ""

    return version


def debian(package: str, program: str) -> Callable[[Made], str]:
    """Ask Debian's package manager for the version of a program that tells none itself."""

    def version(made: Made) -> str:
        if shutil.which(program) is None:
            raise Absent
        return said("dpkg-query", "-W", "-f", "${Version}", package) if shutil.which("dpkg-query") else ""

    return version


def package(name: str) -> Callable[[Made], str]:
    """Ask for the version of a Python package."""

    def version(made: Made) -> str:
        from importlib import metadata

        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            raise Absent from None

    return version


# --- layers ------------------------------------------------------------------------------------------------------


def exr_header(made: Made) -> str:
    """The parts by OpenEXR's own program."""
    text = said("exrheader", made.exr)
    names = re.findall(r'^name \(type string\): "(.*)"', text, re.MULTILINE)
    assert text.count("red   (0.64 0.33)") == len(names) and "32-bit" not in text
    assert text.count("license Apache-2.0") == len(names)
    return f"{len(names)} parts ({', '.join(names)}), half, Rec.709, license of the weights in each"


def exr_python(made: Made) -> str:
    """The parts by OpenEXR's own Python package, laid over each other."""
    import OpenEXR

    with OpenEXR.File(str(made.exr), separate_channels=True) as file:
        parts = {part.name(): {name: channel.pixels for name, channel in part.channels.items()} for part in file.parts}

    def plane(name: str) -> tuple[Any, Any]:
        channels = {key.rsplit(".", 1)[-1]: value.astype(np.float64) for key, value in parts[name].items()}
        color = np.stack([channels[letter] for letter in "RGB"], axis=2)
        return color, channels.get("A", np.ones(color.shape[:2]))[..., None]

    color, cover = plane("paper")
    for name in ("color", "line"):
        above, alpha = plane(name)
        color, cover = above + color * (1 - alpha), alpha + cover * (1 - alpha)
    apart = float(np.abs(color - plane("beauty")[0]).max())
    assert apart < 1e-3, apart
    return f"line over color over paper is the frame to {apart:.4f}"


def by_blender(made: Made) -> str:
    """The layers in the compositor of Blender."""
    assert made.blender is not None
    text = said(made.blender, ROOT / "benchmarks" / "blender.py", made.exr)
    apart = json.loads(text[text.index("{\n") :])["largest difference"]
    assert max(apart.values()) < 1e-3, apart
    return f"composed by its nodes, the frame to {max(apart.values()):.4f}; with flat times shade, too"


def blender_version(made: Made) -> str:
    """The version of Blender's Python package."""
    if made.blender is None:
        raise Absent
    return said(made.blender, "-c", "import bpy; print(bpy.app.version_string)").strip().splitlines()[-1]


def by_gimp(made: Made, file: Path) -> tuple[list[str], int]:
    """Open a file in GIMP: its layers as name|mode|visible, and how far what it shows is from the frame."""
    png = made.folder / "gimp.png"
    script = GIMP_OPENS.replace("FILE", str(file)).replace("MADE", str(png))
    text = said("gimp", "-i", "-d", "-f", "-b", "-", stdin=script)
    return re.findall(r"LAYER (.*)", text), made.levels_apart(png)


def psd_by_gimp(made: Made) -> str:
    """The layers of a PSD in GIMP."""
    layers, apart = by_gimp(made, made.psd)
    found = {name: (mode, visible) for name, mode, visible in (layer.split("|") for layer in layers)}
    assert found["shade"][0] == GIMP_MULTIPLY and found["color"][1] == "1" and found["matte"][1] == "0", found
    assert apart <= 1, apart
    return f"{', '.join(found)}; shade multiplies; as it opens, the frame to {apart} level"


def exr_by_gimp(made: Made) -> str:
    """The first part of an EXR in GIMP, which knows of no others."""
    _, apart = by_gimp(made, made.exr)
    assert apart <= 1, apart
    return f"shows the first part: the frame to {apart} level"


def by_krita(kind: str) -> Callable[[Made], str]:
    """Export a file by Krita, without a screen, and compare what it shows."""

    def opens(made: Made) -> str:
        png = made.folder / f"krita_{kind}.png"
        file = made.psd if kind == "psd" else made.exr
        words = ("krita", file, "--export", "--export-filename", png)
        for tries in range(KRITA_TRIES):   # it gives up where its screen is slower than itself
            with contextlib.suppress(*(() if tries == KRITA_TRIES - 1 else (AssertionError,))):
                said("xvfb-run", "-a", *words, cwd=made.folder)
                break
        apart = made.levels_apart(png)
        assert apart <= 1, apart
        return f"{'all layers' if kind == 'psd' else 'shows the first part'}: the frame to {apart} level"

    return opens


def psd_by_imagemagick(made: Made) -> str:
    """The pictures of a PSD in ImageMagick: all of it first, then each layer."""
    lines = said("identify", made.psd).splitlines()
    png = made.folder / "magick.png"
    said(Path(shutil.which("identify") or "").resolve().with_name(converter()), f"{made.psd}[0]", png)
    apart = made.levels_apart(png)
    assert apart == 0 and all("sRGB" in line for line in lines), (apart, lines)
    return f"{len(lines) - 1} layers, sRGB; all of it is the frame exactly"


def converter() -> str:
    """What ImageMagick's converting program is called here; `convert` may be another program."""
    return next((name for name in ("magick", "convert-im6.q16", "convert") if shutil.which(name)), "convert")


# --- frames ------------------------------------------------------------------------------------------------------


def by_pngcheck(made: Made) -> str:
    """Every PNG, also the signed one, chunk by chunk."""
    files = [*made.frame.parent.rglob("*.png"), made.signed]
    said("pngcheck", "-q", *files)   # it ends with an error if it finds one
    return f"no fault in {len(files)} files, frames, layers, and a signed one"


def by_exiftool(made: Made) -> str:
    """The notes of each kind of picture."""
    files = [made.frame, *(file for kind, file in made.pictures.items() if kind not in ("tga",))]
    for file in files:
        text = said("exiftool", file)
        if file.suffix != ".exr":   # it reads some of an EXR's attributes only
            assert "license Apache-2.0" in text and "compositeWithTrainedAlgorithmicMedia" in text, file.name
    return "license and hash of the weights, and the source type, in PNG, TIFF and JPEG"


def frame_by_exrheader(made: Made) -> str:
    """The attributes of an EXR frame."""
    text = said("exrheader", made.pictures["exr-half"])
    assert "license Apache-2.0" in text and "compositeWithTrainedAlgorithmicMedia" in text
    return "license and hash of the weights, and the source type"


def frames_by_imagemagick(made: Made) -> str:
    """Every kind of frame but EXR, which Debian's ImageMagick does not read."""
    kinds = [kind for kind in made.pictures if kind != "exr-half"]
    shown = [said("identify", "-format", "%m %wx%h %z bit ", made.pictures[kind]).strip() for kind in kinds]
    assert all("960x720" in one for one in shown), shown
    return ", ".join(shown)


def credentials_by_node(made: Made) -> str:
    """Content credentials, read by an implementation that is not the one that wrote them."""
    assert made.node is not None
    script = made.node / "read_credentials.mjs"
    script.write_text(READ_CREDENTIALS)
    found = json.loads(said("node", script, made.signed))
    assert found["valid"] and found["source"][0].endswith("compositeWithTrainedAlgorithmicMedia"), found
    altered = made.folder / "altered.png"
    data = bytearray(made.signed.read_bytes())
    data[data.rfind(b"IDAT") + 40] ^= 1
    altered.write_bytes(data)
    broken = json.loads(said("node", script, altered))
    assert not broken["valid"] and "assertion.dataHash.mismatch" in broken["codes"], broken
    return "signature and hash of the pixels hold, source type as it should be; one byte changed is told"


def node_version(made: Made) -> str:
    """The version of that implementation."""
    if made.node is None or shutil.which("node") is None:
        raise Absent
    text = (made.node / "node_modules" / "@trustnxt" / "c2pa-ts" / "package.json").read_text()
    return str(json.loads(text)["version"])


def credentials_by_exiftool(made: Made) -> str:
    """Content credentials as boxes."""
    text = said("exiftool", "-G1", made.signed)
    assert "[JUMBF]" in text and "c2pa.created" in text and "compositeWithTrainedAlgorithmicMedia" in text
    return "lists the claim, its action and source type"


# --- review ------------------------------------------------------------------------------------------------------


def by_ffprobe(made: Made) -> str:
    """Both movies: how many frames, at which rate, of which color."""
    told = []
    for movie in made.movies:
        asked = (
            "stream=codec_name,profile,avg_frame_rate,nb_read_frames,color_range,color_space,color_transfer,"
            "color_primaries"
        )
        text = said("ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries", asked,
                    "-of", "json", movie)
        (stream,) = json.loads(text)["streams"]
        tags = [stream.get(f"color_{name}") for name in ("space", "transfer", "primaries")]
        assert tags == ["bt709"] * 3 and stream["color_range"] == "tv", stream
        assert stream["avg_frame_rate"] == "24000/1001" and stream["nb_read_frames"] == "4", stream
        told.append(f"{stream['codec_name']} {stream['profile']}")
    return f"{' and '.join(told)}: 4 frames for two drawings on twos, 24000/1001, bt709 throughout"


def by_otiotool(made: Made) -> str:
    """The timeline by OpenTimelineIO's own program, and whether its pictures are there."""
    import opentimelineio as otio

    text = said(Path(sys.executable).with_name("otiotool"), "-i", made.timeline, "--list-clips", "--stats")
    timeline: Any = otio.adapters.read_from_file(str(made.timeline))
    count = 0
    for clip in timeline.find_clips():
        for media in clip.media_references().values():
            for number in range(media.number_of_images_in_sequence()):
                path = otio.url_utils.filepath_from_url(media.target_url_for_image_number(number))
                assert Path(path).is_file(), path
                count += 1
    assert "CLIP" in text.upper()
    return f"lists its clips; all {count} pictures that they name are there"


def by_firefox(made: Made) -> str:
    """The page in Firefox, from the disk."""
    png = made.folder / "firefox.png"
    said("firefox", "--headless", "--window-size=1280,1000", "--screenshot", png, made.page.as_uri(), cwd=made.folder)
    with Image.open(png) as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 24) or ()}
    with Image.open(made.frame) as frame:
        # The slider stands in the middle: left of it is the drawing.
        right = frame.convert("RGB").crop((frame.width // 2, 0, *frame.size))
    used = {color for count, color in right.getcolors(1 << 24) or () if count > FLAT_PX}
    assert len(used) > 2 and used <= colors, used - colors   # more than ink and paper
    return "the slider shows the frame in its exact colors"


# --- palettes, the other way round -------------------------------------------------------------------------------


def gimp_palettes(made: Made) -> str:
    """Every palette that comes with GIMP, against what its lines say."""
    from colorcli.prepare.palette_file import read_swatches

    files = sorted(Path("/usr/share/gimp/2.0/palettes").glob("*.gpl"))
    assert files
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        levels = {tuple(map(int, line.split()[:3])) for line in lines if re.match(r"\s*\d+\s+\d+\s+\d+", line)}
        read = {tuple(round(255 * value) for value in swatch.color) for swatch in read_swatches(file)}
        assert read == levels, file.name
    return f"its {len(files)} palettes are read, each color of them"


def swatch_palette(made: Made) -> str:
    """Adobe swatches that another package wrote."""
    import swatch

    from colorcli.prepare.palette_file import read_swatches

    colors = {"Coat": [0.25, 0.5, 0.75], "Skin": [1.0, 0.8, 0.6]}
    entries = [
        {"name": name, "type": "Process", "data": {"mode": "RGB", "values": values}} for name, values in colors.items()
    ]
    file = made.folder / "hero.ase"
    swatch.write(entries, str(file))
    assert {one.name: [round(value, 4) for value in one.color] for one in read_swatches(file)} == colors
    return "the .ase that it writes is read, names and colors"


GIMP = here("gimp", "--version")
KRITA = debian("krita", "krita")
MAGICK = here("identify", "-version", line=r"ImageMagick (\S+)")
EXIFTOOL = here("exiftool", "-ver")
PROGRAMS = (
    Program("layers, EXR", "exrheader", "apt-get install openexr", debian("openexr", "exrheader"), exr_header),
    Program("layers, EXR", "OpenEXR for Python", "pip install OpenEXR", package("OpenEXR"), exr_python),
    Program("layers, EXR", "Blender", "pip install bpy==4.2.0", blender_version, by_blender),
    Program("layers, EXR", "GIMP", "apt-get install gimp", GIMP, exr_by_gimp),
    Program("layers, EXR", "Krita", "apt-get install krita xvfb", KRITA, by_krita("exr")),
    Program("layers, PSD", "GIMP", "apt-get install gimp", GIMP, psd_by_gimp),
    Program("layers, PSD", "Krita", "apt-get install krita xvfb", KRITA, by_krita("psd")),
    Program("layers, PSD", "ImageMagick", "apt-get install imagemagick", MAGICK, psd_by_imagemagick),
    Program("frames, PNG", "pngcheck", "apt-get install pngcheck", debian("pngcheck", "pngcheck"), by_pngcheck),
    Program("frames, notes", "exiftool", "apt-get install libimage-exiftool-perl", EXIFTOOL, by_exiftool),
    Program("frames, EXR", "exrheader", "apt-get install openexr", debian("openexr", "exrheader"), frame_by_exrheader),
    Program("frames", "ImageMagick", "apt-get install imagemagick", MAGICK, frames_by_imagemagick),
    Program("content credentials", "c2pa-ts", "npm install @trustnxt/c2pa-ts", node_version, credentials_by_node),
    Program("content credentials", "exiftool", "apt-get install libimage-exiftool-perl", EXIFTOOL,
            credentials_by_exiftool),
    Program("movies", "ffprobe", "apt-get install ffmpeg", here("ffprobe", "-version"), by_ffprobe),
    Program("timeline", "otiotool", "pip install opentimelineio", package("opentimelineio"), by_otiotool),
    Program("review page", "Firefox", "apt-get install firefox-esr", here("firefox", "--version"), by_firefox),
    Program("palettes read", "GIMP's .gpl", "apt-get install gimp", GIMP, gimp_palettes),
    Program("palettes read", "swatch's .ase", "pip install swatch", package("swatch"), swatch_palette),
)


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows as Markdown."""
    lines = ["| output | opened with | result |", "|---|---|---|"]
    for row in rows:
        if "version" in row:
            lines.append(f"| {row['output']} | {row['program']} {row['version']} | {row['result']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""The pictures of the documentation, made anew: `python -m benchmarks.pictures [NAME...] [--docs docs]`.

All that is in color is colored by the tool itself, by the same commands that a user types, from the sample shot or from
drawn characters of styles that mini is never trained on. What a setting does is shown without it, and with. The page of
a review is photographed in a Chromium.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.machine import note

ROOT = Path(__file__).parents[1]
WALK, WALK_KEY = ROOT / "samples" / "walk", ROOT / "samples" / "walk_key.png"
MOST_COLORS = 256            # of a picture of the documentation: flat colors and the soft edges of their lines
BACKDROP = (236, 250)        # gray of the checks behind what is transparent, 0..255
CHECK_PX = 12
LETTERS_PX, LETTERS_ROOM_PX = 18, 34

GAP_AT = ((478, 396, 487, 412), (424, 392, 433, 408))   # places of the hem in walk.0004 where the pen is lifted
# Strokes as a pencil draws them to part light from shadow, in pixels of walk.0004: on coat and skirt.
SEPARATIONS = (
    (((441, 316), (450, 340), (452, 365), (446, 399)), "#e02020"),
    (((430, 408), (416, 470), (404, 540), (398, 602)), "#2050e0"),
    (((500, 410), (504, 470), (510, 540), (514, 602)), "#2050e0"),
)
REVIEW_SHOT, REVIEW_FRAMES = 1, range(1, 17)
PAGE_PX, UNSURE_PX = (1280, 960), (1240, 760)   # of a browser's window
CHROMIUMS = ("chromium-headless-shell", "chromium", "google-chrome")
STEADY_SHOT, STEADY_FRAMES = 23, range(2, 8)     # number of the drawn shot, and its frames
KEYS_CHARACTER, KEYS_FRAME = 6, 1                # number of the character of `benchmarks.keys`, and of its frame
LAYERS_SHOT, LAYERS_FRAMES = 20, (1,)
EVENING = {                                      # colors of the walk's key, and what they are in an evening
    "#35bc73": "#3d5f8f", "#7e7e7f": "#5a4a6e", "#f3c098": "#c08a8c", "#68b845": "#c77f45", "#275373": "#3b2f5c",
    "#316bac": "#8a5f9a", "#b5ebf0": "#9fb0dc", "#2b2024": "#1c1830", "#202219": "#231c33", "#b09fee": "#7f6fc0",
}
PAIRS_SHOT = 40
NIGHT = {                                        # the lit colors of its key, and what they are at night
    "#dabc9e": "#4d6a8f", "#b5b6b1": "#5b5f86", "#dfd2b1": "#7f7aa8", "#f1d1c1": "#8f8fb5", "#e2daae": "#9a97b8",
    "#aac1b7": "#5f7f9c", "#9cddb8": "#6fa0b0",
}


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet."""

    image: Image.Image   # RGB
    words: str = ""      # above it


def main() -> None:
    """Make some pictures, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where they go: NAME.png")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in PICTURES]:
        parser.error(f"there is no picture {unknown[0]}: there are {', '.join(PICTURES)}")
    for name in options.names or PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            made = PICTURES[name](Path(folder))
        path = options.docs / f"{name}.png"
        made.quantize(MOST_COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
        note(f"{path}  {made.width}x{made.height}  {path.stat().st_size // 1000} kB")


def colored(shot: Path, refs: Sequence[Path], out: Path, *options: str) -> list[Image.Image]:
    """Run `colorcli SHOT --ref ... -o OUT` with some options: the frames, in order."""
    asked = [word for ref in refs for word in ("--ref", str(ref))]
    tool(str(shot), *asked, "-o", str(out), "--quiet", *options)
    return [shown(path) for path in sorted(out.glob("*.png"))]


def tool(*words: str) -> None:
    """Run colorcli, as it lies here."""
    subprocess.run([sys.executable, "-m", "colorcli", *words], check=True, cwd=ROOT)


def walk(folder: Path) -> Image.Image:
    """The sample: a key, drawings, and what they become."""
    made = colored(WALK, [WALK_KEY], folder / "out", "--frames", "4,6,10")
    drawn = [shown(WALK / f"walk.{number:04d}.png") for number in (4, 6, 10)]
    places = (300, 20, 670, 710)
    key = Cell(shown(WALK_KEY).crop(places))
    nothing = Cell(Image.new("RGB", key.image.size, "white"))
    rows = [[key, *cut(drawn, places)], [nothing, *cut(made, places)]]
    return sheet(rows, scale=0.5)


def layers(folder: Path) -> Image.Image:
    """A finished frame, its layers, and the layers laid over each other by Pillow."""
    shot = drawn_shot(folder / "shots", LAYERS_SHOT, LAYERS_FRAMES)
    out = folder / "out"
    (beauty,) = colored(shot / "line", [shot / "key.png"], out, "--layers", "all")
    names = ("color", "line", "matte", "flat", "shade", "paper")
    files = {name: next((out / "layers" / name).glob("*.png")) for name in names}
    paper, color, line = (Image.open(files[name]).convert("RGBA") for name in ("paper", "color", "line"))
    again = over(Image.alpha_composite(Image.alpha_composite(paper, color), line))
    apart = np.abs(np.asarray(again, np.int16) - np.asarray(beauty, np.int16)).max()
    note(f"layers: line over color over paper is the frame to {apart} of 255 levels")
    cells = [Cell(beauty, "frame"), *(Cell(shown(files[name], checks=True), name) for name in names[:5])]
    return sheet([trimmed([*cells, Cell(again, "laid over each other")], asked=1)], scale=0.62)


def palette(folder: Path) -> Image.Image:
    """A frame in the key's colors, and repainted by a palette of old colors and new ones."""
    evening = folder / "evening.json"
    evening.write_text(json.dumps(EVENING))
    options = ("--frames", "4")
    (before,) = colored(WALK, [WALK_KEY], folder / "before", *options)
    (after,) = colored(WALK, [WALK_KEY], folder / "after", *options, "--set", f"finish.palette_file={evening}")
    first, second = trimmed([Cell(before, "the key's colors"), Cell(after, "finish.palette_file=evening.json")])
    return sheet([[first, swatches(EVENING, 80, first.image.height), second]], scale=0.75)


def pairs(folder: Path) -> Image.Image:
    """A frame in two tones, and repainted by a palette that names its lit colors only."""
    shot = drawn_shot(folder / "shots", PAIRS_SHOT, (1,))
    night = folder / "night.json"
    night.write_text(json.dumps(NIGHT))
    (before,) = colored(shot / "line", [shot / "key.png"], folder / "before")
    (after,) = colored(shot / "line", [shot / "key.png"], folder / "after", "--set", f"finish.palette_file={night}")
    first, second = trimmed([Cell(before, "the key's colors"), Cell(after, "finish.palette_file=night.json")])
    return sheet([[first, swatches(NIGHT, 50, first.image.height), second]], scale=0.8)


def swatches(colors: Mapping[str, str], width: int, height: int) -> Cell:
    """Old colors and new ones side by side. width: of each, height: of all, pixels."""
    image = Image.new("RGB", (2 * width + 10, height), "white")
    for place, pair in enumerate(colors.items()):
        for column, color in enumerate(pair):
            left, top = column * (width + 10), 40 + 56 * place
            image.paste(color, (left, top, left + width, top + 48))
    return Cell(image, "old, new")


def gaps(folder: Path) -> Image.Image:
    """An outline that was left open: without and with the closing of gaps."""
    shot = folder / "open"
    shot.mkdir()
    open_line = Image.open(WALK / "walk.0004.png").convert("RGB")
    for place in GAP_AT:
        open_line.paste("white", place)
    open_line.save(shot / "walk.0004.png")
    (leaking,) = colored(shot, [WALK_KEY], folder / "without", "--set", "lines.gap_px=0")
    (closed,) = colored(shot, [WALK_KEY], folder / "with")
    near = (400, 340, 560, 460)
    cells = [(open_line, "the drawing"), (leaking, "lines.gap_px=0"), (closed, "as it is by default, 12")]
    rows = [
        trimmed([Cell(image, words) for image, words in cells]),
        [Cell(image.crop(near).resize((320, 240), Image.Resampling.LANCZOS)) for image, _ in cells],
    ]
    return sheet(rows, scale=0.75)


def separation(folder: Path) -> Image.Image:
    """Colored separation lines: as drawn, laid over the color, and taken out."""
    shot = folder / "shot"
    shot.mkdir()
    drawing = Image.open(WALK / "walk.0004.png").convert("RGB")
    large = drawing.resize((drawing.width * 4, drawing.height * 4), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(large)
    for points, color in SEPARATIONS:
        pen.line([(4 * x, 4 * y) for x, y in points], fill=color, width=7, joint="curve")
    drawing = large.resize(drawing.size, Image.Resampling.BOX)
    drawing.save(shot / "walk.0004.png")
    (kept,) = colored(shot, [WALK_KEY], folder / "without")
    (gone,) = colored(shot, [WALK_KEY], folder / "with", "--set", "finish.separation_lines=remove")
    cells = [Cell(drawing, "the drawing"), Cell(kept, "as it is by default"), Cell(gone, "separation_lines=remove")]
    return sheet([trimmed(cells)], scale=0.75)


def keys(folder: Path) -> Image.Image:
    """A frame from one key, and from two."""
    from benchmarks.keys import FIRST_SEED, drawn
    from colorcli.images import FORMATS, write_picture

    two, frames = drawn(FIRST_SEED + KEYS_CHARACTER, KEYS_CHARACTER)
    files = [folder / "back.png", folder / "front.png"]
    (folder / "shot").mkdir()
    line = frames[KEYS_FRAME][0]
    for path, one in zip([*files, folder / "shot" / "a.0001.png"], [*two, line], strict=True):
        write_picture(path, one.color, one.alpha, FORMATS["png8"])
    (alone,) = colored(folder / "shot", files[:1], folder / "one")
    (both,) = colored(folder / "shot", files, folder / "both")
    cells = [
        Cell(shown(files[0]), "first key"), Cell(shown(files[1]), "second key"),
        Cell(alone, "from the first"), Cell(both, "from both"),
    ]
    return sheet([cells], scale=0.62)


def steady(folder: Path) -> Image.Image:
    """A shot with closed lines only, with gaps closed, and steady."""
    shot = drawn_shot(folder / "shots", STEADY_SHOT, STEADY_FRAMES)
    rows = []
    for name, options in {
        "lines.gap_px=0": ("--set", "lines.gap_px=0"), "as it is by default": (), "--steady": ("--steady",),
    }.items():
        made = colored(shot / "line", [shot / "key.png"], folder / name, *options)
        rows.append([Cell(one, name if place == 0 else "") for place, one in enumerate(made)])
    trim = trimmed([cell for row in rows for cell in row])
    across = len(STEADY_FRAMES)
    return sheet([trim[start : start + across] for start in range(0, len(trim), across)], scale=0.55)


def review(folder: Path) -> Image.Image:
    """The page of a review, at the frame that is worth a look first."""
    return photographed(page_of_drawn(folder), PAGE_PX, press=("n",))


def curves(folder: Path) -> Image.Image:
    """The curves of that page, and the begin of its contact sheet."""
    return photographed(page_of_drawn(folder), PAGE_PX, press=("n",), scrolled="section.curves")


def unsure(folder: Path) -> Image.Image:
    """The last frame of the sample in its page, with the regions that are unsure."""
    colored(WALK, [WALK_KEY], folder / "walk_color")
    tool("review", str(folder / "walk_color"), "--quiet")
    return photographed(folder / "walk_color" / "review.html", UNSURE_PX, press=("End", "3"), part=".bench")


def page_of_drawn(folder: Path) -> Path:
    """Make the page of a drawn shot."""
    shot = drawn_shot(folder / "drawn", REVIEW_SHOT, REVIEW_FRAMES)
    (shot / "line").rename(folder / "shot")
    colored(folder / "shot", [shot / "key.png"], folder / "shot_color")
    tool("review", str(folder / "shot_color"), "--quiet")
    return folder / "shot_color" / "review.html"


def photographed(
    page_file: Path, size: tuple[int, int], press: Sequence[str], scrolled: str = "body", part: str | None = None
) -> Image.Image:
    """Photograph a page in a Chromium's window of this size, with these keys pressed and an element at the top.

    part: the element that is shown, whole; None: what the window shows.
    """
    from playwright.sync_api import sync_playwright

    here = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=here, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.goto(page_file.as_uri())
        page.wait_for_selector("#stage[data-painted]", state="attached")
        for key in press:
            page.keyboard.press(key)
        # Just below the page's own head, which stays.
        page.evaluate(f"window.scrollTo(0, document.querySelector('{scrolled}').offsetTop - 64)")
        page.wait_for_timeout(500)
        data = page.screenshot() if part is None else page.locator(part).screenshot()
        browser.close()
    return Image.open(io.BytesIO(data)).convert("RGB")


PICTURES: dict[str, Callable[[Path], Image.Image]] = {
    "walk": walk, "layers": layers, "palette": palette, "pairs": pairs, "gaps": gaps, "separation": separation,
    "keys": keys, "steady": steady, "unsure": unsure, "review": review, "review-curves": curves,
}


def drawn_shot(folder: Path, number: int, frames: Sequence[int]) -> Path:
    """Draw some frames of a shot that `colorcli evaluate moving` measures on: a folder with line/ and key.png."""
    from colorcli.train.data.characters import VALIDATION_SEED
    from colorcli.train.data.validation import SIZE
    from colorcli.train.drawings import VALIDATION_FAMILIES, design_character, draw

    families = tuple(VALIDATION_FAMILIES)
    seed = VALIDATION_SEED + 1_000_000 + number
    character = design_character(seed, families[number % len(families)])
    pose = int(np.random.default_rng([seed, 5]).integers(2**31, size=1)[0])
    (folder / "line").mkdir(parents=True)
    for frame in (0, *frames):
        drawing = draw(character, pose, SIZE, background="plain", framing="full", sway=frame)
        picture = Image.fromarray(drawing.line if frame else drawing.color).convert("RGB")
        picture.putalpha(Image.fromarray(drawing.mask))
        picture.save(folder / "line" / f"shot.{frame:04d}.png" if frame else folder / "key.png")
    return folder


def shown(path: Path, checks: bool = False) -> Image.Image:
    """A picture as a person sees it, over white, or over checks where it is transparent."""
    return over(Image.open(path).convert("RGBA"), checks)


def over(image: Image.Image, checks: bool = False) -> Image.Image:
    """Lay a transparent picture (RGBA) over white or checks."""
    y, x = np.mgrid[: image.height, : image.width] // CHECK_PX
    grays = np.where((x + y) % 2, np.uint8(BACKDROP[0]), np.uint8(BACKDROP[1])) if checks else np.full_like(x, 255)
    below = Image.fromarray(np.repeat(grays[..., None].astype(np.uint8), 3, axis=2)).convert("RGBA")
    return Image.alpha_composite(below, image).convert("RGB")


def cut(images: Sequence[Image.Image], places: tuple[int, int, int, int]) -> list[Cell]:
    """The same part of each."""
    return [Cell(image.crop(places)) for image in images]


def trimmed(cells: Sequence[Cell], asked: int | None = None, margin: int = 12) -> list[Cell]:
    """Cut away what is plain in the first `asked` pictures, None: in all, from every one alike."""
    pictures = [np.asarray(cell.image, np.int16) for cell in cells[:asked]]
    used = np.any([np.abs(one - one[0, 0]).max(axis=2) > 8 for one in pictures], axis=0)
    rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    height, width = used.shape
    places = (
        max(0, int(columns[0]) - margin), max(0, int(rows[0]) - margin),
        min(width, int(columns[-1]) + margin), min(height, int(rows[-1]) + margin),
    )
    return [Cell(cell.image.crop(places), cell.words) for cell in cells]


def sheet(rows: Sequence[Sequence[Cell]], scale: float = 1.0) -> Image.Image:
    """Lay cells beside and below each other, with their words above them."""
    font = ImageFont.load_default(LETTERS_PX)
    made = []
    for row in rows:
        room = LETTERS_ROOM_PX if any(cell.words for cell in row) else 0
        images = [
            cell.image.resize((round(cell.image.width * scale), round(cell.image.height * scale)), Image.Resampling.BOX)
            for cell in row
        ]
        widths = [
            max(image.width, round(font.getlength(cell.words))) + 16 for image, cell in zip(images, row, strict=True)
        ]
        strip = Image.new("RGB", (sum(widths), room + max(image.height for image in images) + 8), "white")
        left = 0
        for image, cell, width in zip(images, row, widths, strict=True):
            strip.paste(image, (left + (width - image.width) // 2, room))
            ImageDraw.Draw(strip).text((left + 8, 6), cell.words, fill=(70, 70, 70), font=font)
            left += width
        made.append(strip)
    whole = Image.new("RGB", (max(one.width for one in made), sum(one.height for one in made)), "white")
    top = 0
    for one in made:
        whole.paste(one, (0, top))
        top += one.height
    return whole


if __name__ == "__main__":
    main()

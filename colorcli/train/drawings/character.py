"""The design of one character: proportions, hair, clothes, palette and the hand that draws it."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace

import numpy as np

from colorcli.train.drawings.families import FAMILIES, VALIDATION_FAMILIES, Family
from colorcli.train.drawings.raster import RGB, Pen, Shading

SKINS: tuple[RGB, ...] = (
    (255, 224, 196),
    (250, 205, 170),
    (244, 187, 152),
    (235, 180, 130),
    (224, 160, 120),
    (198, 134, 92),
    (160, 104, 68),
    (120, 76, 50),
    (90, 56, 40),
    (255, 236, 220),
    (246, 178, 150),
    (255, 214, 150),
)
HAIRS: tuple[RGB, ...] = (
    (28, 24, 26),
    (58, 38, 28),
    (96, 60, 36),
    (140, 92, 52),
    (190, 146, 84),
    (224, 200, 118),
    (244, 228, 160),
    (168, 70, 36),
    (204, 98, 44),
    (128, 128, 130),
    (208, 208, 208),
    (240, 240, 236),
    (70, 70, 80),
)


COMPANIONS = 0.06  # share of characters that are never drawn alone

# Small things of a design, each with its chance.
TRIMMINGS: dict[str, float] = {
    "highlights": 0.3,     # light in the eyes
    "teeth": 0.5,          # in an open mouth
    "nails": 0.12,
    "soles": 0.4,          # of shoes, of another color
    "seams": 0.25,         # along trousers, from hip to hem
    "side stripes": 0.12,  # the same, of another color
    "cuffs": 0.15,         # turned-up hems of trousers
    "sideburns": 0.4,
    "hair clip": 0.08,
    "earrings": 0.1,
    "necklace": 0.08,
    "watch": 0.12,
    "badge": 0.1,
    "shoulder bag": 0.08,
    "knee patches": 0.06,
    "inner ears": 0.3,     # a region within the ear
    "undercut": 0.07,      # the sides of the head cropped
    "tips": 0.07,          # of hanging hair, dyed
    "eye shadow": 0.05,
    "pocket flaps": 0.15,
    "pocket square": 0.1,
    "hem seams": 0.15,     # a second line along hems
    "piping": 0.08,        # a border along a jacket's front and hem
    "arm bands": 0.07,
    "elbow patches": 0.05,
    "tail": 0.05,
    "wings": 0.04,
    "back pack": 0.05,
}  # fmt: skip


@dataclass(frozen=True)
class Build:
    """Measures of the body; lengths in standing heights unless said otherwise."""

    head: float  # height of the head
    head_width: float  # share of the head's height, as are the next four
    head_depth: float
    jaw: float
    chin: float
    nose: float
    eye_size: float
    eye_height: float  # where the eyes sit, share of the head's height from the chin
    legs: float  # height of the crotch
    shoulder: float
    chest: float
    waist: float
    hip: float
    depth: float
    belly: float
    bust: float
    neck_width: float
    neck: float
    arm: float
    leg: float
    arm_length: float
    hand: float
    foot: float
    roundness: float


@dataclass(frozen=True)
class Hair:
    """How the hair is cut."""

    # "short" | "spiky" | "bob" | "long" | "ponytail" | "twin tails" | "braid" | "braids" | "bun" | "bald" | "curly" |
    # "afro" | "receding"
    style: str
    fringe: str  # "none" | "straight" | "jagged" | "parted"
    volume: float  # how far it stands off the skull, share of the head's height
    hairline: float  # height over the brow, share of the head's height from the chin
    spikes: int
    spike: float  # length of a spike, share of the head's height
    length: float  # of long hair and tails, in head heights
    wave: float  # how wavy long hair is


@dataclass(frozen=True)
class Face:
    """How the face is drawn."""

    eyes: str
    brow: float  # thickness, share of the head's height; 0 is none
    mouth: str  # "line" | "lips" | "open" | "smile"
    nose: str  # "line" | "dot" | "hook" | "round" | "none"
    beard: str  # "" | "goatee" | "full" | "moustache" | "stubble"
    glasses: str  # "" | "round" | "square" | "dark"
    ear: float  # size, share of the head's height
    ears: str  # "round" | "pointed" | "animal" | "bear" | "rabbit" | "dog" | "machine"
    lashes: bool


@dataclass(frozen=True)
class Outfit:
    """What is worn."""

    upper: str
    lower: str  # "trousers" | "shorts" | "skirt" | "none"
    sleeve: float  # 0 none, 0.4 short, 1 to the wrist
    hem: float  # where the upper garment ends: 0 waist, 1 knee
    opening: float  # depth of the neck opening, share of the torso
    lower_hem: float  # where skirt or shorts end: 0 crotch, 1 ankle
    flare: float  # how much hems widen
    loose: float  # slack of the cloth, standing heights
    shoes: str  # "shoes" | "boots" | "sneakers" | "heels" | "barefoot" | "sandals"
    socks: bool
    tie: str  # "" | "tie" | "bow"
    belt: bool
    hat: str  # "" | "cap" | "beanie" | "brim" | "top" | "helmet" | "band" | "bow"
    scarf: bool
    cape: bool
    apron: bool
    gloves: bool
    prop: str  # "" | "stick" | "bag" | "book" | "cup" | "ball" | "sword"
    pattern: str  # "" | "stripes" | "sleeves" | "emblem" | "border" | "pinstripes"
    pockets: bool
    folds: int
    buttons: int


@dataclass(frozen=True)
class Character:
    """One designed character; the same seed and family give the same one."""

    seed: int
    family: str
    feminine: bool
    build: Build
    hair: Hair
    face: Face
    outfit: Outfit
    palette: tuple[tuple[str, RGB], ...]
    pen: Pen
    shading: Shading | None
    faint: tuple[tuple[str, float], ...]  # parts whose lines hardly show in the line art, and how strongly, 0..1
    solid: bool  # pupils and lashes are black in the line art too
    tinted: bool  # each part is outlined in a darker tone of its own color
    wobble: float  # how far control points stray, standing heights
    cut_out: bool = False  # a puppet of pieces: every piece of a limb has its whole outline
    open_jaw: float = 0.0  # share of the jaw's line left out below the ear, as the face goes over into the neck
    trimmings: frozenset[str] = frozenset()  # see TRIMMINGS
    kind: str = "person"  # "person" | "animal" | "machine"
    companion: Character | None = None  # who stands beside this one in each of its drawings, by the same hand

    def color(self, name: str) -> RGB:
        """The palette's color of a part or accent."""
        return dict(self.palette)[name]


def cloth_color(rng: np.random.Generator) -> RGB:
    """Any color cloth may have: grays, black, white, muted and vivid ones."""
    kind = rng.random()
    if kind < 0.1:
        v = rng.integers(18, 64)
        return (int(v), int(v + rng.integers(0, 6)), int(v + rng.integers(0, 12)))
    if kind < 0.22:
        v = rng.integers(228, 256)
        return (int(v), int(v), max(210, int(v - rng.integers(0, 16))))
    if kind < 0.38:
        v = rng.integers(80, 215)
        return (int(v), int(v), min(255, int(v + rng.integers(0, 12))))
    hue = rng.random()
    if kind < 0.68:
        saturation, value = rng.uniform(0.2, 0.55), rng.uniform(0.3, 0.95)
    else:
        saturation, value = rng.uniform(0.55, 0.95), rng.uniform(0.45, 1.0)
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return (round(255 * r), round(255 * g), round(255 * b))


def _near(color: RGB, rng: np.random.Generator, spread: int = 10) -> RGB:
    r, g, b = (int(np.clip(c + rng.integers(-spread, spread + 1), 0, 255)) for c in color)
    return (r, g, b)


def _scaled(color: RGB, by: float) -> RGB:
    r, g, b = (int(np.clip(round(c * by), 0, 255)) for c in color)
    return (r, g, b)


def _palette(rng: np.random.Generator, fantasy: float, upper: str) -> tuple[tuple[str, RGB], ...]:
    skin = cloth_color(rng) if rng.random() < fantasy * 0.5 else _near(SKINS[rng.integers(len(SKINS))], rng)
    wild = rng.random() < max(fantasy, 0.12)
    hair = cloth_color(rng) if wild else _near(HAIRS[rng.integers(len(HAIRS))], rng)
    iris = (
        cloth_color(rng)
        if rng.random() < 0.3
        else _near(((70, 46, 30), (60, 100, 150), (70, 120, 70))[rng.integers(3)], rng)
    )
    names = (
        "top",
        "jacket",
        "dress",
        "trousers",
        "skirt",
        "tie",
        "belt",
        "shoe",
        "sock",
        "hat",
        "cape",
        "scarf",
        "apron",
        "glove",
        "armor",
        "prop",
        "ornament",
        "accent",
        "vest",
        "glasses",
    )
    cloth = {name: cloth_color(rng) for name in names}
    if rng.random() < 0.45:
        cloth["shoe"] = _near(((14, 14, 16), (70, 44, 28), (40, 36, 40), (235, 235, 235))[rng.integers(4)], rng, 6)
    if rng.random() < 0.35:
        cloth["trousers"] = _near(((48, 50, 56), (60, 76, 110), (90, 84, 76), (30, 30, 36))[rng.integers(4)], rng)
    if rng.random() < 0.25:
        cloth["jacket"] = _near(((150, 150, 152), (60, 62, 70), (44, 54, 84), (120, 100, 80))[rng.integers(4)], rng)
    if rng.random() < 0.12:  # neighbors of one color: only lines tell them apart
        cloth["trousers"] = cloth["skirt"] = (
            cloth["jacket"] if upper in ("suit", "coat", "open jacket") else cloth["top"]
        )
    shirt = (250, 250, 250) if rng.random() < 0.5 else cloth_color(rng)
    white: RGB = (255, 255, 255) if rng.random() < 0.8 else (240, 240, 230)
    colors: dict[str, RGB] = {
        "hair": hair,
        "face": skin,
        "neck": skin,
        "ear": skin,
        "hand": skin,
        "arm": skin,
        "torso_skin": skin,
        "leg": skin,
        "iris": iris,
        "eye_white": white,
        "brow": _scaled(hair, rng.uniform(0.5, 1.0)),
        "mouth": _near((190, 90, 85), rng, 25) if rng.random() < 0.7 else _scaled(skin, 0.8),
        "beard": _near(hair, rng, 6) if rng.random() < 0.7 else _scaled(hair, 0.8),
        "shirt": shirt,
        **cloth,
    }
    return tuple(colors.items())


def _schemed(rng: np.random.Generator, palette: tuple[tuple[str, RGB], ...]) -> tuple[tuple[str, RGB], ...]:
    """The palette as its production limits it: grays, one hue, low contrast, pale, or dressed in the skin's colors."""
    kind = rng.random()
    colors = {name: np.array(color, float) for name, color in palette}
    cloth = [name for name in colors if name not in ("eye_white",)]
    if kind < 0.68:
        return palette
    if kind < 0.82:  # near-gray clothes
        keep = rng.uniform(0.0, 0.15)
        for name in cloth:
            if name in ("jacket", "trousers", "top", "shirt", "skirt", "dress", "shoe", "vest", "tie", "hat", "armor"):
                gray = colors[name].mean()
                colors[name] = gray + (colors[name] - gray) * keep
    elif kind < 0.84:  # grays throughout
        for name in cloth:
            colors[name] = np.full(3, colors[name].mean())
    elif kind < 0.88:  # one hue
        hue = rng.random()
        for name in cloth:
            _, saturation, value = colorsys.rgb_to_hsv(*(colors[name] / 255))
            near = (hue + rng.normal(0, 0.02)) % 1
            colors[name] = 255 * np.array(colorsys.hsv_to_rgb(near, 0.25 + 0.5 * saturation, value))
    elif kind < 0.92:  # little contrast, as in night or fog
        toward, share = np.array(cloth_color(rng), float), rng.uniform(0.35, 0.65)
        for name in colors:
            colors[name] = colors[name] * (1 - share) + toward * share
    elif kind < 0.96:  # pale
        for name in cloth:
            colors[name] = 255 - (255 - colors[name]) * 0.45
    else:  # clothes near the skin or the hair
        for name in cloth:
            if rng.random() < 0.5:
                base = colors["face"] if rng.random() < 0.6 else colors["hair"]
                colors[name] = base * rng.uniform(0.75, 1.1) + rng.normal(0, 8, 3)
        for name in ("neck", "ear", "hand", "arm", "torso_skin", "leg"):
            colors[name] = colors["face"]
    rounded = {name: np.clip(np.round(color), 0, 255).astype(int) for name, color in colors.items()}
    return tuple((name, (int(c[0]), int(c[1]), int(c[2]))) for name, c in rounded.items())


def _furred(rng: np.random.Generator, palette: tuple[tuple[str, RGB], ...]) -> tuple[tuple[str, RGB], ...]:
    """The palette with fur or metal for skin: one color all over, or paws and face of another."""
    colors = dict(palette)
    fur, other = cloth_color(rng), cloth_color(rng)
    two = rng.random() < 0.4
    for name in ("face", "neck", "ear", "hand", "arm", "torso_skin", "leg"):
        colors[name] = other if two and name in ("hand", "leg", "ear") else fur
    if rng.random() < 0.5:
        colors["hair"] = other
    return tuple(colors.items())


def _styled_pen(rng: np.random.Generator, pen: Pen, shaded: bool) -> Pen:
    """The pen with the habits of its production."""
    width = float(np.exp(rng.uniform(np.log(0.5), np.log(1.1)))) if rng.random() < 0.3 else pen.width
    hard = bool(rng.random() < 0.12)
    return replace(
        pen,
        width=max(width, 1.0) if hard else width,
        hard=hard,
        gaps=pen.gaps if rng.random() < 0.65 else 0.0,
        pale=float(rng.uniform(0.03, 0.25)) if rng.random() < 0.3 else 0.0,
        double=float(rng.uniform(0.1, 0.6)) if rng.random() < 0.07 else 0.0,
        contour=float(rng.uniform(0.6, 2.0)) if rng.random() < 0.1 else 0.0,
        hidden=bool(rng.random() < 0.06),
        shadow_edge=float(rng.uniform(0.3, 1.0)) if shaded and rng.random() < 0.2 else 0.0,
    )


def _shading(rng: np.random.Generator, seed: int) -> Shading:
    """The shadows of a production: where they lie, how they are cut, how dark they are."""
    angle = rng.uniform(-1.15, 0.15) * np.pi
    reach = float(np.exp(rng.uniform(np.log(0.006), np.log(0.045))))
    tone = rng.uniform(0.55, 0.88)
    cool = rng.uniform(0.9, 1.1)
    cut = rng.random()
    return Shading(
        (float(np.cos(angle) * reach), float(np.sin(angle) * reach)),
        (min(tone / cool, 1.0), float(tone), min(tone * cool, 1.0)),
        rim=1.0 if cut < 0.4 else float(rng.uniform(0.0, 0.7)),
        panel=0.0 if cut < 0.25 else float(rng.uniform(0.15, 0.8)),
        wedges=0.0 if rng.random() < 0.4 else float(rng.uniform(0.1, 1.2)),
        far=bool(rng.random() < 0.35),
        spread=float(rng.uniform(0.03, 0.15)) if rng.random() < 0.4 else 0.0,
        shine=float(rng.uniform(0.2, 0.7)) if rng.random() < 0.2 else 0.0,
        seed=seed,
    )


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _outfit(rng: np.random.Generator, family: Family, feminine: bool) -> Outfit:
    upper = _pick(rng, family.uppers)
    if upper == "dress" and not feminine and rng.random() < 0.7:
        upper = "t-shirt"
    lower = _pick(rng, ("trousers", "trousers", "trousers", "shorts"))
    if feminine and rng.random() < 0.45:
        lower = "skirt"
    if upper in ("dress", "robe"):
        lower = "none" if upper == "dress" or rng.random() < 0.5 else "trousers"
    if upper in ("suit", "coat") and lower == "shorts":
        lower = "trousers"
    if upper == "bare" and feminine:
        upper = "tank"
    if upper == "overalls":
        lower = "trousers"
    sleeve = {"tank": 0.0, "bare": 0.0, "overalls": 0.4, "vest": 1.0, "poncho": 1.0}.get(upper, 1.0)
    if upper in ("t-shirt", "overalls"):
        sleeve = rng.uniform(0.22, 0.5)
    elif upper == "dress":
        sleeve = float(rng.choice([0.0, 0.25, 0.4, 1.0]))
    elif upper == "armor":
        sleeve = float(rng.choice([0.0, 0.3, 1.0]))
    elif rng.random() < 0.15:
        sleeve = rng.uniform(0.55, 0.9)
    hem = {
        "suit": rng.uniform(0.3, 0.6),
        "coat": rng.uniform(0.55, 1.3),
        "open jacket": rng.uniform(0.05, 0.6),
        "uniform": rng.uniform(0.15, 0.7),
    }.get(upper, rng.uniform(0.08, 0.45))
    return Outfit(
        upper=upper,
        lower=lower,
        sleeve=float(sleeve),
        hem=float(hem),
        opening=rng.uniform(0.25, 0.65),
        lower_hem=rng.uniform(0.18, 0.5) if lower == "shorts" else rng.uniform(0.15, 0.9),
        flare=rng.uniform(0.0, 1.0),
        loose=rng.uniform(0.002, 0.014),
        shoes=_pick(
            rng, ("shoes", "shoes", "boots", "sneakers", "sneakers", "heels" if feminine else "shoes", "barefoot")
        ),
        socks=rng.random() < 0.5,
        tie=("tie" if rng.random() < 0.8 else "bow") if rng.random() < (0.75 if upper == "suit" else 0.2) else "",
        belt=rng.random() < 0.3,
        hat=_pick(rng, ("cap", "beanie", "brim", "top", "helmet", "band", "bow")) if rng.random() < 0.2 else "",
        scarf=rng.random() < 0.08,
        cape=rng.random() < (0.3 if upper == "armor" else 0.05),
        apron=rng.random() < 0.05,
        gloves=rng.random() < (0.4 if upper == "armor" else 0.08),
        prop=_pick(rng, ("stick", "bag", "book", "cup", "ball", "sword")) if rng.random() < 0.14 else "",
        pattern=_pick(rng, ("stripes", "stripes", "sleeves", "emblem", "border", "pinstripes"))
        if rng.random() < 0.35
        else "",
        pockets=rng.random() < 0.5,
        folds=int(rng.integers(0, 5)),
        buttons=int(rng.integers(1, 5)),
    )


def _hair(rng: np.random.Generator, feminine: bool, heads: float) -> Hair:
    if feminine:
        style = _pick(
            rng,
            (
                "bob",
                "bob",
                "long",
                "long",
                "long",
                "ponytail",
                "ponytail",
                "twin tails",
                "bun",
                "short",
                "curly",
                "afro",
                "braids",
                "braid",
            ),
        )
    else:
        style = _pick(
            rng,
            (
                "short",
                "short",
                "short",
                "spiky",
                "spiky",
                "spiky",
                "bald",
                "bob",
                "curly",
                "long",
                "ponytail",
                "afro",
                "receding",
            ),
        )
    fringe = (
        "none"
        if style == "receding"
        else _pick(
            rng,
            ("none", "straight", "jagged", "parted")
            if feminine or style != "short"
            else ("none", "none", "jagged", "parted"),
        )
    )
    return Hair(
        style,
        fringe,
        rng.uniform(0.02, 0.1) + {"curly": 0.05, "afro": rng.uniform(0.1, 0.28)}.get(style, 0.0),
        rng.uniform(0.9, 0.96) if style == "receding" else rng.uniform(0.72, 0.84),
        int(rng.integers(5, 13)),
        rng.uniform(0.04, 0.2),
        rng.uniform(0.5, 2.6) * (0.5 if heads < 4 else 1.0),
        rng.uniform(0, 1),
    )


def design_character(seed: int, family: str | None = None, alone: bool = False) -> Character:
    """Design a character; without a family, one of the training FAMILIES; some have a companion unless `alone`.

    Raises KeyError for a family that is not in FAMILIES or VALIDATION_FAMILIES.
    """
    rng = np.random.default_rng((seed, 1))
    # People twice as often as beasts and machines.
    cast = tuple(FAMILIES) + tuple(name for name in FAMILIES if FAMILIES[name].animal + FAMILIES[name].machine < 0.5)
    name = family if family is not None else _pick(rng, cast)
    ranges = (FAMILIES | VALIDATION_FAMILIES)[name]
    feminine = bool(rng.random() < 0.45)

    def one(bounds: tuple[float, float]) -> float:
        return float(rng.uniform(*bounds))

    heads = one(ranges.heads)
    below = 1 - 1 / heads
    slim = 0.88 if feminine else 1.0
    build = Build(
        head=1 / heads,
        head_width=one(ranges.head_width),
        head_depth=one(ranges.head_depth),
        jaw=one(ranges.jaw) * slim**0.5,
        chin=one(ranges.chin) * slim,
        nose=one(ranges.nose),
        eye_size=one(ranges.eye_size),
        eye_height=rng.uniform(0.4, 0.52),
        legs=one(ranges.legs) * below,
        shoulder=one(ranges.shoulder) * below * slim,
        chest=one(ranges.chest) * below * slim,
        waist=one(ranges.waist) * below * slim,
        hip=one(ranges.hip) * below * (1.06 if feminine else 1.0),
        depth=one(ranges.depth),
        belly=one(ranges.belly) * below,
        bust=float(rng.uniform(0.3, 1)) * 0.03 * below if feminine and name != "child" else 0.0,
        neck_width=one(ranges.neck_width) * below * slim,
        neck=one(ranges.neck) * below,
        arm=one(ranges.arm) * below * slim,
        leg=one(ranges.leg) * below,
        arm_length=one(ranges.arm_length),
        hand=one(ranges.hand),
        foot=one(ranges.foot),
        roundness=one(ranges.roundness),
    )
    # A neck never outgrows the jaw above it.
    build = replace(build, neck_width=min(build.neck_width, 0.36 * build.head * build.head_width * max(build.jaw, 0.8)))
    outfit = _outfit(rng, ranges, feminine)
    beard = ""
    if not feminine and rng.random() < ranges.beards:
        beard = _pick(rng, ("goatee", "goatee", "full", "moustache"))
    face = Face(
        eyes=_pick(rng, ranges.eyes),
        brow=0.0 if rng.random() < 0.1 else rng.uniform(0.008, 0.035),
        mouth=_pick(rng, ("line", "lips", "open", "smile")),
        nose=_pick(rng, ("line", "dot", "hook", "round")),
        beard=beard,
        glasses=_pick(rng, ("round", "square", "dark")) if rng.random() < 0.14 else "",
        ear=rng.uniform(0.1, 0.21),
        ears=_pick(rng, ("pointed", "animal")) if rng.random() < ranges.fantasy else "round",
        lashes=feminine,
    )
    hair = _hair(rng, feminine, heads)
    if outfit.hat not in ("", "band", "bow"):
        hair = replace(hair, volume=min(hair.volume, 0.05))  # a hat presses it down
    palette = _palette(rng, ranges.fantasy, outfit.upper)
    gray = rng.random()
    ink: RGB = (int(v := rng.integers(0, 40)), int(v), int(v)) if gray < 0.8 else _scaled(cloth_color(rng), 0.45)
    pen = Pen(
        width=float(np.exp(rng.uniform(np.log(0.65), np.log(3.2)))),
        color=ink,
        detail=rng.uniform(0.5, 1.0),
        taper=rng.uniform(0.4, 1.0) if rng.random() < 0.35 else 0.0,
        gaps=rng.uniform(0.1, 0.5) if rng.random() < 0.4 else 0.0,
        missing=rng.uniform(0.02, 0.12) if rng.random() < 0.3 else 0.0,
        uneven=rng.uniform(0.1, 0.4) if rng.random() < 0.4 else 0.0,
        strength=rng.uniform(0.5, 0.95) if rng.random() < 0.25 else 1.0,
    )
    shaded = rng.random() < 0.5
    more = np.random.default_rng((seed, 6))  # what came later has its own chance, so that earlier designs stay alike
    trimmings = {name for name, chance in TRIMMINGS.items() if more.random() < chance}
    kind = str(more.choice(("animal", "machine", "person"), p=(ranges.animal, ranges.machine,
                                                               1 - ranges.animal - ranges.machine)))  # fmt: skip
    if kind != "person":
        hair = replace(hair, style="bald") if more.random() < 0.75 else hair
        palette = _furred(more, palette)
        bare = outfit.upper in ("bare", "tank")
        outfit = replace(outfit, lower="none" if bare and more.random() < 0.7 else outfit.lower,
                         shoes="barefoot" if more.random() < 0.7 else outfit.shoes)  # fmt: skip
    if kind == "animal":
        face = replace(
            face, ears=str(more.choice(("animal", "animal", "bear", "rabbit", "dog"))), nose="none", beard=""
        )
        trimmings |= {"tail"} if more.random() < 0.8 else set()
    if kind == "machine":
        face = replace(face, nose="none", beard="", ears="machine" if more.random() < 0.7 else face.ears, lashes=False)
        trimmings -= {"wings", "tail", "nails", "necklace", "earrings"}
    palette = _schemed(more, palette)
    pen = _styled_pen(more, pen, shaded)
    shading = _shading(more, seed) if shaded else None
    faint = tuple(
        (part, float(rng.choice([0.0, 0.15, 0.4])))
        for part, chance in (
            ("shoe", 0.25),
            ("hair", 0.08),
            ("brow", 0.3),
            ("iris", 0.2),
            ("eye_white", 0.12),
            ("belt", 0.05),
            ("neck", 0.08),
            ("tie", 0.04),
            ("beard", 0.06),
            ("ear", 0.04),
            ("sock", 0.08),
            ("glove", 0.05),
            ("ornament", 0.08),
            ("hat", 0.03),
            ("mouth", 0.1),
        )
        if rng.random() < chance
    )
    return Character(
        seed,
        name,
        feminine,
        build,
        hair,
        face,
        outfit,
        palette,
        pen,
        shading,
        faint,
        bool(rng.random() < 0.6),
        bool(rng.random() < 0.1),
        float(rng.uniform(0.0, 0.004)),
        cut_out=bool(more.random() < (0.15 if kind != "machine" else 0.85)),
        open_jaw=float(more.uniform(0.3, 1.0)) if more.random() < 0.35 else 0.0,
        trimmings=frozenset(trimmings),
        kind=kind,
        companion=design_character(int(more.integers(2**31)), family, alone=True)
        if not alone and more.random() < COMPANIONS
        else None,
    )

"""What is ordered from a worker of a cluster, and what it answers: plain values that can be sent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from colorcli.errors import ColorcliError
from colorcli.presets import Preset
from colorcli.shot.drawings import Drawing
from colorcli.shot.engine import Colorizer
from colorcli.shot.manifest import FrameRecord, ModelEntry
from colorcli.shot.plan import FrameJob, ShotPlan
from colorcli.variants import Variant

Files = Mapping[str, bytes]   # path where they were read -> content


@dataclass(frozen=True)
class EngineOrder:
    """With what to color."""

    preset: Preset                            # its paths are absolute
    load: Callable[[Preset], Colorizer]
    expected: tuple[ModelEntry, ...]          # the model first, and the networks beside it
    model: ModelEntry | None = None           # None: the one that the preset names
    variant: Variant | None = None
    at_once: int | None = 1
    device: str = "auto"
    files: Files | None = None                # that the preset names; None: they lie on shared storage, as all others


@dataclass(frozen=True)
class ShotOrder:
    """What the next frames belong to."""

    shot: int
    plan: ShotPlan                            # of the whole shot, its paths are absolute
    key: str                                  # digest of its key
    settings: str                             # digest
    probe: tuple[str, str] | None = None      # name and content of a file that lies in OUT
    files: Files = field(default_factory=dict)


@dataclass(frozen=True)
class FrameOrder:
    """Frames to color."""

    shot: int
    jobs: tuple[FrameJob, ...]
    found: tuple[tuple[str, Drawing | None], ...] = ()   # what is drawn on other frames
    files: Files = field(default_factory=dict)
    kept: frozenset[str] = frozenset()                   # files sent before that are still needed


@dataclass(frozen=True)
class StopOrder:
    """Color nothing but what is begun."""


@dataclass(frozen=True)
class CloseOrder:
    """Nothing more comes."""


Order = EngineOrder | ShotOrder | FrameOrder | StopOrder | CloseOrder


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""

    host: str
    pid: int
    together: int                 # frames that it colors at the same time
    described: Mapping[str, Any]  # what its colorizer tells
    versions: Mapping[str, str]   # of Python and of libraries


@dataclass(frozen=True)
class Done:
    """A frame is written, or failed."""

    shot: int
    record: FrameRecord
    files: Files | None = None    # path in OUT -> content, the picture last; None: they are written


@dataclass(frozen=True)
class Remark:
    """Something to be told to the user, or to the log."""

    level: int                    # of `logging`
    text: str


@dataclass(frozen=True)
class Refused:
    """It cannot color this shot; others it may."""

    shot: int
    error: ColorcliError


@dataclass(frozen=True)
class Ended:
    """It cannot color anything any more."""

    error: ColorcliError


@dataclass(frozen=True)
class Stopped:
    """All that was begun is done."""


Answer = Ready | Done | Remark | Refused | Ended | Stopped

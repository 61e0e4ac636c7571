"""A worker of a cluster: keeps the model warm, colors the frames it is ordered to, and answers with their records.

Orders and answers are plain values, so a worker may be an actor of Ray as well as an object in the same process.
"""

import contextlib
import logging
import os
import socket
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import colorcli
from colorcli.errors import ColorcliError, KeyImageError, OutputError, ShotError, WeightsError
from colorcli.farm.orders import (
    Answer,
    CloseOrder,
    Done,
    Ended,
    EngineOrder,
    Files,
    FrameOrder,
    Order,
    Ready,
    Refused,
    Remark,
    ShotOrder,
    StopOrder,
    Stopped,
)
from colorcli.farm.paths import preset_with_paths, with_paths
from colorcli.farm.store import Store
from colorcli.shot.engine import Engine, Loader, library_versions
from colorcli.shot.hand import Hand
from colorcli.shot.manifest import FrameRecord, ModelEntry
from colorcli.shot.plan import FrameJob, make_out_folder
from colorcli.shot.run import open_engine
from colorcli.variants import METHOD_VERSION

VERSION = f"{colorcli.__version__}, method {METHOD_VERSION}"
SECONDS_FOR_A_NEW_FILE = 10.0   # after which a machine on the same storage sees it


class Worker:
    """Takes orders and gives answers, each in a call of its own; another thread colors."""

    def __init__(self, version: str) -> None:
        """version: of whoever hands out. The first order is an EngineOrder."""
        self._early: dict[int, Order] = {}   # that overtook others on their way
        self._ordered = 0
        self._inbox: deque[Order] = deque()
        self._outbox: deque[tuple[int, Answer]] = deque()
        self._answers = 0
        self._news = threading.Condition()
        self._hand: Hand | None = None
        self._hand_shot = -1
        self._store: Store | None = None
        self._engine: Engine | None = None
        threading.Thread(target=self._run, args=(version,), name="worker", daemon=True).start()

    def order(self, number: int, order: Order) -> None:
        """Take an order; comes back at once. number: counts from 0, for the way here may change their order."""
        with self._news:
            self._early[number] = order
            while (following := self._early.pop(self._ordered, None)) is not None:
                self._ordered += 1
                if isinstance(following, StopOrder | CloseOrder):
                    self._inbox = deque(one for one in self._inbox if not isinstance(one, FrameOrder))
                    if self._hand is not None:
                        self._hand.stop()
                self._inbox.append(following)
            self._news.notify_all()

    def take(self, seen: int, seconds: float) -> list[tuple[int, Answer]]:
        """Give the answers with a number above `seen`, and wait up to `seconds` for one. Asked twice, it gives them
        twice: an answer may be lost on its way."""
        with self._news:
            while self._outbox and self._outbox[0][0] <= seen:
                self._outbox.popleft()
            if not self._outbox:
                self._news.wait(seconds)
            return list(self._outbox)

    def _answer(self, answer: Answer) -> None:
        with self._news:
            self._answers += 1
            self._outbox.append((self._answers, answer))
            self._news.notify_all()

    def _run(self, version: str) -> None:
        """All that takes time."""
        try:
            with self._logging():
                self._begin(version)
                while not isinstance(order := self._next(), CloseOrder):
                    self._follow(order)
        except ColorcliError as error:
            self._answer(Ended(error))
        except BaseException as error:
            self._answer(Remark(logging.ERROR, traceback.format_exc()))
            words = f"{type(error).__name__}: {error}"
            self._answer(Ended(ColorcliError(words, hint="this is a bug: please report it")))
        finally:
            if self._hand is not None:
                self._hand.close()
            if self._store is not None:
                self._store.close()
        self._answer(Stopped())

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        """Send what is logged along with the answers."""
        handler = _Handler(self._answer)
        logger = logging.getLogger("colorcli")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    def _begin(self, version: str) -> None:
        """Load the model. Raises WeightsError, DeviceError."""
        host = socket.gethostname()
        if version != VERSION:
            raise WeightsError(
                f"{host} has colorcli {VERSION}, and the machine that hands out has {version}",
                hint="install the same version on all machines",
            )
        order = self._next()
        assert isinstance(order, EngineOrder), order
        preset = order.preset
        if order.files is not None:
            self._store = Store(Path(tempfile.gettempdir()))
            self._store.put(order.files)
            preset = preset_with_paths(preset, self._store.place)
        loader = Loader(lambda: order.load(preset))
        engine = open_engine(
            preset, loader, model=order.model, variant=order.variant, at_once=order.at_once, device=order.device
        )
        _require_same_weights(host, (engine.model, *engine.network_entries), order.expected)
        colorizer = loader.get()
        together = engine.batch.settle(colorizer)
        self._engine = engine
        self._answer(Ready(host, os.getpid(), together, dict(colorizer.describe()), library_versions()))

    def _next(self) -> Order:
        with self._news:
            while not self._inbox:
                self._news.wait()
            return self._inbox.popleft()

    def _follow(self, order: Order) -> None:
        """Do what one order says. Raises what ends a run."""
        if isinstance(order, StopOrder):
            if self._hand is not None:
                self._hand.go_on()
            self._answer(Stopped())
            return
        try:
            if isinstance(order, ShotOrder):
                self._open_shot(order)
            elif isinstance(order, FrameOrder) and self._hand is not None and order.shot == self._hand_shot:
                self._hand.work(self._jobs_of(order))
        except (KeyImageError, ShotError) as error:
            self._close_hand()
            self._answer(Refused(self._hand_shot, error))

    def _open_shot(self, order: ShotOrder) -> None:
        """Get ready for the frames of a shot. Raises ShotError where this machine does not see what the other sees."""
        assert self._engine is not None
        self._close_hand()
        self._hand_shot = order.shot
        plan = order.plan
        if self._store is not None:
            self._store.put(order.files)
            plan = with_paths(plan, self._store.place)
            make_out_folder(plan.out)
        _require_probe(plan.out, order.probe)
        hand = Hand(plan, self._engine, self._done, self._warn, self._more)
        if hand.key_digest != order.key or self._engine.settings != order.settings:
            what = "key" if hand.key_digest != order.key else "settings"
            hand.close()
            raise ShotError(
                f"{socket.gethostname()} does not see the {what} of {plan.name} as the machine that hands out",
                hint="is it on storage that all machines share? --collect needs none",
            )
        with self._news:
            self._hand = hand

    def _close_hand(self) -> None:
        with self._news:
            hand, self._hand = self._hand, None
        if hand is not None:
            hand.close()

    def _more(self) -> Sequence[FrameJob]:
        """The frames that were ordered in the meantime; asked for by the hand, in the thread that colors."""
        jobs: list[FrameJob] = []
        while True:
            with self._news:
                if not self._inbox or not isinstance(order := self._inbox[0], FrameOrder):
                    return jobs
                self._inbox.popleft()
            if order.shot == self._hand_shot:
                jobs += self._jobs_of(order)

    def _jobs_of(self, order: FrameOrder) -> tuple[FrameJob, ...]:
        assert self._hand is not None
        self._hand.learn(order.found)
        if self._store is not None:
            self._store.drop_but(order.kept | set(order.files))
            self._store.put(order.files, passing=True)
        return order.jobs

    def _done(self, record: FrameRecord) -> None:
        """Answer with a record, and with what was written where nobody else sees it; in any thread."""
        files: Files | None = None
        if self._store is not None and record.status == "written":
            assert self._hand is not None and record.output is not None
            files = _taken(self._hand.plan.out, [*record.outputs, record.output])
        self._answer(Done(self._hand_shot, record, files))

    def _warn(self, text: str) -> None:
        self._answer(Remark(logging.WARNING, text))


class _Handler(logging.Handler):
    """Hands log lines on as remarks."""

    def __init__(self, answer: Callable[[Answer], None]) -> None:
        super().__init__(logging.WARNING)
        self._hand_on = answer
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._hand_on(Remark(record.levelno, self.format(record)))


def _require_same_weights(host: str, own: Sequence[ModelEntry], expected: Sequence[ModelEntry]) -> None:
    """Raise WeightsError unless a machine has the weights of the one that hands out."""
    here = {entry.used_for: entry.sha256 for entry in own}
    for entry in expected:
        if here.get(entry.used_for) != entry.sha256:
            raise WeightsError(
                f"{entry.name} on {host} is not the one of the machine that hands out",
                hint="install the same weights on all machines: colorcli models verify",
            )


def _require_probe(out: Path, probe: tuple[str, str] | None) -> None:
    """Raise ShotError unless OUT is the folder that it is for the machine that hands out."""
    if probe is None:
        return
    name, content = probe
    pause = threading.Event()
    waited = 0.0
    while True:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if (out / name).read_text(encoding="utf-8") == content:
                return
        if waited >= SECONDS_FOR_A_NEW_FILE:
            raise ShotError(
                f"{socket.gethostname()} does not see the folder {out}",
                hint="is it on storage that all machines share? --collect needs none",
            )
        pause.wait(0.5)
        waited += 0.5


def _taken(out: Path, names: Sequence[str]) -> Files:
    """The content of written files, which are taken away. Raises OutputError."""
    files: dict[str, bytes] = {}
    for name in names:
        try:
            files[name] = (out / name).read_bytes()
            (out / name).unlink()
        except OSError as error:
            raise OutputError(f"{out / name} cannot be read again: {error.strerror}") from error
    return files

"""What a person or a render farm reads: messages, tables, progress. The only file that prints."""

import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from colorcli.shot.manifest import FrameRecord, Totals
    from colorcli.shot.plan import ShotPlan
    from colorcli.train.run.progress import Progress, StageNews, StepNews

QUIET, NORMAL, VERBOSE = -1, 0, 1
OUTS_LISTED = 12
# Exit code of a run that was ended from outside -> the word and the sentence for it.
STOPPED = {
    130: ("interrupted", "interrupted; what is finished stays, the same command goes on from there"),
    143: ("terminated", "terminated; what is finished stays, the same command goes on from there"),
}


# What ends a line, moves the cursor, turns the direction of writing, or is no character at all.
UNSEEN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
# What farm managers look for in the output: the last character of each is written as its number in a name.
MARKS = re.compile(r"(Progress|TR_PROGRES|TR_EXIT_STATU|openjd_[a-z]+)(:|S\b)", re.IGNORECASE)


def one_line(text: str) -> str:
    """A text as one line, in which a file's name says nothing to a terminal or to a farm manager.

    Characters that would are written as in JSON: a line break in a name is \\u000a.
    """
    marked = MARKS.sub(lambda mark: mark[1] + _number(mark[2]), text)
    return UNSEEN.sub(lambda found: _number(found[0]), marked)


def _number(character: str) -> str:
    return f"\\u{ord(character):04x}"


def say(text: str = "") -> None:
    """Print a line that was asked for, to stdout, at once."""
    _print(one_line(text))


def say_text(text: str) -> None:
    """Print several lines that were asked for, to stdout."""
    for line in text.split("\n"):
        say(line)


def note(text: str) -> None:
    """Print a line that goes along with the work, to stderr, so that stdout stays clean for whoever parses it."""
    sys.stdout.flush()
    _print(one_line(text), sys.stderr)


def tell_farm(word: str, text: str) -> None:
    """Print a line for a farm manager, which knows it by the word that it begins with."""
    _print(word + one_line(text))


def say_json(value: Any) -> None:
    """Print a value as JSON on one line."""
    say(json.dumps(value, ensure_ascii=False))


def _print(line: str, stream: TextIO | None = None) -> None:
    stream = stream or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except UnicodeEncodeError:   # a log may know the letters of one language only
        encoding = stream.encoding or "ascii"
        print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def say_table(rows: Iterable[Sequence[str]], heading: Sequence[str] | None = None) -> None:
    """Print rows in aligned columns; the last column runs free."""
    table = [[str(cell) for cell in row] for row in ([heading, *rows] if heading else rows)]
    if not table:
        return
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]) - 1)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        say("  ".join([*cells, row[-1]]).rstrip())


def say_columns(cells: Sequence[str], widths: Sequence[int]) -> None:
    """Print one row of a table whose other rows are not known yet."""
    say("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def can_ask() -> bool:
    """Whether somebody sits at a terminal and could answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask(question: str) -> bool:
    """Ask a question on the terminal; only a clear yes is one."""
    try:
        return input(f"{one_line(question)} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def complain(kind: str, message: str, hint: str | None = None) -> None:
    """Print a failure: what and which file, what to do, and last a line that log scrapers find."""
    note(f"error: {message}")
    if hint:
        note(f"try:   {hint}")
    note(f"colorcli: error[{kind}]: {' '.join(message.split())}")


def warn(message: str, hint: str | None = None) -> None:
    """Print something that is wrong but stops nothing."""
    note(f"note:  {message}")
    if hint:
        note(f"try:   {hint}")


def show_traceback(failure: BaseException) -> None:
    """Print where in our own code something went wrong."""
    note_indented("".join(traceback.format_exception(failure)))


def note_indented(text: str) -> None:
    """Print several lines that go along with the work; each begins with blanks, and so with no word of a farm's."""
    for line in text.rstrip().split("\n"):
        note(f"  {line}")


class NoteHandler(logging.Handler):
    """Log lines as notes: a progress bar then knows of them and stays whole."""

    def emit(self, record: logging.LogRecord) -> None:
        first, *more = self.format(record).split("\n")
        note(first)
        if more:
            note_indented("\n".join(more))


def start_logging(verbosity: int) -> None:
    """Send the log lines of the package to stderr: warnings, with -v also what it is doing, with -vv everything."""
    level = {QUIET: logging.ERROR, NORMAL: logging.WARNING, VERBOSE: logging.INFO}.get(verbosity, logging.DEBUG)
    handler = NoteHandler()
    handler.setFormatter(
        logging.Formatter(
            "%(levelname)s: %(message)s"
            if verbosity < 2
            else "%(relativeCreated)7.0f ms %(name)s %(levelname)s: %(message)s"
        )
    )
    logger = logging.getLogger("colorcli")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def size_in_words(count: int) -> str:
    """A count of bytes for people: "38.2 MB"."""
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def time_in_words(seconds: float) -> str:
    """A span of time for people: "4.2 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def quiet_stdout() -> None:
    """Point stdout at nothing, after its reader went away: the interpreter would complain at exit."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (it lives as long as the process)


@dataclass(frozen=True)
class FrameNews:
    """One frame that is settled, as a progress line tells it."""

    shot: str
    frame: str  # file name or stem, walk.0001
    status: str  # written, skipped, held, failed, missing
    done: int  # frames settled so far, over all shots of the run
    total: int  # frames of the run
    seconds: float | None = None  # spent on this frame alone
    error: str | None = None

    @property
    def percent(self) -> int:
        """0..100, rounded down: a farm must not read 100 before the last frame."""
        return 100 * self.done // max(self.total, 1)

    @property
    def sentence(self) -> str:
        """walk.0012 written in 1.8 s"""
        spent = f" in {time_in_words(self.seconds)}" if self.seconds and self.status == "written" else ""
        return f"{self.frame} {STATUS_WORDS.get(self.status, self.status)}{spent}" + (
            f": {self.error}" if self.error else ""
        )


STATUS_WORDS = {
    "written": "colored",
    "skipped": "is up to date",
    "held": "repeats a drawing",
    "failed": "FAILED",
    "missing": "is missing",
}


class Dialect(Protocol):
    """One language of progress."""

    def begin(self, total: int) -> None: ...
    def stage(self, text: str) -> None: ...
    def frame(self, news: FrameNews) -> None: ...
    def end(self) -> None: ...
    def summary(self, text: str, outs: Sequence[str], numbers: Mapping[str, Any]) -> None: ...
    def failed(self, reason: str) -> None: ...


class Silent:
    """Says nothing of progress."""

    def begin(self, total: int) -> None:
        """A run of so many frames begins."""

    def stage(self, text: str) -> None:
        """Something that is no frame is going on, such as loading the model."""

    def frame(self, news: FrameNews) -> None:
        """A frame is settled."""

    def end(self) -> None:
        """The last frame is settled, or the run was stopped."""

    def summary(self, text: str, outs: Sequence[str], numbers: Mapping[str, Any]) -> None:
        """The run is over: in words, where the pictures are, and in numbers."""

    def failed(self, reason: str) -> None:
        """The run did not do all that was asked for."""


class Plain(Silent):
    """A line for each frame: for logs, and for farms that parse none."""

    def stage(self, text: str) -> None:
        say(text)

    def frame(self, news: FrameNews) -> None:
        say(f"[{news.done:>{len(str(news.total))}}/{news.total}] {news.sentence}")

    def summary(self, text: str, outs: Sequence[str], numbers: Mapping[str, Any]) -> None:
        say_summary(text, outs)


class Deadline(Plain):
    """What the stock plug-ins of Thinkbox Deadline look for."""

    def frame(self, news: FrameNews) -> None:
        super().frame(news)
        tell_farm("Progress: ", f"{news.percent}%")


class Tractor(Plain):
    """What Pixar's Tractor looks for."""

    def frame(self, news: FrameNews) -> None:
        super().frame(news)
        tell_farm("TR_PROGRESS ", f"{news.percent:03d}%")


class OpenJD(Silent):
    """What Open Job Description (and so Deadline Cloud) looks for at the start of a line."""

    def stage(self, text: str) -> None:
        tell_farm("openjd_status: ", text)

    def frame(self, news: FrameNews) -> None:
        tell_farm("openjd_status: ", f"{news.sentence} ({news.done} of {news.total})")
        tell_farm("openjd_progress: ", str(news.percent))

    def summary(self, text: str, outs: Sequence[str], numbers: Mapping[str, Any]) -> None:
        tell_farm("openjd_status: ", text)

    def failed(self, reason: str) -> None:
        tell_farm("openjd_fail: ", " ".join(reason.split()))


class Json(Silent):
    """A JSON object on each line, for programs."""

    def begin(self, total: int) -> None:
        say_json({"event": "begin", "total": total})

    def stage(self, text: str) -> None:
        say_json({"event": "stage", "text": text})

    def frame(self, news: FrameNews) -> None:
        say_json(
            {
                "event": "frame",
                "shot": news.shot,
                "frame": news.frame,
                "status": news.status,
                "done": news.done,
                "total": news.total,
                "seconds": news.seconds,
                "error": news.error,
            }
        )

    def summary(self, text: str, outs: Sequence[str], numbers: Mapping[str, Any]) -> None:
        say_json({"event": "end", "out": list(outs), **numbers})

    def failed(self, reason: str) -> None:
        say_json({"event": "failed", "reason": reason})


class Bar:
    """A bar on a terminal: what is being done, frames done, frames a second, time left, failures."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[failures]}", style="red"),
            console=self._console,
            expand=True,
        )
        self._task = self._bar.add_task("starting", total=None, speed="", failures="")
        self._failed = 0
        self._colored = 0
        self._first: float | None = None  # when the first frame was there: loading is no part of the speed

    def begin(self, total: int) -> None:
        self._bar.update(self._task, total=total)
        self._bar.start()

    def stage(self, text: str) -> None:
        self._bar.update(self._task, description=one_line(text))

    def frame(self, news: FrameNews) -> None:
        self._failed += news.status == "failed"
        self._colored += news.status == "written"
        if news.status == "failed":
            self._bar.console.print(one_line(news.sentence), style="red", markup=False)
        if news.status == "written" and self._first is None:
            self._first = time.monotonic()
        each = news.seconds or 0.0
        if self._first is not None and self._colored > 1:
            each = (time.monotonic() - self._first) / (self._colored - 1)
        speed = "" if each <= 0 else f"{each:.1f} s/frame" if each >= 1 else f"{1 / each:.1f} frames/s"
        self._bar.update(
            self._task,
            completed=news.done,
            description=one_line(news.frame),
            speed=speed,
            failures=f"{self._failed} failed" if self._failed else "",
        )

    def end(self) -> None:
        self._bar.stop()

    def summary(self, text: str, outs: Sequence[str], numbers: Mapping[str, Any]) -> None:
        say_summary(text, outs)

    def failed(self, reason: str) -> None:
        """It is told on stderr."""


class Transfers:
    """Tells how much of some files is fetched or copied: one bar on a terminal, else a line on stderr at each tenth.

    With json each line is an event on stdout, which is then what was asked for.
    """

    def __init__(self, total: int, *, quiet: bool = False, json: bool = False) -> None:
        self._total = total
        self._quiet = quiet
        self._json = json
        self._told: tuple[str, int] = ("", -1)
        self._bar: Any = None
        if not quiet and not json and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.progress import TransferSpeedColumn as Speed

            self._bar = Progress(TextColumn("{task.description}", markup=False), BarColumn(bar_width=None),
                                 DownloadColumn(), Speed(), TextColumn("left"), TimeRemainingColumn(compact=True),
                                 expand=True)
            self._task = self._bar.add_task("connecting", total=total)
            self._bar.start()

    def update(self, name: str, done: int, size: int, done_of_all: int) -> None:
        """Of a file of `size` bytes `done` are here, and of all files together `done_of_all`."""
        if self._bar is not None:
            self._bar.update(self._task, description=one_line(name), completed=done_of_all)
            return
        told = (name, 10 * done // max(size, 1))
        if self._quiet or told == self._told:
            return
        self._told = told
        if self._json:
            say_json({"event": "transfer", "file": name, "bytes": done, "of": size, "total_bytes": done_of_all,
                      "total_of": self._total})
        else:
            note(f"{name}: {size_in_words(done)} of {size_in_words(size)}")

    def close(self) -> None:
        """No more comes, for whatever reason."""
        if self._bar is not None:
            self._bar.stop()


class TrainingBar:
    """A training run on a terminal: which stage, its steps, the loss, seconds a step, and the time that is left."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}", markup=False),
            TextColumn("{task.fields[speed]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
            expand=True,
        )
        self._task = self._bar.add_task("starting", total=None, loss="", speed="", left="")
        self._bar.start()

    def say(self, text: str) -> None:
        self._bar.console.print(one_line(text), markup=False, highlight=False)

    def warn(self, text: str) -> None:
        self._bar.console.print(one_line(f"note: {text}"), style="yellow", markup=False, highlight=False)

    def stage(self, news: "StageNews") -> None:
        self._bar.reset(self._task, total=news.steps, completed=news.step, loss="", speed="", left="",
                        description=one_line(f"{news.run}: stage {news.number} of {news.stages}, {news.name}"))

    def step(self, news: "StepNews") -> None:
        self._bar.update(self._task, completed=news.step, loss=f"loss {news.losses.get('loss', 0.0):.4g}",
                         speed=f"{news.seconds:.2f} s/step", left=f"{time_in_words(news.seconds_left)} left")

    def line(self, stage: str, line: Mapping[str, float], seconds_left: float) -> None:
        # Of the curve only what validation found: the rest is in the bar, and all of it in curve.jsonl.
        checks = {name.removeprefix("check_"): value for name, value in line.items() if name.startswith("check_")}
        if checks:
            told = ", ".join(f"{name} {value:g}" for name, value in checks.items())
            self.say(f"{stage} at step {line['step']:g}, validated: {told}")

    def end(self) -> None:
        self._bar.stop()


def training_progress() -> "Progress":
    """How a training run is told: a bar on a terminal, else a flushed line for each line of the curve."""
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return TrainingBar()
    from colorcli.train.run.progress import Lines

    return Lines(say)


def say_summary(text: str, outs: Sequence[str]) -> None:
    """How a run ended, and where its pictures are."""
    say(text)
    for out in outs[:OUTS_LISTED]:
        say(f"  {out}")
    if len(outs) > OUTS_LISTED:
        say(f"  and {len(outs) - OUTS_LISTED} more folders")


DIALECTS: dict[str, Callable[[], Dialect]] = {
    "rich": Bar,
    "plain": Plain,
    "json": Json,
    "deadline": Deadline,
    "tractor": Tractor,
    "openjd": OpenJD,
    "none": Silent,
}


def dialect_named(name: str, quiet: bool = False) -> Dialect:
    """The dialect of `--progress NAME`; auto: OpenJD inside its task, a bar on a terminal, else a line a frame."""
    if name == "auto":
        if "OPENJD_SESSION_WORKING_DIR" in os.environ:
            name = "openjd"
        elif quiet:
            name = "none"
        else:
            name = "rich" if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    return DIALECTS[name]()


class RunReporter:
    """Tells the progress of a run in one dialect, and its warnings on stderr."""

    def __init__(self, dialect: Dialect, total: int, *, quiet: bool = False) -> None:
        self._dialect = dialect
        self._quiet = quiet
        self._shot = ""
        dialect.begin(total)

    def started(self, plan: "ShotPlan") -> None:
        """A shot begins."""
        self._shot = plan.name
        count = len(plan.jobs)
        self._dialect.stage(f"{plan.name}: {count} {'frame' if count == 1 else 'frames'} to {plan.out}")

    def frame(self, record: "FrameRecord", done: int, total: int) -> None:
        """A frame is settled."""
        error = record.error.message if record.error else None
        self._dialect.frame(FrameNews(self._shot, record.frame, record.status, done, total, record.seconds, error))

    def warning(self, text: str) -> None:
        """Something is wrong that stops nothing."""
        if not self._quiet:
            warn(text)

    def finished(self, totals: "Totals") -> None:
        """The run is over, however it ended."""
        self._dialect.end()


class PartReporter:
    """Tells a part of a run as a part of the whole: the frames before it count, and its end is not the run's."""

    def __init__(self, whole: RunReporter, before: int, total: int) -> None:
        """before: frames of the parts before this one. total: frames of all parts."""
        self._whole, self._before, self._total = whole, before, total

    def started(self, plan: "ShotPlan") -> None:
        """A shot begins."""
        self._whole.started(plan)

    def frame(self, record: "FrameRecord", done: int, total: int) -> None:
        """A frame is settled."""
        self._whole.frame(record, self._before + done, self._total)

    def warning(self, text: str) -> None:
        """Something is wrong that stops nothing."""
        self._whole.warning(text)

    def finished(self, totals: "Totals") -> None:
        """The part is over, and the run goes on."""

"""Who works on what: processes that share one OUT, on one machine or on many, do nothing twice and corrupt nothing.

A process that works in OUT keeps a file there as its sign of life, `OUT/.leases/<who>.alive`, in which a number goes up
every few seconds. What it needs for itself (a drawing, a journal, the manifest) it takes by giving that file one more
name, `<what>.0.lease`: on every file system a name can be made only once, also where there are no locks. Who finds the
name taken does something else, and looks again later.

A process is taken for dead when its number has stood still for a minute while somebody looked; on its own machine as
soon as it has ended, for the system knows what runs. No two clocks are ever compared. What a dead process had is taken
by making the next name, `<what>.1.lease`: taking the old one away and making it anew are two steps, and two could do
both at once.

A process may be declared dead and wake up: it then writes the frames that it was at, as another does. Frames come out
the same whoever colors them and are renamed into place whole, so that costs work and no picture.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from colorcli.errors import OutputError
from colorcli.files import open_plain
from colorcli.shot.layer_files import folders_written
from colorcli.shot.manifest import output_error
from colorcli.whole_file import TEMPORARY, is_running

FOLDER = ".leases"
ALIVE = re.compile(r"(?P<machine>[0-9a-f]{12})-(?P<pid>\d{1,10})-(?P<start>\d{1,20})-[0-9a-f]{8}\.alive")
LEASE = re.compile(r"(?P<what>[^/]{1,200})\.(?P<generation>\d{1,4})\.lease")
LAST_GENERATION = 9999
UNKNOWN_MACHINE = "0" * 12     # a system that does not tell: nobody is at home there
LONGEST_SIGN = 400             # bytes of a sign of life that are read
STALE_SECONDS = 3600.0         # a temporary file as old as this belongs to nobody who still works
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES}


@dataclass(frozen=True)
class LeaseTimes:
    """How often a process shows that it lives, and how long another waits before it gives it up."""

    beat_seconds: float = 5.0      # between two signs of life
    silent_seconds: float = 60.0   # without any, counted only while somebody looks: then it is dead
    poll_seconds: float = 0.5      # between two looks of a process that has nothing else to do


@dataclass
class _Held:
    generation: int
    count: int = 1


@dataclass
class _Watched:
    """What was last seen of another process."""

    sign: bytes
    seen: float           # by this process's own clock
    silent: float = 0.0   # seconds without a new sign


@dataclass
class _Listing:
    """What lies in the folder of leases."""

    alive: set[str] = field(default_factory=set)                       # signs of life, by file name
    leases: dict[str, dict[int, str]] = field(default_factory=dict)    # what -> generation -> file name


class Leases:
    """What this process has to itself in one OUT. Any thread may ask; a signal may come at any moment."""

    def __init__(self, out: Path, times: LeaseTimes | None = None) -> None:
        self.out, self.folder = out, out / FOLDER
        self.times = times or LeaseTimes()
        self._machine = _machine()
        _, start = _state_of(os.getpid()) or ("", "0")
        self.name = f"{self._machine}-{os.getpid()}-{start}-{secrets.token_hex(4)}.alive"
        self._text = f"{self.name} {_host()} {os.getpid()}"
        self._beats = 0
        self._held: dict[str, _Held] = {}
        self._made: set[str] = set()     # names of leases, from just before they are made: a signal may come between
        self._remembered: set[str] = set()
        self._watched: dict[str, _Watched] = {}
        self._last = _Listing()
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Leases":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Show the first sign of life. Raises OutputError."""
        if self.folder.is_symlink():
            raise OutputError(f"{self.folder} is a link, which colorcli never makes", hint="take it out of OUT")
        for attempt in range(20):
            try:
                self._make_folder()
                self._show(os.O_CREAT | os.O_EXCL)
                break
            except FileNotFoundError as error:   # the last one out has just taken the folder away
                if attempt == 19 or not self.out.is_dir():
                    raise output_error(self.folder, error) from error
            except OSError as error:
                raise output_error(self.folder, error) from error
        self._thread = threading.Thread(target=self._live, name="sign-of-life", daemon=True)
        self._thread.start()

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir()
        except FileExistsError:
            return
        # Whoever may write into OUT may work in it, whatever this user's umask is.
        with contextlib.suppress(OSError):
            self.folder.chmod(self.out.stat().st_mode & 0o777)

    def close(self) -> None:
        """Give everything back, the sign of life last."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2 * self.times.beat_seconds)   # a beat may hang in a file system that is away
        with contextlib.suppress(OutputError):
            self._listing()
        stay = {_lease(what, held.generation) for what, held in self._held.items() if what in self._remembered}
        for file in self._made - (stay if self.are_shared else set()):
            if self._owner_of(file) == self.name:
                self._remove(file)
        self._held.clear()
        self._remove(self.name)
        with contextlib.suppress(OutputError):
            left = self._listing()
            if not left.alive:   # the last one out
                for file in [file for files in left.leases.values() for file in files.values()]:
                    if self._is_dead(self._owner_of(file)):
                        self._remove(file)
        with contextlib.suppress(OSError):
            self.folder.rmdir()   # where others are, it is not empty

    def claim(self, what: str, *, from_silent: bool = True) -> bool:
        """Take something for this process, or once more what it already has; False: another one has it.

        what: letters that can be in a file name. from_silent: also from a process of which only silence is known, on
        another machine. Raises OutputError.
        """
        with self._lock:
            held = self._held.get(what)
            if held is not None:
                held.count += 1
                return True
            generation = self._take(what, from_silent)
            if generation is not None:
                self._held[what] = _Held(generation)
            return generation is not None

    def release(self, what: str) -> None:
        """Give back what was claimed, once for each time."""
        with self._lock:
            held = self._held[what]
            held.count -= 1
            if held.count:
                return
            del self._held[what]
            mine = _lease(what, held.generation)
            # It is another's if this process slept for so long that it was given up.
            if self._owner_of(mine) == self.name:
                self._remove(mine)

    def remember(self, what: str) -> None:
        """Leave the name of something that this process has to those that still work when it ends.

        So they see that it was there, however short that was. The last one takes the names away.
        """
        self._remembered.add(what)

    def taken(self, wanted: Iterable[str]) -> dict[str, str]:
        """Those of some things that other living processes have, and who that is, in words. Raises OutputError."""
        listing = self._listing()
        found: dict[str, str] = {}
        for what in wanted:
            for file in listing.leases.get(what, {}).values():
                owner = self._owner_of(file)
                if owner != self.name and not self._is_dead(owner):
                    found[what] = self._in_words(owner)
        return found

    def last_seen(self, prefix: str) -> list[str]:
        """What begins like this and was taken or remembered when this process last looked; nothing is read."""
        return [what for what in self._last.leases if what.startswith(prefix)]

    @property
    def are_shared(self) -> bool:
        """Whether another process was at work here when this one last looked."""
        return bool(self._last.alive - {self.name})

    def sweep(self) -> None:
        """Take away what dead processes left in OUT: temporary files, leases, signs of life. Raises OutputError."""
        # Files before owners: whoever made one of these had shown a sign of life before.
        try:
            temporaries = [
                (folder / name, int(match["pid"]))
                for folder in folders_written(self.out)
                for name in _names(folder)
                if (match := TEMPORARY.fullmatch(name))
            ]
        except OSError as error:
            raise output_error(self.out, error) from error
        listing = self._listing()
        dead = {name for name in listing.alive if self._is_dead(name)}
        living = {_pid(name) for name in listing.alive - dead}
        gone = {_pid(name) for name in dead}
        for path, pid in temporaries:
            if pid not in living and (pid in gone or self._is_old(path)):
                with contextlib.suppress(OSError):
                    path.unlink()
        # What is nobody's any more may be remembered, as long as others work.
        alone = listing.alive - dead == {self.name}
        for what, files in (listing.leases if dead or alone else {}).items():
            owners = {self._owner_of(file) for file in files.values()}
            theirs = owners <= dead or (alone and all(self._is_dead(owner) for owner in owners))
            if theirs and self.claim(what):
                self.release(what)
        for name in dead:
            self._remove(name)

    # --- one lease -------------------------------------------------------------------------------------------------

    def _take(self, what: str, from_silent: bool) -> int | None:
        """Make the next name of something; None: somebody who lives has it."""
        # Nearly always nobody has it, and then one look is enough.
        if self._link(_lease(what, 0)):
            if self._is_mine_alone(what, 0, from_silent):
                return 0
            self._remove(_lease(what, 0))
        there = self._listing().leases.get(what, {})
        if not all(self._is_dead(self._owner_of(file), from_silent) for file in there.values()):
            return None
        generation = max(there, default=-1) + 1
        if generation > LAST_GENERATION or not self._link(_lease(what, generation)):
            return None
        if self._is_mine_alone(what, generation, from_silent):
            for file in there.values():   # of the dead: who has the last name may take the others away
                self._remove(file)
            return generation
        self._remove(_lease(what, generation))
        return None

    def _is_mine_alone(self, what: str, generation: int, from_silent: bool) -> bool:
        """Whether the name that was just made is the last one, and all before it are those of dead processes.

        Who saw another moment of the folder may make another name at the same time. Both look after that, so at least
        one of them sees the other, and steps back.
        """
        there = self._listing().leases.get(what, {})
        # Not even its own name is there if somebody has just deleted the folder.
        return generation == max(there, default=-1) and all(
            self._is_dead(self._owner_of(file), from_silent) for other, file in there.items() if other != generation
        )

    def _link(self, name: str) -> bool:
        """Give the sign of life one more name. False: that name is taken. Raises OutputError."""
        path, source = self.folder / name, self.folder / self.name
        self._made.add(name)
        try:
            try:
                os.link(source, path)
            except FileNotFoundError:   # somebody took this process for dead, or the whole folder away
                self._make_folder()
                self._show(os.O_CREAT)
                os.link(source, path)
            return True
        except FileExistsError:
            # Over a network the first answer may be lost, and the question asked again.
            return self._owner_of(name) == self.name and name not in self._names_held()
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise output_error(path, error) from error
        try:   # a file system without links
            with path.open("xb") as file:
                file.write(f"{self._text}\n".encode())
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise output_error(path, error) from error

    def _names_held(self) -> set[str]:
        return {_lease(what, held.generation) for what, held in self._held.items()}

    def _owner_of(self, name: str) -> str:
        """Who has a lease, by the name of the sign of life; one that says nothing is its own owner, "" is nobody."""
        try:
            with open_plain(self.folder / name) as file:
                said = file.read(LONGEST_SIGN).split(b" ")[0].decode(errors="replace")
        except FileNotFoundError:
            return ""
        except OSError:
            return name   # what cannot be read now may be anybody's
        return said if ALIVE.fullmatch(said) else name

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            (self.folder / name).unlink()
            self._made.discard(name)

    # --- life and death --------------------------------------------------------------------------------------------

    def _live(self) -> None:
        """Show signs of life and look at those of others, until the end. Runs in a thread of its own."""
        while not self._closing.wait(self.times.beat_seconds):
            with contextlib.suppress(OSError):   # a full or distant disk: others see silence, as they should
                self._show(os.O_CREAT)
            with contextlib.suppress(OSError):
                self._watch(self._list().alive - {self.name})

    def _show(self, how: int) -> None:
        self._beats += 1
        text = f"{self._text} {self._beats:012d}\n".encode()
        # In its place, for all names of the file have to show it.
        opened = os.open(self.folder / self.name, os.O_WRONLY | getattr(os, "O_BINARY", 0) | how, 0o666)
        try:
            os.write(opened, text)
        finally:
            os.close(opened)

    def _watch(self, others: set[str]) -> None:
        """Look at every other process once more."""
        for name in others | {name for name in self._watched if LEASE.fullmatch(name)}:
            try:
                with open_plain(self.folder / name) as file:
                    sign = file.read(LONGEST_SIGN)
            except OSError:
                self._watched.pop(name, None)
                continue
            now, known = time.monotonic(), self._watched.get(name)
            if known is None or known.sign != sign:
                self._watched[name] = _Watched(sign, now)
                continue
            # A machine that slept, or waited for the file server, was not looking.
            known.silent += min(now - known.seen, 2 * self.times.beat_seconds)
            known.seen = now

    def _is_dead(self, owner: str, from_silent: bool = True) -> bool:
        if owner == self.name:
            return False
        match = ALIVE.fullmatch(owner)
        if match is None and LEASE.fullmatch(owner):   # it was killed before it could write who it is
            self._watched.setdefault(owner, _Watched(b"", time.monotonic()))
        elif match is None or self._has_ended(match):
            return True
        else:
            try:
                (self.folder / owner).stat()
            except FileNotFoundError:   # it went away in order, or somebody has swept up behind it
                return True
            except OSError:
                return False
        watched = self._watched.get(owner)
        return from_silent and watched is not None and watched.silent >= self.times.silent_seconds

    def _has_ended(self, sign: re.Match[str]) -> bool:
        """Whether a process is certainly no more: it was one of this machine."""
        is_here = sign["machine"] == self._machine != UNKNOWN_MACHINE
        return is_here and not _runs(int(sign["pid"]), sign["start"])

    def _is_old(self, path: Path) -> bool:
        """Whether nobody works on a temporary file any more, by the clock that stamps both it and our sign of life."""
        try:
            return path.stat().st_mtime < (self.folder / self.name).stat().st_mtime - STALE_SECONDS
        except OSError:
            return False

    def _in_words(self, owner: str) -> str:
        try:
            with open_plain(self.folder / owner) as file:
                parts = file.read(LONGEST_SIGN).decode(errors="replace").split()
        except OSError:
            parts = []
        host = re.sub(r"[^\w.-]", "?", parts[1])[:60] if len(parts) > 2 else "another machine"
        match = ALIVE.fullmatch(owner)
        return f"process {match['pid']} on {host}" if match else host

    # --- the folder ------------------------------------------------------------------------------------------------

    def _listing(self) -> _Listing:
        """Raises OutputError."""
        try:
            self._last = self._list()
        except OSError as error:
            raise output_error(self.folder, error) from error
        return self._last

    def _list(self) -> _Listing:
        listing = _Listing()
        for name in _names(self.folder):
            if ALIVE.fullmatch(name):
                listing.alive.add(name)
            elif match := LEASE.fullmatch(name):
                listing.leases.setdefault(match["what"], {})[int(match["generation"])] = name
        return listing


def lease_name(kind: str, text: str) -> str:
    """A name for something that is described by any text: drawing-<hash>."""
    return f"{kind}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:32]}"


def _lease(what: str, generation: int) -> str:
    return f"{what}.{generation}.lease"


def _names(folder: Path) -> Iterator[str]:
    """The names in a folder; none if it is not there. Raises OSError: what cannot be listed is not empty."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries)
    except FileNotFoundError:
        return


def _pid(name: str) -> int:
    match = ALIVE.fullmatch(name)
    assert match is not None, name
    return int(match["pid"])


def _host() -> str:
    return re.sub(r"[^\w.-]", "?", socket.gethostname())[:60] or "?"


def _machine() -> str:
    """What tells this running system from every other, and one container of it from another; Linux only.

    Copies of one running machine have what the system calls itself in common, and get names of their own.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        # Numbers of processes mean something only inside a namespace.
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return UNKNOWN_MACHINE
    return hashlib.sha256(f"{boot} {space} {socket.gethostname()}".encode()).hexdigest()[:12]


def _state_of(pid: int) -> tuple[str, str] | None:
    """The state of a process of this machine, and when it was started, in ticks since the system was; None: unknown."""
    try:
        # The name in brackets may hold anything, also brackets.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0].decode(), fields[19].decode()


def _runs(pid: int, start: str) -> bool:
    """Whether a process of this machine still runs, and is not another one that got its number."""
    if not is_running(pid):
        return False
    found = _state_of(pid)   # somebody else's may be hidden from us
    # One that has ended and that nobody has asked for is still listed.
    return found is None or (found[0] not in "ZXx" and found[1] == start)

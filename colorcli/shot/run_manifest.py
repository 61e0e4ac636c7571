"""What a run writes into the manifest of its shot when it ends: by what the frames were colored, and how it went."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import colorcli
from colorcli.shot.crew import Crew
from colorcli.shot.engine import Engine, library_versions, recorded_settings
from colorcli.shot.journal import later_than
from colorcli.shot.keys import ShotKey
from colorcli.shot.leases import Leases
from colorcli.shot.manifest import (
    FrameRecord,
    Manifest,
    ProblemEntry,
    RequestEntry,
    RunEntry,
    SettingsEntry,
    Totals,
    now,
    relative_posix,
    update_manifest,
)
from colorcli.shot.plan import ShotPlan
from colorcli.shot.sharing import SECONDS_TO_AGREE, alone
from colorcli.variants import METHOD_VERSION


@dataclass(frozen=True)
class RunManifest:
    """What one run of a shot has to say, as far as it is known from the beginning."""

    plan: ShotPlan
    engine: Engine
    started: str = field(default_factory=now)
    clock: float = field(default_factory=time.monotonic)   # when it was started, by this process's own clock

    @property
    def seconds(self) -> float:
        """For how long the run has been going."""
        return time.monotonic() - self.clock

    def write(
        self,
        journal: str,
        key: ShotKey | None,
        exit_code: int,
        records: Sequence[FrameRecord],
        leases: Leases,
        crew: Crew | None = None,
    ) -> None:
        """Write or update the manifest in OUT, one process after the other. Raises OutputError.

        journal: its name. key: None: it could not be read. records: of the frames that are settled. crew: who colored.
        """
        run = self._entry(journal, exit_code, records, crew)

        def build(old: Manifest | None, merged: list[FrameRecord]) -> Manifest:
            return self._manifest(old, self._counting(merged, records), run, key)

        with alone(leases, "manifest", SECONDS_TO_AGREE):
            update_manifest(self.plan.out, build)

    def _entry(self, journal: str, exit_code: int, records: Sequence[FrameRecord], crew: Crew | None) -> RunEntry:
        """How this run went."""
        plan, batch, colorizer = self.plan, self.engine.batch, self.engine.loader.loaded
        described = dict(colorizer.describe()) if colorizer is not None else {}
        described = dict(crew.describe()) if crew is not None else described
        return RunEntry(
            journal=journal,
            started=self.started,
            finished=now(),
            exit_code=exit_code,
            frames=plan.range.text if plan.range is not None else "",
            chunk=str(plan.chunk) if plan.chunk is not None else None,
            device=described.get("device"),
            attention=described.get("attention"),
            engine=described.get("engine"),
            precision=described.get("precision"),
            memory=described.get("memory"),
            compiled=described.get("compiled"),
            decoding=described.get("decoding"),
            batch=batch.frames if colorizer is not None else None,
            notes=(*batch.notes, *described.get("notes", ())),
            versions=library_versions(),
            totals=Totals.of(records, self.seconds),
        )

    def _counting(self, merged: list[FrameRecord], records: Sequence[FrameRecord]) -> list[FrameRecord]:
        """Those of the records of a shot that still count."""
        plan = self.plan
        if plan.range is not None or plan.chunk is not None:
            return merged
        # This process has seen the whole shot: records of drawings that were taken out since do not count.
        there = {record.key for record in records} | {job.key for job in plan.jobs}
        return [record for record in merged if record.key in there]

    def _manifest(
        self, old: Manifest | None, records: list[FrameRecord], run: RunEntry, key: ShotKey | None
    ) -> Manifest:
        """What the manifest says from now on. records: the newest of each frame."""
        plan, engine, request = self.plan, self.engine, self.plan.request
        runs = {entry.journal: entry for entry in (old.runs if old else ())} | {run.journal: run}
        used = {record.settings_sha256 for record in records}
        return Manifest(
            tool=colorcli.__version__,
            created=old.created if old and old.created else self.started,
            updated=later_than(max((record.finished for record in records), default="")),
            shot=relative_posix(plan.folder, plan.out),
            name=plan.name,
            folder=plan.out.resolve().name,
            request=RequestEntry(
                shots=_named_in(plan),
                refs=tuple(relative_posix(path, plan.out) for path in plan.keys),
                frames=request.frames,
                chunk=request.chunk,
                masks=tuple(relative_posix(path, plan.out) for path in request.masks),
                overwrite=request.overwrite,
                preset=request.preset_name,
            ),
            settings=recorded_settings(engine.preset, plan.out),
            settings_sha256=engine.settings,
            method=METHOD_VERSION,
            models=(engine.model, *engine.network_entries),
            earlier_settings={
                digest: entry
                for digest, entry in (_settings_of(old) if old else {}).items()
                if digest in used and digest != engine.settings
            },
            keys=key.entries if key else old.keys if old else (),
            key_sha256=key.digest if key else old.key_sha256 if old else "",
            background=key.background_entry if key else old.background if old else None,
            palette=key.palette_entry if key else old.palette if old else None,
            totals=Totals.of(records, self.seconds),
            runs=tuple(runs.values()),
            problems=tuple(
                ProblemEntry(severity=one.severity, kind=one.kind, message=one.message, hint=one.hint)
                for one in plan.problems
            ),
        )


def _settings_of(manifest: Manifest) -> dict[str, SettingsEntry]:
    """By what the frames of a manifest were colored, by digest."""
    last = SettingsEntry(
        tool=manifest.tool, method=manifest.method, settings=manifest.settings, models=manifest.models
    )
    return manifest.earlier_settings | ({manifest.settings_sha256: last} if manifest.settings_sha256 else {})


def _named_in(plan: ShotPlan) -> tuple[str, ...]:
    """The sequences and pictures of the shot's folder that were named by themselves; none: the folder was."""
    paths = [Path(text) for text in plan.request.shots]
    folder = plan.folder.resolve()
    return tuple(path.name for path in paths if not path.is_dir() and path.parent.resolve() == folder)

"""`colorcli models pull`: show what a model is and under which licenses, ask, fetch, verify, install."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colorcli import console
from colorcli.errors import OutputError, UsageError, WeightsError

if TYPE_CHECKING:
    from colorcli.model.hub import Hub, HubFile, PullPlan, Role

DTYPES = ("keep", "fp16", "bf16", "fp32")
COMPONENTS: "Mapping[Role, str]" = {"clip": "image_encoder", "tagger": "tagger"}  # part on the hub -> in a model
WITH_CLIP = ("text_encoder",)  # what else of a model may come from CLIP's repository


def pull(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="xl, xlv2 or v2")],
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="Accept the licenses that are shown, without being asked.")
    ] = False,
    file: Annotated[
        str | None, typer.Option("--file", metavar="NAME", help="The published file, where there are several.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="R", help="Branch, tag or commit of the published file.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="Another hub; default: $HF_ENDPOINT, or the public.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="What to call it here; default: the model.")
    ] = None,
    keep_downloads: Annotated[
        bool, typer.Option("--keep-downloads", help="Keep the published files beside the installed model.")
    ] = False,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="|".join(DTYPES), help="Numbers of the installed model.")
    ] = "keep",
    clip: Annotated[
        Path | None, typer.Option("--clip", metavar="FILE", help="The CLIP tower, from a file; it is not fetched then.")
    ] = None,
    tagger: Annotated[
        Path | None, typer.Option("--tagger", metavar="FILE", help="The tagger, from a file; it is not fetched then.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never touch the network (so a pull is refused).")] = False,
    force: Annotated[bool, typer.Option("--force", help="Install again over a model that is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Tell everything as JSON, an object a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Fetch a published model from the hub, verify it and install it. Shows sizes and licenses first, and asks."""
    from colorcli.model.hub import SOURCES, Hub, plan_pull, remove_downloads, require_online
    from colorcli.model.weights import models_folder
    from colorcli.variants import VARIANTS

    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype} is none of {', '.join(DTYPES)}", hint="leave it out to keep the published")
    if model in VARIANTS and VARIANTS[model].shipped:
        raise WeightsError(f"{model} ships inside colorcli, there is nothing to pull", hint=f"use it: --model {model}")
    if model not in SOURCES:
        raise WeightsError(f"there is nothing to pull for {model}", hint=f"colorcli can pull {', '.join(SOURCES)}")
    require_online(offline)
    # It tells of every broken connection that it takes up again, into the middle of the progress.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    hub = Hub(endpoint)
    folder = models_folder() / (name or model)
    towers = towers_here(model, clip, tagger)
    plan = plan_pull(model, hub, file=file, revision=revision, without=tuple(towers))
    if not force and folder.exists():
        require_same(folder, plan)
        tell_done(folder, json, already=True)
        return
    downloads = folder.parent / "downloads"
    show_plan(plan, hub, folder, towers, json)
    require_accepted(plan, accept_license, json)
    require_room(plan, downloads)
    paths = fetch_all(plan, hub, downloads, quiet, json)
    install(plan, paths, towers, hub, folder.name, dtype, force=force, quiet=quiet, json=json)
    if not keep_downloads:
        remove_downloads(plan.files, downloads)
    tell_done(folder, json)


def towers_here(model: str, clip: Path | None, tagger: Path | None) -> "dict[Role, Path]":
    """Find the towers that need not be fetched: files that are given, and installed models that have them."""
    from colorcli.model.description import recorded_source
    from colorcli.model.hub import tower_lender
    from colorcli.model.weights import installed_models

    found: dict[Role, Path] = {}
    if clip is not None:
        found["clip"] = require_weights(clip)
    if tagger is not None:
        found["tagger"] = require_weights(tagger)
    installed = installed_models()
    sources = {name: recorded_source(folder) for name, folder in installed.items()}
    for role, component in COMPONENTS.items():
        lender = None if role in found else tower_lender(role, model, sources)
        if lender is not None and (installed[lender] / component).is_dir():
            found[role] = installed[lender]
    return found


def fetch_all(plan: "PullPlan", hub: "Hub", downloads: Path, quiet: bool, json: bool) -> "dict[HubFile, Path]":
    """Fetch every file, and say what stays where it was interrupted."""
    from colorcli.model.hub import fetch

    transfers = console.Transfers(plan.total_bytes, quiet=quiet, json=json)
    done: dict[HubFile, int] = {}

    def progress(file: "HubFile", count: int) -> None:
        done[file] = count
        transfers.update(name_of(file), count, file.bytes, sum(done.values()))

    try:
        paths = {file: fetch(file, downloads, hub, progress) for file in plan.files}
    except KeyboardInterrupt:
        transfers.close()
        here = console.size_in_words(sum(done.values()))
        console.note(f"{here} of {console.size_in_words(plan.total_bytes)} are here and stay in {downloads}")
        raise
    finally:
        transfers.close()
    if not json:
        console.say(f"all {len(paths)} files are here and have the hashes that the hub promised")
    return paths


def install(
    plan: "PullPlan", paths: "Mapping[HubFile, Path]", towers: "Mapping[Role, Path]", hub: "Hub", name: str, dtype: str,
    *, force: bool, quiet: bool, json: bool,
) -> None:
    """Make the model's folder of the files that came, and record where they came from."""
    from colorcli.model.description import recorded_source
    from colorcli.model.hub import source_record, tokenizer_folder, weights_of
    from colorcli.model.importing import import_model
    from colorcli.model.single_file import family_of_file
    from colorcli.model.weights import record_source

    checkpoint = paths[plan.of("checkpoint")[0]]
    family = family_of_file(checkpoint)
    if family != plan.model:
        raise WeightsError(f"{checkpoint.name} holds a model of the family {family}, not {plan.model}",
                           hint=f"colorcli models pull {family}, or choose another file with --file")
    shown: list[console.Transfers] = []

    def progress(step: str, done: int, total: int) -> None:
        if not shown:
            shown.append(console.Transfers(total, quiet=quiet, json=json))
        shown[0].update(step, done, total, done)

    try:
        made = import_model(
            checkpoint,
            clip=towers.get("clip") or weights_of(plan.of("clip"), paths),
            tagger=towers.get("tagger") or weights_of(plan.of("tagger"), paths),
            tokenizer=tokenizer_folder(plan.of("clip"), paths),
            name=name, dtype=None if dtype == "keep" else dtype, force=force, on_progress=progress,
        )
    finally:
        for bar in shown:
            bar.close()
    record = source_record(plan, hub)
    made_of = recorded_source(made.folder)
    for role, component in COMPONENTS.items():
        if of_role := plan.of(role):  # rather than the path of a download that will be gone
            lent = (component, *WITH_CLIP) if role == "clip" else (component,)
            record |= {name: of_role[0].repository for name in lent if name in made_of}
    for role, lender in towers.items():
        record["files"] += [entry for entry in recorded_source(lender).get("files", ()) if entry.get("part") == role]
    record_source(made.folder, record, plan.license)
    for remark in made.notes:
        console.warn(remark)


def require_weights(file: Path) -> Path:
    """Give a file of weights back. Raises WeightsError now, before gigabytes are fetched, if it is none."""
    from colorcli.model.single_file import read_header

    read_header(file)
    return file


def name_of(file: "HubFile") -> str:
    """The name of a file in the progress: the towers' are all called model.safetensors."""
    return file.name if file.role == "checkpoint" else f"{file.role}/{file.name}"


def require_same(folder: Path, plan: "PullPlan") -> None:
    """Raise UsageError if a folder holds another model than the planned one, WeightsError if it is not whole."""
    from colorcli.model.description import recorded_source
    from colorcli.model.weights import require_whole

    published = plan.of("checkpoint")[0]
    if recorded_source(folder).get("sha256") != published.sha256:
        raise UsageError(
            f"{folder} is there already, and was not made of {published.path} as it is on the hub now",
            hint="--force replaces it, --name NAME installs beside it",
        )
    try:
        require_whole(folder)
    except WeightsError as failure:
        raise WeightsError(failure.message, hint=f"colorcli models pull {plan.model} --force") from None


def show_plan(plan: "PullPlan", hub: "Hub", folder: Path, towers: "Mapping[Role, Path]", json: bool) -> None:
    """Show what would be fetched from where, how large, and under which licenses."""
    from colorcli.model.hub import bytes_here
    from colorcli.model.licenses import meaning_of

    downloads = folder.parent / "downloads"
    here = sum(bytes_here(file, downloads) for file in plan.files)
    free = free_bytes(downloads)
    if json:
        console.say_json({
            "event": "plan", "model": plan.model, "folder": str(folder), "total_bytes": plan.total_bytes,
            "here_bytes": here, "free_bytes": free, "licenses": plan.licenses, "others": list(plan.others),
            "towers": {role: str(path) for role, path in towers.items()},
            "files": [{"repository": file.repository, "revision": file.revision, "file": file.path,
                       "bytes": file.bytes, "sha256": file.sha256} for file in plan.files],
        })
        return
    console.say(f"{plan.model} is made of these files on {hub.url}:")
    console.say()
    rows = [(file.path, console.size_in_words(file.bytes), file.repository, file.revision[:10]) for file in plan.files]
    console.say_table(rows, heading=("file", "size", "repository", "commit"))
    console.say()
    if plan.others:
        console.say(f"not chosen: {', '.join(plan.others)} (choose with --file NAME)")
    for role, path in towers.items():
        console.say(f"not fetched: the {role}, which is taken from {path}")
    for repository, license in plan.licenses.items():
        console.say(f"license of {repository}: {license} ({meaning_of(license)})")
    total = console.size_in_words(plan.total_bytes)
    console.say(f"in all {total}" + (f", {console.size_in_words(here)} of it are here already" if here else "")
                + f"; to {folder}, where {console.size_in_words(free)} are free")


def require_accepted(plan: "PullPlan", accepted: bool, json: bool) -> None:
    """Ask whether the licenses are accepted, where somebody can answer. Raises WeightsError if they are not."""
    if accepted:
        return
    licenses = ", ".join(sorted(set(plan.licenses.values())))
    hint = f"read them, then: colorcli models pull {plan.model} --accept-license"
    if json or not console.can_ask():
        raise WeightsError(f"license not accepted: {plan.model} comes under {licenses}", hint=hint)
    if not console.ask(f"Do you accept {licenses}, and shall the files be fetched?"):
        raise WeightsError(f"license not accepted: nothing was fetched for {plan.model}", hint=hint)


def require_room(plan: "PullPlan", downloads: Path) -> None:
    """Raise OutputError if the disk cannot hold what is still to come, and the model made of it beside it."""
    from colorcli.model.hub import bytes_here

    missing = sum(file.bytes - bytes_here(file, downloads) for file in plan.files)
    needed, free = missing + plan.total_bytes, free_bytes(downloads)
    if free < needed:
        raise OutputError(
            f"{downloads.parent} has {console.size_in_words(free)} free, and {plan.model} needs "
            f"{console.size_in_words(needed)}: {console.size_in_words(missing)} to fetch, and as much as all files, "
            f"{console.size_in_words(plan.total_bytes)}, for the installed model beside them",
            hint="make room, or set COLORCLI_MODELS to a folder on a larger disk",
        )


def free_bytes(folder: Path) -> int:
    """Give the room on the disk of a folder that may not be there yet."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def tell_done(folder: Path, json: bool, already: bool = False) -> None:
    """Say where the model is, and the command that comes next."""
    if json:
        console.say_json({"event": "end", "model": folder.name, "folder": str(folder), "already": already})
        return
    if already:
        console.say(f"{folder.name} is installed already, of the same file as on the hub (--force installs it again)")
    else:
        console.say(f"{folder.name} is installed in {folder}")
    console.say(f"next: colorcli SHOT --ref KEY --model {folder.name}")

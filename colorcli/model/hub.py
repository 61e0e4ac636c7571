"""Models from the hub: which files make a model, under which licenses, and how they come here whole. No torch.

    hub = Hub(endpoint=None)
    plan = plan_pull("xl", hub)                      # lists the repositories; nothing large is transferred
    paths = [fetch(file, downloads, hub) for file in plan.files]

Nothing else in colorcli opens a connection.
"""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from colorcli.errors import OutputError, WeightsError
from colorcli.model.licenses import spdx_id
from colorcli.model.single_file import PICKLES, SUFFIX

if TYPE_CHECKING:
    from huggingface_hub import HfApi, RepoFile

Role = Literal["checkpoint", "clip", "tagger"]
Progress = Callable[["HubFile", int], None]   # a file, and how many of its bytes are here

DEFAULT_ENDPOINT = "https://huggingface.co"
PART = ".part"             # a download that is not whole yet
ATTEMPTS = 5               # in a row that bring nothing, then we give up
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
SHARD_INDEX = "model.safetensors.index.json"
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """One repository that a part of a model comes from."""

    role: Role
    repository: str   # owner/name
    license: str      # SPDX id, where the repository's own card names none
    prefix: str = ""  # of the file's name, where a repository holds several models
    beside: tuple[str, ...] = ()  # small files that are taken too, where the repository has them


CLIP = Source("clip", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "MIT")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json")
CLIP_H = Source("clip", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "MIT", beside=TOKENIZER_FILES)
TAGGER = Source("tagger", "SmilingWolf/wd-v1-4-swinv2-tagger-v2", "Apache-2.0")
PUBLISHED = "tellurion/ColorizeDiffusionXL"
PUBLISHED_SD = "tellurion/ColorizeDiffusion"
SOURCES: Mapping[str, tuple[Source, ...]] = {
    "xl": (Source("checkpoint", PUBLISHED, "CC-BY-NC-SA-4.0", prefix="sdxl"), CLIP, TAGGER),
    "xlv2": (Source("checkpoint", PUBLISHED, "CC-BY-NC-SA-4.0", prefix="xlv2"), CLIP, TAGGER),
    # Beside v2-* it holds the earlier mult-* and switch-*, which are other networks.
    "v2": (Source("checkpoint", PUBLISHED_SD, "CC-BY-NC-SA-4.0", prefix="v2"), CLIP_H),
}


@dataclass(frozen=True)
class Hub:
    """Where the hub is."""

    endpoint: str | None = None  # None: $HF_ENDPOINT, else the public one

    @property
    def url(self) -> str:
        # huggingface_hub reads the variable once, when it is imported; asked here it counts at any time.
        return (self.endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")

    @property
    def api(self) -> "HfApi":
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.url, library_name="colorcli")


@dataclass(frozen=True)
class HubFile:
    """One file to fetch, as the hub describes it."""

    role: Role
    repository: str
    revision: str        # commit hash
    path: str            # inside the repository, with "/"
    bytes: int
    sha256: str | None   # hex, of a large file; the hub keeps none for small ones
    blob_id: str         # git's SHA-1 of a small file
    license: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def address(self) -> str:
        return f"{self.repository}/{self.path}"


@dataclass(frozen=True)
class PullPlan:
    """What a pull will fetch."""

    model: str
    files: tuple[HubFile, ...]
    others: tuple[str, ...]   # files of the same family that were not chosen

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def licenses(self) -> dict[str, str]:
        """Repository -> SPDX id."""
        return {file.repository: file.license for file in self.files}

    @property
    def license(self) -> str:
        """The license of the published file, which is that of the model."""
        return next(file.license for file in self.files if file.role == "checkpoint")

    def of(self, role: Role) -> tuple[HubFile, ...]:
        return tuple(file for file in self.files if file.role == role)


def require_online(offline: bool = False) -> None:
    """Raise WeightsError if the network is not to be used: by an option, or by the hub's own variables."""
    named = next((name for name in OFFLINE_VARIABLES if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")),
                 None)
    if offline or named:
        why = "--offline is given" if offline else f"{named} is set"
        raise WeightsError(
            f"{why}, and models come over the network",
            hint="pull without it, or install files that are here: colorcli models import FILE.safetensors",
        )


def plan_pull(
    model: str,
    hub: Hub,
    *,
    file: str | None = None,
    revision: str | None = None,
    without: Collection[Role] = (),
    sources: Mapping[str, Sequence[Source]] = SOURCES,
) -> PullPlan:
    """List the repositories of a model and choose its files.

    file: name of the published file, where the repository holds several of the family. revision: branch, tag or commit
    of the published file's repository. without: parts that are here already and not to be fetched.
    Raises WeightsError if a repository or file is not there, is not open to this user, or is not safe to load.
    """
    if model not in sources:
        raise WeightsError(f"there is nothing to pull for {model}", hint=f"colorcli can pull {', '.join(sources)}")
    from huggingface_hub import RepoFile

    chosen: list[HubFile] = []
    others: tuple[str, ...] = ()
    for source in sources[model]:
        if source.role in without:
            continue
        asked = revision if source.role == "checkpoint" else None
        with failures_in_words(hub, source.repository, revision=asked):
            info = hub.api.model_info(source.repository, revision=asked)
            entries = hub.api.list_repo_tree(
                source.repository, recursive=True, expand=True, revision=info.sha or asked
            )
            found = [entry for entry in entries if isinstance(entry, RepoFile)]
        if source.role == "checkpoint":
            picked, others = choose_published(found, source, file)
            wanted = [picked]
        else:
            wanted = choose_clip(found, source) if source.role == "clip" else choose_tagger(found, source)
            wanted += [entry for entry in found if entry.path in source.beside and entry not in wanted]
        for entry in wanted:
            require_safe(entry, source)
        license = license_of_card(info.card_data) or source.license
        chosen += [_hub_file(entry, source, info.sha or "main", license) for entry in wanted]
    return PullPlan(model, tuple(chosen), others)


def choose_published(
    found: Sequence["RepoFile"], source: Source, wanted: str | None = None
) -> tuple["RepoFile", tuple[str, ...]]:
    """Choose the published file of a family, and name the others there are.

    Without a name it is the file that was committed last; of several in one commit the largest.
    Raises WeightsError listing what there is, if none fits.
    """
    family = [entry for entry in found if PurePosixPath(entry.path).name.startswith(source.prefix)]
    safe = [entry for entry in family if entry.path.endswith(SUFFIX)]
    if wanted is not None:
        matching = [entry for entry in found if wanted in (entry.path, PurePosixPath(entry.path).name)]
        if not matching:
            raise WeightsError(f"{source.repository} has no file {wanted}", hint=_there_are(safe))
        if matching[0].path.endswith(PICKLES):
            raise _not_safe(source, wanted)
        if matching[0] not in safe:
            raise WeightsError(f"{wanted} is no {source.prefix}*{SUFFIX} file", hint=_there_are(safe))
        safe.remove(matching[0])
        return matching[0], tuple(entry.path for entry in safe)
    if not safe:
        if pickles := [entry for entry in family if entry.path.endswith(PICKLES)]:
            raise _not_safe(source, pickles[0].path)
        hint = "published files move: see its page, or `colorcli models import FILE` with one you have"
        raise WeightsError(f"{source.repository} has no file {source.prefix}*{SUFFIX}", hint=hint)

    def newest_then_largest(entry: "RepoFile") -> tuple[float, int, str]:
        return entry.last_commit.date.timestamp() if entry.last_commit else 0.0, entry.size, entry.path

    newest, *others = sorted(safe, key=newest_then_largest, reverse=True)
    return newest, tuple(entry.path for entry in others)


def choose_clip(found: Sequence["RepoFile"], source: Source) -> list["RepoFile"]:
    """Choose the files of a CLIP model: as transformers reads it, one file or its shards; else as open_clip does."""
    by_path = {entry.path: entry for entry in found}
    config = [by_path["config.json"]] if "config.json" in by_path else []
    if f"model{SUFFIX}" in by_path:
        return [*config, by_path[f"model{SUFFIX}"]]
    shards = [entry for path, entry in sorted(by_path.items()) if SHARD.fullmatch(path)]
    if shards and SHARD_INDEX in by_path:
        return [*config, by_path[SHARD_INDEX], *shards]
    for name in OPEN_CLIP:
        if name in by_path:
            return [*config, by_path[name]]
    raise _nothing_safe(found, source)


def choose_tagger(found: Sequence["RepoFile"], source: Source) -> list["RepoFile"]:
    """Choose the weights of the tagger."""
    for entry in found:
        if entry.path == f"model{SUFFIX}":
            return [entry]
    raise _nothing_safe(found, source)


def require_safe(entry: "RepoFile", source: Source) -> None:
    """Raise WeightsError if the hub's own scan calls a file unsafe, or if its name would leave our folder."""
    if entry.security is not None and entry.security.status == "unsafe":
        raise WeightsError(f"the hub marks {source.repository}/{entry.path} as unsafe", hint="do not use it")
    path = PurePosixPath(entry.path)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.path:
        raise WeightsError(f"{source.repository} has a file of the name {entry.path!r}", hint="do not use this hub")


def license_of_card(card: Any) -> str | None:
    """Read the license from a model card's data; None if it names none."""
    names = card.get("license") if card else None
    name = names[0] if isinstance(names, list) and names else names
    if name == "other":
        name = card.get("license_name")
    return spdx_id(name) if isinstance(name, str) and name else None


def _hub_file(entry: "RepoFile", source: Source, revision: str, license: str) -> HubFile:
    sha256 = entry.lfs.sha256 if entry.lfs else None
    return HubFile(source.role, source.repository, revision, entry.path, entry.size, sha256, entry.blob_id, license)


def _there_are(entries: Sequence["RepoFile"]) -> str:
    return f"there are {', '.join(sorted(entry.path for entry in entries))}" if entries else "there are none"


def _not_safe(source: Source, path: str) -> WeightsError:
    return WeightsError(
        f"{source.repository}/{path} is a pickle, which can run any program when it is loaded",
        hint="give a .safetensors file of this CLIP model that you have: --clip FILE"
        if source.role == "clip"
        else "take a .safetensors file of it, and `colorcli models import`, which also tells how to convert one safely",
    )


def _nothing_safe(found: Sequence["RepoFile"], source: Source) -> WeightsError:
    for entry in found:
        if entry.path.endswith(PICKLES):
            return _not_safe(source, entry.path)
    return WeightsError(f"{source.repository} has no model{SUFFIX}", hint="see its page for what became of it")


def local_path(file: HubFile, downloads: Path) -> Path:
    """Where a file lies once it is here: downloads/owner--name/commit/path."""
    return downloads / file.repository.replace("/", "--") / file.revision / file.path


def bytes_here(file: HubFile, downloads: Path) -> int:
    """Count what is here of a file, whole or in part."""
    found = _left_behind(file, downloads)
    return min(found.stat().st_size, file.bytes) if found else 0


def _left_behind(file: HubFile, downloads: Path) -> Path | None:
    """Find a file or its part as it came with this commit or an earlier one that had the same content."""
    path = local_path(file, downloads)
    commits = [path.parents[len(PurePosixPath(file.path).parts) - 1]]
    commits += sorted(other for other in commits[0].parent.glob("*") if other != commits[0])
    for name in (path.name, _part(path, file).name):
        for commit in commits:
            found = (commit / file.path).with_name(name)
            if found.is_file() and (name != path.name or found.stat().st_size == file.bytes):
                return found
    return None


def fetch(file: HubFile, downloads: Path, hub: Hub, progress: Progress = lambda file, done: None) -> Path:
    """Bring a file here, from where an earlier try stopped, and verify it. Gives its path.

    What the hub's own cache already has is not fetched again. While it is not whole its name ends in .part.
    Raises WeightsError if it cannot be had or is not what the hub promised, OutputError if it cannot be written.
    """
    path = local_path(file, downloads)
    for whole in (path, _in_hub_cache(file)):
        if whole is not None and whole.is_file() and whole.stat().st_size == file.bytes and is_intact(whole, file):
            progress(file, file.bytes)
            return whole
    part = _part(path, file)
    with failures_in_words(hub, file.repository, path=file.path, revision=file.revision, folder=downloads):
        path.parent.mkdir(parents=True, exist_ok=True)
        left = _left_behind(file, downloads)
        if left is not None and left != part:
            left.replace(part)
        if part.is_file() and part.stat().st_size >= file.bytes and not is_intact(part, file):
            part.unlink()
        _transfer(file, part, hub, progress)
        if not is_intact(part, file):
            part.unlink()
            raise WeightsError(
                f"{file.address} arrived damaged: its hash is not the one that the hub promised",
                hint="the same command fetches it again; if it happens again, a proxy on the way changes files",
            )
        part.replace(path)
    return path


def _transfer(file: HubFile, part: Path, hub: Hub, progress: Progress) -> None:
    """Write the rest of a file to its part, trying again as long as something arrives."""
    import httpx2
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    class Meter:
        """What huggingface_hub takes for a progress bar."""

        def __init__(self, **kwargs: Any) -> None:
            self.done = int(kwargs.get("initial", 0))

        def __enter__(self) -> "Meter":
            return self

        def __exit__(self, *failure: object) -> None:
            """Nothing is open."""

        def update(self, count: int) -> None:
            self.done += count
            progress(file, self.done)

    # Identity: a range of a compressed stream is no range of the file.
    headers = {**build_hf_headers(library_name="colorcli"), "Accept-Encoding": "identity"}
    url = hf_hub_url(file.repository, file.path, revision=file.revision, endpoint=hub.url)
    before, attempts = -1, ATTEMPTS
    while True:
        # Not hf_hub_download: it throws a partial file away when it fails, and these files are large.
        with part.open("ab") as opened:
            have = opened.tell()
            attempts = ATTEMPTS if have > before else attempts - 1
            before = have
            progress(file, have)
            try:
                http_get(url, opened, resume_size=have, headers=headers, expected_size=file.bytes,
                         displayed_filename=file.name, tqdm_class=Meter)
                return
            except httpx2.ReadError:
                # The one broken connection that http_get does not take up again by itself.
                if attempts <= 1:
                    raise


def is_intact(path: Path, file: HubFile) -> bool:
    """Whether a file has the hash that the hub promised: SHA-256, or for small files git's SHA-1."""
    if path.stat().st_size != file.bytes:
        return False
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)
    with path.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == (file.sha256 or file.blob_id)


def _part(path: Path, file: HubFile) -> Path:
    """The name of a file that is not whole yet: it tells the content, because commits come and go."""
    return path.with_name(f"{path.name}.{(file.sha256 or file.blob_id)[:12]}{PART}")


def _in_hub_cache(file: HubFile) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    if SHARD.fullmatch(file.name) or file.name == SHARD_INDEX or file.name in TOKENIZER_FILES:
        return None  # they have to lie together
    found = try_to_load_from_cache(file.repository, file.path, revision=file.revision)
    return Path(found) if isinstance(found, str) else None


def remove_downloads(files: Sequence[HubFile], downloads: Path) -> None:
    """Delete what was fetched for a model, and the folders that are empty then."""
    for file in files:
        path = local_path(file, downloads)
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if not folder.is_relative_to(downloads) or not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()


def source_record(plan: PullPlan, hub: Hub) -> dict[str, Any]:
    """What `weights.json` keeps of where a model came from."""
    return {"hub": hub.url, "files": [_file_record(file) for file in plan.files]}


def _file_record(file: HubFile) -> dict[str, Any]:
    digest = {"sha256": file.sha256} if file.sha256 else {"git_blob": file.blob_id}
    return {"part": file.role, "repository": file.repository, "revision": file.revision, "file": file.path,
            "bytes": file.bytes, **digest, "license": file.license}


def weights_of(files: Sequence[HubFile], paths: Mapping[HubFile, Path]) -> Path | None:
    """Give the file to read a part from, among those fetched for it: its weights, or the index of their shards."""
    named = {file.name: paths[file] for file in files}
    return named.get(SHARD_INDEX) or next((path for name, path in named.items() if name.endswith(SUFFIX)), None)


def tokenizer_folder(files: Sequence[HubFile], paths: Mapping[HubFile, Path]) -> Path | None:
    """Give the folder with the tokenizer that was fetched with a CLIP tower."""
    return next((paths[file].parent for file in files if file.name in TOKENIZER_FILES), None)


def tower_lender(role: Role, model: str, installed: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Find an installed model with a tower from the repository that `model` takes it from.

    installed: name of a model -> its recorded source, as `source_record` made it.
    """
    repository = next((source.repository for source in SOURCES[model] if source.role == role), None)
    for name, source in installed.items():
        parts = [(entry.get("part"), entry.get("repository")) for entry in source.get("files", ())]
        if (role, repository) in parts:
            return name
    return None


@contextmanager
def failures_in_words(
    hub: Hub, repository: str, *, path: str | None = None, revision: str | None = None, folder: Path | None = None
) -> Iterator[None]:
    """Turn what huggingface_hub and the network raise into WeightsError, and a full disk into OutputError."""
    import httpx2
    from huggingface_hub import errors

    what = f"{repository}/{path}" if path else repository
    page = f"{hub.url}/{repository}"
    again = "the same command goes on from where it stopped"
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise WeightsError("the hub's offline mode is on, and models come over the network",
                           hint="unset HF_HUB_OFFLINE") from None
    except errors.GatedRepoError:
        raise WeightsError(f"{repository} is gated: its owners let in only who accepted their terms",
                           hint=f"accept them on {page}, make a token there, and run `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise WeightsError(f"{repository} has no revision {revision}",
                           hint=f"its branches and commits are on {page}/tree/main") from None
    except errors.RemoteEntryNotFoundError:
        raise WeightsError(f"{what} is not on the hub any more", hint=f"see {page}, then pull again") from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(f"there is no {repository} on {hub.url}, or it is private",
                           hint="if you may see it: `hf auth login`; else check --endpoint") from None
    except errors.HfHubHTTPError as failure:
        raise _answered(hub, what, failure.response.status_code, again) from None
    except httpx2.ProxyError as failure:
        raise WeightsError(f"the proxy did not let us through to {hub.url}: {failure}",
                           hint="check HTTPS_PROXY") from None
    except httpx2.TimeoutException:
        raise WeightsError(f"{hub.url} took too long over {what}", hint=again) from None
    except httpx2.ConnectError as failure:
        raise WeightsError(f"{hub.url} cannot be reached: {failure}",
                           hint=f"check the network, the proxy (HTTPS_PROXY) and --endpoint; {again}") from None
    except httpx2.UnsupportedProtocol:
        raise WeightsError(f"{hub.url} is no address of a hub", hint="it begins with https://") from None
    except httpx2.TransportError as failure:
        raise WeightsError(f"the connection broke while fetching {what}: {failure}", hint=again) from None
    except httpx2.HTTPStatusError as failure:
        raise _answered(hub, what, failure.response.status_code, again) from None
    except (httpx2.InvalidURL, httpx2.HTTPError) as failure:
        raise WeightsError(f"{hub.url} is no hub: {failure}", hint="check --endpoint") from None
    except OSError as failure:
        if failure.errno in (ENOSPC, EDQUOT):
            raise OutputError(f"the disk of {folder} is full while fetching {what}",
                              hint=f"make room, or set COLORCLI_MODELS to a folder on a larger disk; {again}"
                              ) from None
        if failure.errno is not None:
            raise OutputError(f"{failure.filename or folder} cannot be written: {failure.strerror}",
                              hint="check its permissions, or set COLORCLI_MODELS to another folder") from None
        raise WeightsError(f"{what} did not come whole: {str(failure).splitlines()[0]}", hint=again) from None
    except (ValueError, KeyError, TypeError) as failure:
        raise WeightsError(f"{hub.url} did not answer like a hub when asked for {what}: {type(failure).__name__}",
                           hint="check --endpoint, and whether a login page of the network stands before it") from None


def _answered(hub: Hub, what: str, status: int, again: str) -> WeightsError:
    if status in (401, 403):
        return WeightsError(f"{hub.url} does not let you have {what} (answer {status})",
                            hint="log in with `hf auth login`; behind a company's proxy ask for access to the hub")
    if status == 429:
        return WeightsError(f"{hub.url} has had too many requests from here", hint=f"wait some minutes; {again}")
    return WeightsError(f"{hub.url} answered {status} when asked for {what}", hint=f"try later; {again}")

"""Content credentials (C2PA): a studio signs what it hands out, with its own certificate.

A signed picture says that people drew it and a trained model added to it, with which weights and under which license;
whoever opens it sees whether it was changed since. The pixels stay as they are. It is done to a finished result, on the
machine that holds the private key, and never on the nodes of a farm. A signature holds the time and a random number,
so signed files of one picture are not the same bytes twice.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import colorcli
from colorcli.errors import MissingExtraError, ShotError, UsageError
from colorcli.files import file_digest, read_plain
from colorcli.images import CONTAINERS
from colorcli.shot.journal import Journal, later_than
from colorcli.shot.leases import Leases
from colorcli.shot.manifest import (
    THERE,
    FrameRecord,
    Manifest,
    ModelEntry,
    output_error,
    read_manifest,
    read_records,
    refuse_newer,
    write_atomically,
)
from colorcli.shot.merge import merge
from colorcli.shot.provenance import COMPOSITE
from colorcli.shot.stamps import new_digest
from colorcli.shot.stand_in import STAND_IN

JOURNAL = "frames.signed.jsonl"
LARGEST_PEM = 1_000_000   # bytes
MEDIA_TYPES = {"png": "image/png", "tiff": "image/tiff", "jpeg": "image/jpeg"}   # what can hold credentials


@dataclass(frozen=True)
class Signer:
    """A certificate and its private key, ready to sign."""

    certificates: bytes   # PEM, the signer's own first
    private_key: bytes    # PEM
    algorithm: str        # es256, ps256, ...
    digest: str           # SHA-256 of the signer's own certificate
    subject: str          # who that is, in words


@dataclass(frozen=True)
class Signed:
    """What became of the pictures of a result."""

    signed: tuple[str, ...]                # file names
    already: tuple[str, ...]               # with this certificate
    left_out: tuple[tuple[str, str], ...]  # file name, and why


def open_signer(certificate: Path, private_key: Path) -> Signer:
    """Read a certificate (with those that vouch for it, in one PEM file) and its private key, not encrypted.

    Raises MissingExtraError, and UsageError for files that are none, do not belong together, or cannot sign.
    """
    try:
        import c2pa  # noqa: F401
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
    except ImportError as error:
        raise MissingExtraError(
            "signing needs the package c2pa-python, which is not installed", hint="pip install 'colorcli[c2pa]'"
        ) from error
    chain, key = _pem(certificate), _pem(private_key)
    try:
        own = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise UsageError(f"{certificate} holds no certificate", hint="give a PEM file") from error
    try:
        loaded = serialization.load_pem_private_key(key, None)
    except TypeError as error:
        raise UsageError(f"{private_key} is encrypted", hint="give a PEM file without a password") from error
    except ValueError as error:
        raise UsageError(f"{private_key} holds no private key", hint="give a PEM file") from error
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if loaded.public_key().public_bytes(*form) != own.public_key().public_bytes(*form):
        raise UsageError(f"{private_key} is not the key of {certificate}", hint="give the two that belong together")
    return Signer(
        chain,
        key,
        _algorithm(loaded, private_key),
        own.fingerprint(hashes.SHA256()).hex(),
        own.subject.rfc4514_string(),
    )


def sign_frames(out: Path, signer: Signer) -> Signed:
    """Sign every picture of a result that is as recorded, and record it; done again it signs what is new.

    Raises ShotError (no result, one that a process is coloring now), UsageError if the certificate is none that may
    sign pictures, OutputError.
    """
    refuse_newer(out)
    manifest = read_manifest(out)
    done: list[str] = []
    already: list[str] = []
    left_out: list[tuple[str, str]] = []
    with Leases(out) as leases:
        leases.sweep()
        if leases.are_shared:
            raise ShotError(f"a process is coloring {out}", hint="sign the pictures when it is done")
        with Journal(out / JOURNAL) as journal:
            for record in read_records(out):
                if record.status not in THERE or record.output is None:
                    continue
                why = _why_not(out, record, manifest)
                if record.signed_by == signer.digest and why is None:
                    already.append(record.output)
                elif why is not None:
                    left_out.append((record.output, why))
                else:
                    journal.add(_sign(out, record, manifest, signer))
                    done.append(record.output)
    merge(out)
    return Signed(tuple(done), tuple(already), tuple(left_out))


def credentials(record: FrameRecord, manifest: Manifest) -> Mapping[str, Any]:
    """What is signed: a manifest of C2PA 2, as its library reads it."""
    tool = {"name": "colorcli", "version": record.tool or colorcli.__version__}
    made = {
        "action": "c2pa.created",
        "digitalSourceType": COMPOSITE,
        "softwareAgent": tool,
        "description": "Colored by a trained model, from a drawing and a key picture",
    }
    models = models_of(record, manifest) or ()
    weights = [{"name": one.name, "sha256": one.sha256, "license": one.license} for one in models]
    frame = {"frame": record.frame, "fingerprint": record.fingerprint, "models": weights}
    return {
        "claim_generator_info": [{"name": "colorcli", "version": colorcli.__version__}],
        "title": record.output,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [made]}},
            {"label": "org.colorcli.frame", "data": frame},
        ],
    }


def models_of(record: FrameRecord, manifest: Manifest) -> tuple[ModelEntry, ...] | None:
    """The weights that a frame was colored with, which need not be those of the last run; None: nobody knows."""
    # The first version knew those of the last run only, and not which frames are of that.
    if not manifest.settings_sha256 or record.settings_sha256 == manifest.settings_sha256:
        return manifest.models
    earlier = manifest.earlier_settings.get(record.settings_sha256 or "")
    return None if earlier is None else earlier.models


def _sign(out: Path, record: FrameRecord, manifest: Manifest, signer: Signer) -> FrameRecord:
    """Write a picture anew with its credentials. Raises OutputError, UsageError."""
    import c2pa

    assert record.output is not None
    path = out / record.output
    info = c2pa.C2paSignerInfo(signer.algorithm, signer.certificates, signer.private_key, None)
    try:
        plain, sealed = io.BytesIO(path.read_bytes()), io.BytesIO()
        with c2pa.Signer.from_info(info) as key, c2pa.Builder(json.dumps(credentials(record, manifest))) as builder:
            builder.sign(key, MEDIA_TYPES[CONTAINERS[path.suffix.lower()]], plain, sealed)
    except c2pa.C2paError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise UsageError(
            f"{path.name} cannot be signed as {signer.subject}: {reason}",
            hint="the certificate has to allow signing documents or mail, and to come with those that vouch for it",
        ) from error
    except OSError as error:
        raise output_error(path, error) from error
    write_atomically(path, sealed.getvalue())
    digest, stamp = new_digest(path)
    return record.model_copy(
        update={
            "output_sha256": digest,
            "output_stamp": stamp,
            "unsigned_sha256": record.unsigned_sha256 or record.output_sha256,
            "signed_by": signer.digest,
            "finished": later_than(record.finished),
        }
    )


def _why_not(out: Path, record: FrameRecord, manifest: Manifest) -> str | None:
    """Why a picture is not signed; None: it is."""
    assert record.output is not None
    container = CONTAINERS.get(Path(record.output).suffix.lower())
    if container not in MEDIA_TYPES:
        return "a file of this kind holds no credentials: PNG, TIFF and JPEG do"
    models = models_of(record, manifest)
    if models is None:
        return "the weights that colored it are not recorded: color it again, and sign it then"
    if any(model.name == STAND_IN for model in models):
        return "no model has colored it, but the stand-in"
    try:
        if file_digest(out / record.output) != record.output_sha256:
            return "it is not the file that was written: see `colorcli manifest verify`"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def _pem(path: Path) -> bytes:
    try:
        return read_plain(path, LARGEST_PEM)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="give a PEM file") from error


def _algorithm(key: Any, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    curves = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in curves:
        return curves[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise UsageError(f"{path} is a key that cannot sign", hint="an elliptic curve (P-256), Ed25519 or RSA key can")



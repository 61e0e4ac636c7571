"""Content credentials: signed with a studio's own certificate, read back by the C2PA library, and kept track of."""

import datetime
import json
from pathlib import Path

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from colorcli.cli.main import main
from colorcli.errors import ShotError, UsageError
from colorcli.images import read_picture
from colorcli.presets import OutputSettings, Preset
from colorcli.shot.credentials import open_signer, sign_frames
from colorcli.shot.journal import Journal, later_than
from colorcli.shot.leases import Leases
from colorcli.shot.manifest import ModelEntry, read_manifest, read_records, write_manifest
from colorcli.shot.merge import merge
from colorcli.shot.verify import verify
from tests.shot.studio import MODEL, color, draw_shot


def name(text: str) -> x509.Name:
    places = NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME
    return x509.Name([x509.NameAttribute(place, text) for place in places])


def certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, may_sign: bool
) -> x509.Certificate:
    """A certificate as C2PA's trust model wants it, or that of an authority."""
    begins = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=not may_sign, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(may_sign, False, False, False, False, not may_sign, False, False, False), critical=True
        )
    )
    if may_sign:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(by, hashes.SHA256())


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(*form, serialization.NoEncryption())


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a studio's certificate, vouched for by an authority of its own, and of its private key."""
    folder = tmp_path_factory.mktemp("studio")
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain = [
        certificate("Light Table", own, "Authority", authority, True),
        certificate("Authority", authority, "Authority", authority, False),
    ]
    text = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)
    (folder / "chain.pem").write_bytes(text)
    (folder / "key.pem").write_bytes(pem(own))
    return folder / "chain.pem", folder / "key.pem"


def colored(folder: Path, kind: str = "png8", **asked: object) -> Path:
    preset = Preset(output=OutputSettings(format=kind))
    return color(draw_shot(folder / "walk", (1, 2)), preset=preset, **asked).plans[0].out


def said(path: Path) -> dict:
    """What the credentials of a picture say, and whether they hold."""
    with c2pa.Reader(str(path)) as reader:
        return json.loads(reader.json())


@pytest.mark.parametrize(("kind", "suffix"), [("png8", ".png"), ("tiff16", ".tif"), ("jpeg", ".jpg")])
def test_a_signed_picture_says_that_a_model_had_a_part_in_it_and_its_pixels_stay(
    kind: str, suffix: str, tmp_path: Path, studio: tuple[Path, Path]
) -> None:
    out = colored(tmp_path, kind)
    before = read_picture(out / f"walk.0001{suffix}").color
    assert len(sign_frames(out, open_signer(*studio)).signed) == 2
    assert (read_picture(out / f"walk.0001{suffix}").color == before).all()
    found = said(out / f"walk.0001{suffix}")
    active = found["manifests"][found["active_manifest"]]
    assert active["signature_info"]["issuer"] == "Light Table"
    by_label = {one["label"]: one["data"] for one in active["assertions"]}
    (action,) = by_label["c2pa.actions.v2"]["actions"]
    assert action["digitalSourceType"].endswith("compositeWithTrainedAlgorithmicMedia")
    assert by_label["org.colorcli.frame"]["models"][0]["license"] == "Apache-2.0"
    faults = {one["code"] for one in found.get("validation_status", [])}
    assert faults <= {"signingCredential.untrusted"}   # of an authority that nobody knows


OTHER = ModelEntry(name="mini", sha256="cd" * 32, license="CC-BY-NC-4.0")


def models_said(path: Path) -> list[dict]:
    """The weights that the credentials of a picture name."""
    found = said(path)
    assertions = found["manifests"][found["active_manifest"]]["assertions"]
    (frame,) = [one["data"] for one in assertions if one["label"] == "org.colorcli.frame"]
    return frame["models"]


def test_each_frame_is_signed_with_the_weights_that_colored_it(tmp_path: Path, studio: tuple[Path, Path]) -> None:
    out = colored(tmp_path, frames="1", model=OTHER)
    colored(tmp_path, frames="2")
    sign_frames(out, open_signer(*studio))
    for number, model in ((1, OTHER), (2, MODEL)):
        wanted = {"name": "mini", "sha256": model.sha256, "license": model.license}
        assert models_said(out / f"walk.000{number}.png") == [wanted]


def test_what_the_stand_in_colored_is_not_signed_whoever_colored_the_rest(
    tmp_path: Path, studio: tuple[Path, Path]
) -> None:
    shot = draw_shot(tmp_path / "walk", (1, 2))
    asked = "--ref", str(tmp_path / "key.png"), "--engine", "stand-in", "--frames", "1", "-q"
    assert main([str(shot), *asked]) == 0
    out = colored(tmp_path, frames="2")
    done = sign_frames(out, open_signer(*studio))
    assert done.signed == ("walk.0002.png",)
    assert [(name, "stand-in" in why) for name, why in done.left_out] == [("walk.0001.png", True)]


def test_a_frame_of_which_nobody_knows_the_weights_is_not_signed(tmp_path: Path, studio: tuple[Path, Path]) -> None:
    out = colored(tmp_path, frames="1", model=OTHER)
    colored(tmp_path, frames="2")
    # As after a run that was killed before it wrote what it colored by.
    write_manifest(out, read_manifest(out).model_copy(update={"earlier_settings": {}}))
    done = sign_frames(out, open_signer(*studio))
    assert done.signed == ("walk.0002.png",)
    assert [(name, "not recorded" in why) for name, why in done.left_out] == [("walk.0001.png", True)]


def test_a_frame_of_the_first_version_beside_newer_ones_is_not_signed_with_their_weights(
    tmp_path: Path, studio: tuple[Path, Path]
) -> None:
    out = colored(tmp_path, frames="1", model=OTHER)
    colored(tmp_path, frames="2")
    (first,) = (record for record in read_records(out) if record.frame == "walk.0001")
    with Journal(out / "frames.old.jsonl") as journal:   # it did not record by which settings a frame is
        journal.add(first.model_copy(update={"settings_sha256": None, "finished": later_than(first.finished)}))
    done = sign_frames(out, open_signer(*studio))
    assert done.signed == ("walk.0002.png",)
    assert [(name, "not recorded" in why) for name, why in done.left_out] == [("walk.0001.png", True)]


def test_a_picture_that_was_changed_after_it_was_signed_is_told_by_its_credentials(
    tmp_path: Path, studio: tuple[Path, Path]
) -> None:
    out = colored(tmp_path)
    sign_frames(out, open_signer(*studio))
    path = out / "walk.0001.png"
    data = bytearray(path.read_bytes())
    data[data.rindex(b"IDAT") + 8] ^= 1
    path.write_bytes(data)
    assert "assertion.dataHash.mismatch" in {one["code"] for one in said(path)["validation_status"]}


def test_signed_frames_are_up_to_date_and_verify_and_are_signed_once(
    tmp_path: Path, studio: tuple[Path, Path]
) -> None:
    out = colored(tmp_path)
    sign_frames(out, open_signer(*studio))
    assert not verify(out)
    again = color(tmp_path / "walk", preset=Preset(output=OutputSettings(format="png8")))
    assert again.colored == [] and not verify(out)
    files = {path.name: path.read_bytes() for path in out.glob("*.png")}
    done = sign_frames(out, open_signer(*studio))
    assert done.signed == () and len(done.already) == 2
    assert files == {path.name: path.read_bytes() for path in out.glob("*.png")}
    assert merge(out).conflicts == ()


def test_a_frame_that_is_colored_again_is_signed_again(tmp_path: Path, studio: tuple[Path, Path]) -> None:
    out = colored(tmp_path)
    sign_frames(out, open_signer(*studio))
    color(tmp_path / "walk", preset=Preset(output=OutputSettings(format="png8")), overwrite=True)
    assert all(record.signed_by is None for record in read_records(out))
    assert len(sign_frames(out, open_signer(*studio)).signed) == 2 and not verify(out)


def test_what_cannot_be_signed_is_left_as_it_is_and_told(
    tmp_path: Path, studio: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = colored(tmp_path, "exr-half")
    (record, *_) = read_records(out)
    before = (out / str(record.output)).read_bytes()
    chain, key = map(str, studio)
    assert main(["manifest", "sign", str(out), "--certificate", chain, "--private-key", key]) == 7
    assert "holds no credentials" in capsys.readouterr().err
    assert (out / str(record.output)).read_bytes() == before


def test_an_altered_picture_gets_no_signature(tmp_path: Path, studio: tuple[Path, Path]) -> None:
    out = colored(tmp_path)
    (out / "walk.0001.png").write_bytes((out / "walk.0002.png").read_bytes())
    done = sign_frames(out, open_signer(*studio))
    assert done.signed == ("walk.0002.png",) and done.left_out[0][0] == "walk.0001.png"


def test_while_somebody_colors_nothing_is_signed(tmp_path: Path, studio: tuple[Path, Path]) -> None:
    out = colored(tmp_path)
    with Leases(out), pytest.raises(ShotError, match="is coloring"):
        sign_frames(out, open_signer(*studio))


def test_files_that_cannot_sign_are_named(tmp_path: Path, studio: tuple[Path, Path]) -> None:
    chain, key = studio
    other, nothing = tmp_path / "other.pem", tmp_path / "nothing.pem"
    other.write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    nothing.write_text("no key")
    cases = {(chain, other): "not the key of", (chain, nothing): "no private key", (nothing, key): "no certificate",
             (chain, tmp_path / "none.pem"): "cannot be read"}
    for files, says in cases.items():
        with pytest.raises(UsageError, match=says):
            open_signer(*files)


def test_a_certificate_that_may_not_sign_is_refused_and_the_picture_stays(tmp_path: Path) -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    alone = certificate("Nobody", own, "Nobody", own, False)
    (tmp_path / "chain.pem").write_bytes(alone.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(pem(own))
    out = colored(tmp_path)
    before = (out / "walk.0001.png").read_bytes()
    with pytest.raises(UsageError, match="cannot be signed"):
        sign_frames(out, open_signer(tmp_path / "chain.pem", tmp_path / "key.pem"))
    assert (out / "walk.0001.png").read_bytes() == before and not verify(out)

"""What the licenses of model weights allow, in words. No torch."""

from collections.abc import Mapping

# SPDX id -> what it means for whoever colors a shot; a reminder, not the license itself.
MEANINGS: Mapping[str, str] = {
    "CC-BY-NC-SA-4.0": "non-commercial use only; name the authors; what you make of the weights has the same license",
    "CC-BY-NC-4.0": "non-commercial use only; name the authors",
    "Apache-2.0": "free for any use, commercial too; keep the license with the weights",
    "MIT": "free for any use, commercial too; keep the license with the weights",
    "NOASSERTION": "nobody recorded it: ask whoever made the weights",
}
_SPDX = {name.lower(): name for name in MEANINGS}


def spdx_id(name: str) -> str:
    """Give a license its SPDX spelling where we know it ("cc-by-nc-sa-4.0" on a model card), else leave it."""
    return _SPDX.get(name.strip().lower(), name.strip())


def meaning_of(license: str) -> str:
    """Say in words what a license allows."""
    return MEANINGS.get(license, "read it before you use the pictures")

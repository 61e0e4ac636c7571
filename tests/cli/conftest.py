"""What tests of the command line share: a simple colorizer, and a place for models of their own."""

from pathlib import Path

import pytest

from tests.shot.studio import FakeColorizer


@pytest.fixture
def colorizer(monkeypatch: pytest.MonkeyPatch) -> FakeColorizer:
    """Colors in place of every model."""
    fake = FakeColorizer()
    monkeypatch.setattr("colorcli.cli.render.load_engine", lambda *_, **__: fake)
    return fake


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder of our own, and no setting or cache of whoever runs the tests."""
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setenv("COLORCLI_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"

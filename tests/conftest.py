"""Settings of all tests."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # tensors are small: more threads would wait for each other


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder; the cache lies beside it and SSL_ZOO_DATA is not set."""
    monkeypatch.setenv("SSL_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSL_ZOO_DATA", raising=False)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"

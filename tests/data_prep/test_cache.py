from pathlib import Path

import pytest

from pycaffe_prune.cache import cache_root


def test_the_variable_names_the_folder_and_nothing_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", str(tmp_path / "elsewhere"))
    assert cache_root() == tmp_path / "elsewhere"
    assert not cache_root().exists()


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_it_is_the_users_cache_folder(
    value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if value is None:
        monkeypatch.delenv("PYCAFFE_PRUNE_CACHE", raising=False)
    else:
        monkeypatch.setenv("PYCAFFE_PRUNE_CACHE", value)
    assert cache_root() == tmp_path / "pycaffe-prune"

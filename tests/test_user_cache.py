"""One folder for reproducible files, in the platform's place for caches."""

import pytest

from elements_jax import user_cache as module
from elements_jax.data.object_store import as_path, local_copy
from elements_jax.user_cache import user_cache

PLATFORMS = [("linux", "XDG_CACHE_HOME", ""), ("win32", "LOCALAPPDATA", ""), ("darwin", "HOME", "Library/Caches")]


@pytest.mark.parametrize(("platform", "variable", "below"), PLATFORMS)
def test_the_folder_is_in_the_users_cache_folder(tmp_path, monkeypatch, platform, variable, below):
    monkeypatch.setattr(module.sys, "platform", platform)
    monkeypatch.delenv("ELEMENTS_CACHE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert user_cache() == tmp_path / below / "elements-jax"
    monkeypatch.setenv("ELEMENTS_CACHE", str(tmp_path / "own"))
    assert user_cache() == tmp_path / "own"


def test_copies_of_objects_are_there(tmp_path, monkeypatch):
    pytest.importorskip("upath")
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.delenv("ELEMENTS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    url = as_path("memory://bucket/a.txt")
    url.write_text("content")
    copy = local_copy(url)
    assert copy == tmp_path / "elements-jax" / "memory" / "bucket" / "a.txt"
    assert copy.read_text() == "content"

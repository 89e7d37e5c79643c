"""The cache folder for data that can be recreated: compiled programs, and copies of remote objects."""

import os
import sys
from pathlib import Path


def user_cache() -> Path:
    """Return $ELEMENTS_CACHE, or `elements-jax` in the platform's user cache folder; it may not exist."""
    if given := os.environ.get("ELEMENTS_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "elements-jax"

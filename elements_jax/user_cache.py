"""Where this package keeps what can be made again: compiled programs, and copies of objects in stores."""

import os
import sys
from pathlib import Path


def user_cache() -> Path:
    """$ELEMENTS_CACHE, or `elements-jax` in the user's folder for caches as the platform has it; it need not exist."""
    if given := os.environ.get("ELEMENTS_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "elements-jax"

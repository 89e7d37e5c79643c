"""Records decoded once and kept in this host's memory, so that reading them costs nothing."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from tqdm import tqdm

from train.input.stored import Choose, Example, Stored

_AT_ONCE = 64  # records that a thread decodes for one task


class InMemory:
    """Reads the same as `Stored`, from arrays in memory. Object masks are kept as packed bits."""

    def __init__(self, stored: Stored, available: Callable[[], int]):
        """Decode all records, with all threads of the machine.

        Args:
          stored: the records on disk.
          available: returns the bytes that the set may take.

        Raises ValueError with both sizes if the set does not fit, before decoding it; and as `Stored` does.
        """
        first, _ = stored.read(0, lambda _: [])
        height, width = first["label_map"].shape
        masks = stored.count_masks() if stored.masks else 0
        size = len(stored) * sum(array.nbytes for array in first.values()) + masks * -(-height * width // 8)
        if size > (free := available()):
            raise ValueError(
                f"in_memory: {len(stored)} records take {size / 1e9:.3g} GB decoded, and {free / 1e9:.3g} GB may be "
                "taken; read them from disk (--train.no-in-memory), or take fewer"
            )
        self.masks, self.any_masks = stored.masks, masks > 0
        self._shape = height, width
        self._arrays = {name: np.empty((len(stored), *array.shape), array.dtype) for name, array in first.items()}
        self._packed: list[np.ndarray] = []  # of each record: masks x bytes

        def every(count: int) -> range:
            return range(count if stored.masks else 0)

        def fill(numbers: range) -> list[np.ndarray]:
            packed = []
            for number in numbers:
                example, object_masks = stored.read(number, every)
                for name, array in example.items():
                    self._arrays[name][number] = array
                packed.append(np.packbits(object_masks.reshape(-1, height * width), axis=1))
            return packed

        tasks = [range(start, min(start + _AT_ONCE, len(stored))) for start in range(0, len(stored), _AT_ONCE)]
        with (
            ThreadPoolExecutor(os.cpu_count()) as threads,
            tqdm(total=len(stored), desc=f"decoding {size / 1e9:.3g} GB into memory", unit="record") as bar,
        ):
            for packed in threads.map(fill, tasks):
                self._packed += packed
                bar.update(len(packed))

    def __len__(self) -> int:
        return len(self._packed)

    def read(self, number: int, choose_masks: Choose) -> tuple[Example, Bool[np.ndarray, "M H W"]]:
        """Read as `Stored.read` does."""
        return {name: array[number] for name, array in self._arrays.items()}, self.object_masks(number, choose_masks)

    def object_masks(self, number: int, choose_masks: Choose) -> Bool[np.ndarray, "M H W"]:
        """Read as `Stored.object_masks` does."""
        packed = self._packed[number]
        chosen = packed[list(choose_masks(len(packed)))]
        height, width = self._shape
        return np.unpackbits(chosen, axis=1, count=height * width).astype(bool).reshape(-1, height, width)


def available_memory() -> int:
    """Return the bytes that a set of records may take: three quarters of this machine's free memory.

    The rest is for training itself. The limit of a control group (of a container) counts too.
    """
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except OSError:  # not Linux: only Linux says how much is free
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no group, or `max`: no limit
        limit = free
    return min(free, limit) * 3 // 4

"""Elements cut from windows of their images, against elements cut from complete images, side by side.

    python tests/benchmarks/extraction.py

The photographs are scikit-image's, segmented by SLIC into 256 elements.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import skimage.data
from jaxtyping import Array, Float
from PIL import Image

from elements_jax import elements
from partition.components import partition_image
from partition.config import PartitionConfig
from partition.segmenters.superpixels import Slic

PATCH = 16


def main(repeats: int = 5) -> None:
    """Print milliseconds an image, and their ratio, at two sizes."""
    for size, count in ((128, 8), (512, 2)):
        config = PartitionConfig(size=size)
        images = [picture(name, size) for name in ("astronaut", "coffee", "chelsea", "rocket")]
        labels = [partition_image(image, Slic(config), config).label_map for image in images]
        batch = (
            jnp.asarray(np.resize(images, (count, size, size, 3)), jnp.float32) / 127.5 - 1,
            jnp.asarray(np.resize(labels, (count, size, size)), jnp.int32),
        )
        programs = {"windows": program(elements.WINDOWS, batch), "whole images": program((1,), batch)}
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(repeats):
            for name, run in programs.items():
                start = time.perf_counter()
                jax.block_until_ready(run())
                seconds[name].append(time.perf_counter() - start)
        took = {name: 1000 * float(np.median(each)) / count for name, each in seconds.items()}
        described = ", ".join(f"{name} {each:.1f} ms an image" for name, each in took.items())
        print(f"{size} px: {described}, ratio {took['whole images'] / took['windows']:.1f}")


def picture(name: str, size: int) -> np.ndarray:
    """Return a photograph of scikit-image, squeezed into a square."""
    return np.asarray(Image.fromarray(getattr(skimage.data, name)()).resize((size, size)))


def program(windows: tuple[float, ...], batch: tuple[Array, Array]) -> Callable[[], Float[Array, "B N P P 3"]]:
    """Compile the extraction from these windows."""
    used, elements.WINDOWS = elements.WINDOWS, windows
    jax.clear_caches()  # otherwise the jitted function would not be traced again
    try:
        extract = jax.jit(lambda *each: elements.extract_patches(*each, num_elements=256, patch_size=PATCH).pixels)
        compiled = extract.lower(*batch).compile()
    finally:
        elements.WINDOWS = used
    compiled(*batch)
    return lambda: compiled(*batch)


if __name__ == "__main__":
    main()

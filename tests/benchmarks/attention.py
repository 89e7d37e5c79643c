"""`attention`, which works in steps on a CPU, against JAX's own `dot_product_attention`, forward and gradient.

python tests/benchmarks/attention.py
"""

import jax
import jax.numpy as jnp
from side_by_side import ratio

from elements_jax.models.attention import attention

SHAPES = {  # queries, keys, heads, channels of a head; a batch of 2
    "sd15, pixels, 64 x 64": (4096, 4096, 8, 40),
    "sd15, elements, 64 x 64": (4096, 256, 8, 40),
    "sd15, pixels, 32 x 32": (1024, 1024, 8, 80),
    "tiny, pixels, 16 x 16": (256, 256, 2, 32),
    "tiny, elements, 16 x 16": (256, 64, 2, 32),
}


def gradient(kernel):
    """Return the gradient by queries, keys and values of a loss that needs them all."""
    return jax.jit(jax.grad(lambda qkv: (kernel(*qkv) ** 2).sum()))


def main() -> None:
    """Print a line for each shape."""
    print(f"{'':28} {'ours':>10} {'JAX':>10} {'ratio':>7}  gradient: {'ours':>7} {'JAX':>10} {'ratio':>7}")
    for name, (queries, keys, heads, channels) in SHAPES.items():
        shapes = [(2, count, heads, channels) for count in (queries, keys, keys)]
        qkv = [jax.random.normal(jax.random.key(i), shape, jnp.float32) for i, shape in enumerate(shapes)]
        line = f"{name:28}"
        for wrap, arguments in ((jax.jit, qkv), (gradient, [qkv])):
            ours, theirs = wrap(attention), wrap(jax.nn.dot_product_attention)
            mine, other, times = ratio(lambda f=ours: f(*arguments), lambda f=theirs: f(*arguments))  # noqa: B023
            line += f" {1e3 * mine:7.1f} ms {1e3 * other:7.1f} ms {times:6.2f}x  "
        print(line, flush=True)


if __name__ == "__main__":
    main()

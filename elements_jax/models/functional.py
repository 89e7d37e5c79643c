"""A module as a pure function of its parameters.

Models are `nnx.Module`s; everything outside the model files works on plain dicts from dotted names to arrays
(`{"blocks.0.attention.to_q.kernel": ...}`), which jit, optax, orbax and safetensors all accept.
"""

import math
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Params = dict[str, Any]
"""Arrays of JAX or NumPy by dotted name."""
ModuleT = TypeVar("ModuleT", bound=nnx.Module)


class _OneKey(nnx.Rngs):
    """Returns the same key for every parameter: modules are only traced for their structure.

    `nnx.Rngs` counts its keys in an array, which costs 10 ms per parameter of a traced module.
    """

    def __init__(self, key: jax.Array):
        self._key = key

    def params(self) -> jax.Array:
        return self._key


def normal(deviation: float) -> Callable:
    """Return an initialiser: normal numbers of this standard deviation, or zeros. `Functional.init` follows it."""
    draw = nnx.initializers.normal(deviation) if deviation else nnx.initializers.zeros
    return nnx.with_metadata(draw, deviation=deviation)


class Functional(Generic[ModuleT]):
    """Splits the module of `build(rngs)` into its structure, kept here, and parameters, held by the caller."""

    def __init__(self, build: Callable[[nnx.Rngs], ModuleT]):
        module = nnx.eval_shape(lambda: build(_OneKey(jax.random.key(0))))
        graphdef, state = nnx.split(module)
        self._graphdef = graphdef
        flat = {".".join(map(str, path)): (path, param) for path, param in nnx.to_flat_state(state)}
        self._paths = {name: path for name, (path, _) in flat.items()}
        self._shapes = {name: jax.ShapeDtypeStruct(param.shape, param.dtype) for name, (_, param) in flat.items()}
        self._deviations = {name: param.get_metadata().get("deviation") for name, (_, param) in flat.items()}
        layers: dict[str, Any] = {".".join(map(str, path)): layer for path, layer in nnx.iter_modules(module)}
        self._dtypes = {
            name: layers[layer].dtype or jnp.float32
            for name in flat
            for layer, _, kind in [name.rpartition(".")]
            if kind in ("kernel", "embedding")
        }

    def init(self, key: jax.Array) -> Params:
        """Draw fresh float32 parameters, by dotted name.

        NumPy draws them on the host, since XLA would compile a program for each of hundreds of draws. A parameter
        depends only on the key and its name. As in Flax, kernels are LeCun's truncated normal numbers, embeddings are
        normal with variance 1 / channels, and biases are zero; layers with `normal` are the exception.
        """
        return self.init_missing({}, key)

    def init_missing(self, known: Params, key: jax.Array) -> Params:
        """Return the `known` parameters, and draw the missing ones like `init`."""
        seed = np.asarray(jax.random.key_data(key)).tolist()

        def draw(name: str) -> np.ndarray:
            random = np.random.default_rng([*seed, zlib.crc32(name.encode())])
            return _draw(name, self._shapes[name].shape, self._deviations[name], random)

        new = sorted(self._shapes.keys() - known.keys())
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return known | dict(zip(new, threads.map(draw, new), strict=True))

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Return shape and dtype of every parameter, without computing any."""
        return dict(self._shapes)

    def cast(self, params: Params) -> Params:
        """Cast kernels and embeddings to their layer's dtype, as the layer would. This only reduces the bytes moved."""
        return {name: value.astype(self._dtypes.get(name, value.dtype)) for name, value in params.items()}

    def module(self, params: Params) -> ModuleT:
        """Return the module with these parameters. Raises ValueError if names are missing or unknown."""
        if params.keys() != self._paths.keys():
            missing, extra = sorted(self._paths.keys() - params.keys()), sorted(params.keys() - self._paths.keys())
            raise ValueError(f"parameters do not fit the module: missing {missing}, unknown {extra}")
        flat: dict[Any, Any] = {path: params[name] for name, path in self._paths.items()}
        return nnx.merge(self._graphdef, nnx.from_flat_state(flat))

    def __call__(self, params: Params, *args: Any) -> Any:
        """`module(params)(*args)`."""
        return self.module(params)(*args)


def _draw(name: str, shape: tuple[int, ...], deviation: float | None, random: np.random.Generator) -> np.ndarray:
    match name.rpartition(".")[-1]:
        case "bias":
            return np.zeros(shape, np.float32)
        case "scale":
            return np.ones(shape, np.float32)
        case "embedding" | "kernel" if deviation is not None:
            return np.float32(deviation) * random.standard_normal(shape, np.float32)
        case "embedding":
            return np.float32(shape[-1] ** -0.5) * random.standard_normal(shape, np.float32)
        case "kernel":
            return np.float32(math.prod(shape[:-1]) ** -0.5 / TRUNCATED) * _truncated_normal(shape, random)
    raise ValueError(f"no initialiser for the parameter {name}")


TRUNCATED = 0.87962566
"""Standard deviation of normal numbers within [-2, 2]."""


def _truncated_normal(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    numbers = random.standard_normal(shape, np.float32)
    while (outside := np.abs(numbers) > 2).any():
        numbers[outside] = random.standard_normal(int(outside.sum()), np.float32)
    return numbers

"""A module as a pure function of its parameters.

Models are `nnx.Module`s; everything outside the model files works on plain dicts from dotted names to arrays
(`{"blocks.0.attention.to_q.kernel": ...}`), which jit, optax, orbax and safetensors all take as they are.
"""

import itertools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

Params = dict[str, jax.Array]
ModuleT = TypeVar("ModuleT", bound=nnx.Module)


class _Keys(nnx.Rngs):
    """Gives the keys that `nnx.Rngs(params=key)` gives, but counts them in Python.

    Its count is an array otherwise, and to set that while tracing costs 10 ms, ten seconds for Stable Diffusion's UNet.
    """

    def __init__(self, key: jax.Array):
        self._key, self._count = key, itertools.count()

    def params(self) -> jax.Array:
        return jax.random.fold_in(self._key, next(self._count))


class Functional(Generic[ModuleT]):
    """Splits the module that `build(rngs)` makes into its structure, kept here, and parameters, held by the caller."""

    def __init__(self, build: Callable[[nnx.Rngs], ModuleT]):
        self._build = build
        module = nnx.eval_shape(lambda: build(_Keys(jax.random.key(0))))
        graphdef, state = nnx.split(module)
        self._graphdef = graphdef
        flat = {".".join(map(str, path)): (path, param) for path, param in nnx.to_flat_state(state)}
        self._paths = {name: path for name, (path, _) in flat.items()}
        self._shapes = {name: jax.ShapeDtypeStruct(param.shape, param.dtype) for name, (_, param) in flat.items()}
        layers: dict[str, Any] = {".".join(map(str, path)): layer for path, layer in nnx.iter_modules(module)}
        self._dtypes = {
            name: layers[layer].dtype or jnp.float32
            for name in flat
            for layer, _, kind in [name.rpartition(".")]
            if kind in ("kernel", "embedding")
        }

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters, float32, by dotted name."""
        state = nnx.state(self._build(_Keys(key)), nnx.Param)
        return {".".join(map(str, path)): param[...] for path, param in nnx.to_flat_state(state)}

    def complete(self, known: Params, key: jax.Array) -> Params:
        """`known` parameters, and fresh ones where it has none; the others are not even drawn."""
        new = self.shapes().keys() - known.keys()
        return known | jax.jit(lambda key: {name: value for name, value in self.init(key).items() if name in new})(key)

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every parameter, without computing any."""
        return dict(self._shapes)

    def cast(self, params: Params) -> Params:
        """Kernels and embeddings in the dtype of their layer's arithmetic, to which it would cast them: nothing changes
        but the bytes that are moved to it."""
        return {name: value.astype(self._dtypes.get(name, value.dtype)) for name, value in params.items()}

    def module(self, params: Params) -> ModuleT:
        """The module with these parameters. Raises ValueError where names are missing or unknown."""
        if params.keys() != self._paths.keys():
            missing, extra = sorted(self._paths.keys() - params.keys()), sorted(params.keys() - self._paths.keys())
            raise ValueError(f"parameters do not fit the module: missing {missing}, unknown {extra}")
        flat: dict[Any, Any] = {path: params[name] for name, path in self._paths.items()}
        return nnx.merge(self._graphdef, nnx.from_flat_state(flat))

    def __call__(self, params: Params, *args: Any) -> Any:
        """`module(params)(*args)`."""
        return self.module(params)(*args)

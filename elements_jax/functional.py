"""A module as a pure function of its parameters.

Models are `nnx.Module`s; everything outside the model files works on plain dicts from dotted names to arrays
(`{"blocks.0.attention.to_q.kernel": ...}`), which jit, optax, orbax and safetensors all take as they are.
"""

import itertools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
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
        graphdef, state = nnx.split(nnx.eval_shape(lambda: build(_Keys(jax.random.key(0)))))
        self._graphdef = graphdef
        flat = {".".join(map(str, path)): (path, param) for path, param in nnx.to_flat_state(state)}
        self._paths = {name: path for name, (path, _) in flat.items()}
        self._shapes = {name: jax.ShapeDtypeStruct(param.shape, param.dtype) for name, (_, param) in flat.items()}

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

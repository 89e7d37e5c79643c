"""The legend of array dimensions, one for the whole project (jaxtyping names, and suffixes in variable names).

    B  examples in a batch             N  elements of an image (256)
    H, W  image height and width       P  side of a resized patch (32)
    h, w  latent height and width      D  channels of a content code (32)
    Z  channels of a latent (4)        E  channels of an element token (112)
    L  tokens of a prompt (77)         C  channels of a feature
    Q, K  queries and keys             M  object masks of an image

A name such as `image_BxHxWx3` shows the shape where no annotation is visible.

`pytree_dataclass` makes a dataclass of arrays for jax's transformations.
"""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")
Tree = Any
"""A pytree of arrays: the flat parameters of one network, or a dict of several such."""


@dataclass_transform(frozen_default=True)
def pytree_dataclass(cls: type[T]) -> type[T]:
    """Make a frozen dataclass whose fields are all children of a pytree.

    jax rebuilds pytrees with placeholders for arrays (None, shapes, shardings); unlike `register_dataclass` this does
    so without calling the constructor, so that shape checks see only real arrays.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]

    def flatten_with_keys(instance):
        return [(jax.tree_util.GetAttrKey(name), getattr(instance, name)) for name in names], None

    def unflatten(_, children):
        instance = object.__new__(cls)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(instance, name, child)
        return instance

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls

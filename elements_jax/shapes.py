"""The legend of array dimensions, one for the whole project (jaxtyping names, and suffixes in variable names).

    B  examples in a batch             N  elements of an image (256)
    H, W  image height and width       P  side of a resized patch (32)
    h, w  latent height and width      D  channels of a content code (32)
    Z  channels of a latent (4)        E  channels of an element token (112)
    L  tokens of a prompt (77)         C  channels of a feature
    Q, K  queries and keys             M  object masks of an image

A name such as `image_BxHxWx3` says its shape where the annotation is out of sight.
"""

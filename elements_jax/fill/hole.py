"""Fills a hole in a photograph: a guide provides the content, and patches of the photograph the appearance.

The fill minimises the distance of every patch that touches the hole to its nearest patch of the known part, level by
level of a pyramid, alternating search and vote (Wexler, Shechtman and Irani, "Space-Time Completion of Video",
PAMI 2007). Coarse levels are searched exhaustively, with matrix products; finer ones around the results of the coarser
level. On all but the finest, low frequencies lean to a smooth fill of the hole, so that patches of the right light are
found. A guide takes part in the search, and after each vote its low frequencies replace those of the patches, as far as
it reproduces the surroundings of the hole. In the end, pieces of the photograph that meet in the hole are joined by
their gradients, like those of a montage (`joining`). Large surroundings are searched at a lower resolution; the
fill's detail comes from where its patches do (`detail`).
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from elements_jax.fill.detail import reduced, with_detail
from elements_jax.fill.guide import Guide, fit_guide
from elements_jax.fill.joining import RIM, blended
from elements_jax.fill.patches import PATCH, Guidance, Hole, complete
from elements_jax.fill.pyramid import EVERY_OTHER, EXACT, Level, patches_within, pyramid
from elements_jax.fill.smooth import around, distance, membrane, shrink_mask

LARGEST = 1024  # pixels per side: larger surroundings of a hole are searched at this size
MARGIN = 128  # pixels searched around the hole, or the length of the hole
FADE = 1.3  # each pixel of distance from the known part divides a pixel's confidence, and a patch's, by this
DEEPEST = 30.0  # pixels: the distance at which it stays the same
SMOOTH = 12.0  # deviation in pixels of the Gaussian that separates the low frequencies that lean to a smooth fill
LEAN = 0.5  # the smooth fill's share of them, on all levels but the finest, which would become hazy
BLUR = 0.5  # deviation of the Gaussian that separates low frequencies, in pixels of the guide
CALM = 0.5  # a deviation of brightness changes that is only noise
TURNS = {EXACT: 8, EVERY_OTHER: 4, 256 * 256: 2}  # iterations of search and vote on levels up to a size; 1 on larger


def fill_hole(
    photograph: UInt8[np.ndarray, "H W 3"],
    hole: Bool[np.ndarray, "H W"],
    guide: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"] | None = None,
    probes: Bool[np.ndarray, "H W"] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Fill the hole of a photograph. Outside the hole the result equals the input, bit for bit.

    The same input gives the same result. Each image size (32, 48, 64, 96 ... px, to which others are padded) compiles
    one program for every level of its pyramid.

    Args:
        photograph: Its pixels in the hole are ignored.
        hole: True for pixels to fill; any number of regions.
        guide: A coarse image of the same view, from 0 to 255, including the known surroundings: how well it shows these
            decides how far it is followed. Without a guide only the known part is continued.
        probes: True for known pixels that the guide did not see, as chosen by `fill.guide.probes_for`: they also decide
            how far the guide is followed.

    Raises:
        ValueError: If shapes do not match, or nothing is known and there is no guide.
    """
    height, width = hole.shape
    if photograph.shape != (height, width, 3):
        raise ValueError(f"the mask of the hole has shape {hole.shape}, but the photograph has {photograph.shape}")
    if guide is not None and (0 in guide.shape or not np.isfinite(guide).all()):
        raise ValueError(f"the guide, of shape {guide.shape}, must have pixels and finite values")
    if not hole.any():
        return photograph.copy()
    if hole.all() and guide is None:
        raise ValueError("the hole covers the complete photograph, which needs a guide")
    # A guide shows all of the photograph; without one, the surroundings are enough.
    box = np.s_[:, :] if guide is not None else surroundings(hole)
    filled = photograph.copy()
    filled[box] = _fill(photograph[box], hole[box], guide, probes)
    return filled


def _fill(
    photograph: UInt8[np.ndarray, "H W 3"],
    hole: Bool[np.ndarray, "H W"],
    guide: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"] | None,
    probes: Bool[np.ndarray, "H W"] | None,
) -> UInt8[np.ndarray, "H W 3"]:
    if max(hole.shape) > LARGEST:
        small = reduced(photograph, LARGEST)
        size = small.shape[1], small.shape[0]
        small_hole = shrink_mask(hole, size)
        if guide is not None or not small_hole.all():  # unless all that is known is thinner than a small pixel
            small_probes = None if probes is None else shrink_mask(probes, size)
            return with_detail(photograph, hole, *fill_with_origin(small, small_hole, guide, small_probes))
    return fill_with_origin(photograph, hole, guide, probes)[0]


def surroundings(hole: Bool[np.ndarray, "H W"]) -> tuple[slice, slice]:
    """Return the box from which a hole is filled."""
    return around(hole, max(MARGIN, *(int(np.ptp(np.flatnonzero(hole.any(axis)))) + 1 for axis in (0, 1))))


def fill_with_origin(
    photograph: UInt8[np.ndarray, "H W 3"],
    hole: Bool[np.ndarray, "H W"],
    guide: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"] | None,
    probes: Bool[np.ndarray, "H W"] | None,
) -> tuple[UInt8[np.ndarray, "H W 3"], Int[np.ndarray, "H W"]]:
    """Return the photograph with its hole filled, and the index of the pixel that each pixel comes from."""
    fitted = None if guide is None else fit_guide(photograph, hole, np.asarray(guide, np.float32), probes)
    box = surroundings(hole)
    filled, origin = photograph.copy(), np.arange(hole.size).reshape(hole.shape)
    colours, there = fill_window(photograph, hole, fitted, box)
    filled[box] = np.where(hole[box][..., None], colours, photograph[box])
    origin[box] = origin[box].ravel()[there]
    return filled, origin


def fill_window(
    photograph: UInt8[np.ndarray, "H W 3"],
    hole: Bool[np.ndarray, "H W"],
    guide: Guide | None,
    box: tuple[slice, slice],
) -> tuple[UInt8[np.ndarray, "h w 3"], Int[np.ndarray, "h w"]]:
    """Return the box of the photograph with its hole filled, and the index in the box that each pixel comes from."""
    image, known = photograph[box].astype(np.float32), ~hole[box]
    fitted, joined = (np.zeros_like(image[..., :3]),) * 2 if guide is None else (guide.fitted[box], guide.joined[box])
    height, width = known.shape
    if not patches_within(known).any():  # without known patches the fill is smooth
        alone = membrane(image, known) if guide is None else joined
        return np.clip(np.rint(alone), 0, 255).astype(np.uint8), np.arange(known.size).reshape(known.shape)

    image = np.concatenate([image, texture(image, known)], 2)
    levels = pyramid(image, known, membrane(image, known), fitted, joined)
    found = None
    for scale, level in reversed(list(enumerate(levels))):
        voted, found, origin = fill_level(level, found, guide, scale)
    colours = blended(level, voted, origin)[:height, :width]
    y, x = np.divmod(origin.reshape(level.known.shape)[:height, :width], level.known.shape[1])
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8), y * width + x


def texture(image: Float[np.ndarray, "H W 3"], known: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W 2"]:
    """Return how much brightness changes in x and y around each known pixel, at full resolution.

    The changes are scaled to vary as much as the colours do. Coarse levels lose texture, so a search by colour only
    would fill textures from smooth regions (Newson et al., "Video Inpainting of Complex Scenes", SIAM J. Imaging
    Sciences 2014, Section 3.2).
    """
    grey, around = image.mean(2), 2 * PATCH + 1
    found = []
    for axis in (1, 0):
        both = known & np.roll(known, 1, axis)
        both[(slice(None),) * axis + (0,)] = False  # it has no pixel before it
        change = np.where(both, np.abs(grey - np.roll(grey, 1, axis)), 0)
        mean, share = (ndimage.uniform_filter(a.astype(np.float32), around, mode="constant") for a in (change, both))
        found.append(np.where(known, mean / np.maximum(share, 1e-3), 0))
    changes = np.stack(found, 2)
    return changes * (image[known].std(0).mean() / (changes[known].std(0).mean() + CALM))


def fill_level(
    level: Level, coarse: Int[np.ndarray, " M"] | None, guide: Guide | None, scale: int
) -> tuple[Float[np.ndarray, "H W C"], Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Run `patches.complete` on a level, given the sources of the coarser one; the finest has scale 0."""
    width = level.known.shape[1]
    unknown = level.inside & ~level.known
    sources = patches_within(level.known)
    targets = patches_within(level.inside) & ~sources
    pixels = level.inside & ndimage.binary_dilation(unknown, np.ones((3, 3)), RIM)
    y, x = ndimage.distance_transform_edt(~sources, return_distances=False, return_indices=True)
    confidence = FADE ** -np.minimum(distance(~level.known), DEEPEST)
    nearest = (y * width + x).astype(np.int32)
    hole = Hole(
        indices(targets),
        int(targets.sum()),
        targets.ravel(),
        indices(pixels),
        int(pixels.sum()),
        unknown.ravel(),
        sources.ravel(),
        nearest.ravel(),
        confidence.astype(np.float32).ravel(),
    )
    start = level.image
    if coarse is None:
        smooth = level.smooth.copy()
        if guide is not None:
            smooth[..., :3] += guide.trusts[-1] * (level.joined - smooth[..., :3])
        start = np.where(level.known[..., None], level.image, smooth)
    size = level.known.size
    turns = next((turns for largest, turns in TURNS.items() if size <= largest), 1)
    stride = 1 if size <= EXACT else 2 if size <= EVERY_OTHER else None
    voted, found, origin = complete(
        start.reshape(-1, start.shape[2]),
        hole,
        np.full(size // 4, -1, np.int32) if coarse is None else coarse,
        coarse is None,
        turns,
        scale == 0,
        guidance_of(level, guide, scale),
        width=width,
        stride=stride,
    )
    found = np.array(found)
    if scale:  # for the next level
        beyond = ndimage.maximum_filter(unknown, PATCH) & ~targets & ~sources
        found = extended(found.reshape(targets.shape), targets, beyond, nearest).ravel()
    return np.array(voted).reshape(level.image.shape), found, np.asarray(origin)


def extended(
    found: Int[np.ndarray, "H W"],
    targets: Bool[np.ndarray, "H W"],
    beyond: Bool[np.ndarray, "H W"],
    nearest: Int[np.ndarray, "H W"],
) -> Int[np.ndarray, "H W"]:
    """Return the sources with more of them, for patches of the hole that reach beyond the image.

    They continue the source of the nearest target. On the next level there are targets closer to the border, which
    without a proposal would be compared only with the known patches next to the hole.
    """
    height, width = targets.shape
    y, x = np.nonzero(beyond)
    if not len(y) or not targets.any():
        return found
    to_y, to_x = ndimage.distance_transform_edt(~targets, return_distances=False, return_indices=True)[:, y, x]
    source_y, source_x = np.divmod(found[to_y, to_x], width)
    source_y, source_x = np.clip(source_y + y - to_y, 0, height - 1), np.clip(source_x + x - to_x, 0, width - 1)
    found[y, x] = nearest[source_y, source_x]
    return found


def guidance_of(level: Level, guide: Guide | None, scale: int) -> Guidance:
    """Let low frequencies lean to the smooth fill, less the more a guide is trusted."""
    size = level.known.size
    features, pictures = np.zeros((size, 0)), [level.smooth[..., :3]]
    sigmas, shares = [SMOOTH / 2**scale], [LEAN if scale else 0.0]
    if guide is not None:
        bands = range(len(guide.trusts))
        features = (np.sqrt(guide.trust) * level.fitted).reshape(size, 3)
        pictures += [level.joined for _ in bands]
        sigmas += [BLUR * guide.step * 2.0 ** (k - scale) for k in bands]
        shares = [shares[0] * (1 - guide.trusts[-1]), *np.diff(guide.trusts, prepend=0)]
    return Guidance(
        np.asarray(features, np.float32),
        np.reshape(pictures, (-1, size, 3)).astype(np.float32),
        np.maximum(sigmas, 1e-2).astype(np.float32),
        np.asarray(shares, np.float32),
    )


def indices(mask: Bool[np.ndarray, "H W"]) -> Int[np.ndarray, " N"]:
    """Return the indices of a mask's pixels, padded with the number of all pixels."""
    flat = np.flatnonzero(mask)
    return np.pad(flat, (0, mask.size - flat.size), constant_values=mask.size).astype(np.int32)

"""Fills a hole in a photograph: a guide says what belongs there, patches of the photograph say how it looks.

The fill minimises the distance of every patch that touches the hole to its nearest patch of the known part, level by
level of a pyramid, by turns of search and vote (Wexler, Shechtman and Irani, "Space-Time Completion of Video", PAMI
2007). Coarse levels are searched exhaustively, by matrix products; finer ones around what the coarser level found.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8
from PIL import Image
from scipy import ndimage

PATCH = 7  # pixels a side, on every level
RADIUS = PATCH // 2
EXACT = 128 * 128  # pixels of the largest level that is searched exhaustively
CHUNK = 256  # patches compared at once
FADE = 1.3  # a vote counts less by this factor for every pixel away from what is known
ITER = {"exact": 6, "fine": 3}
LOW = True
SIGMA = 0.5


def fill_hole(
    photograph: UInt8[np.ndarray, "H W 3"],
    hole: Bool[np.ndarray, "H W"],
    guide: UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """The photograph with its hole filled; outside of the hole it is the input, bit for bit.

    Args:
        photograph: What it shows in the hole is ignored.
        hole: True for pixels to fill. Several holes may be marked at once.
        guide: A coarse picture of the same view, from 0 to 255, of the known surroundings too: how well it shows
            these decides how far it is followed. Without one, the known part alone is continued.

    Raises:
        ValueError: If shapes do not fit, or nothing is known and there is no guide.
    """
    height, width = hole.shape
    if photograph.shape != (height, width, 3):
        raise ValueError(f"the hole's mask is {width} x {height} px, but the photograph has shape {photograph.shape}")
    if not hole.any():
        return photograph.copy()
    if hole.all():
        if guide is None:
            raise ValueError("the hole is the whole photograph: without a guide, nothing says what belongs there")
        filled = resize(np.asarray(guide, np.float32), height, width)
    else:
        filled = synthesise(photograph, hole, guide)
    return np.where(hole[..., None], np.clip(np.rint(filled), 0, 255).astype(np.uint8), photograph)


def resize(image, height, width):
    """Bicubic where it grows, averaged over areas where it shrinks."""
    grow = image.shape[0] <= height
    kind = Image.Resampling.BICUBIC if grow else Image.Resampling.BOX
    planes = [Image.fromarray(plane).resize((width, height), kind) for plane in np.float32(np.moveaxis(image, 2, 0))]
    return np.stack([np.asarray(p) for p in planes], -1)


def bucket(n):
    size = 64
    while size < n:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def membrane(image, known):
    """Smooth interpolation."""
    if known.all() or not known.any():
        return image
    h, w = known.shape
    if min(h, w) > 2:
        weight = known.astype(np.float32)
        hp, wp = h + h % 2, w + w % 2
        pad = lambda a: np.pad(a, ((0, hp - h), (0, wp - w)) + ((0, 0),) * (a.ndim - 2))
        sums = pad(image * weight[..., None]).reshape(hp // 2, 2, wp // 2, 2, -1).sum((1, 3))
        n = pad(weight).reshape(hp // 2, 2, wp // 2, 2).sum((1, 3))
        coarse = membrane(sums / np.maximum(n, 1)[..., None], n > 0)
        start = resize(coarse.astype(np.float32), hp, wp)[:h, :w]
    else:
        start = np.broadcast_to(image[known].mean(0), image.shape)
    out = np.where(known[..., None], image, start).astype(np.float32)
    for _ in range(30):
        padded = np.pad(out, ((1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
        out = np.where(known[..., None], image, mean).astype(np.float32)
    return out


class Level(NamedTuple):
    image: np.ndarray  # [h, w, 3]
    inside: np.ndarray
    known: np.ndarray


def pyramid(photograph, hole):
    height, width = hole.shape
    h, w = bucket(height), bucket(width)
    pad = ((0, h - height), (0, w - width))
    inside = np.pad(np.ones_like(hole), pad)
    known = inside & ~np.pad(hole, pad)
    image = np.pad(photograph.astype(np.float32), (*pad, (0, 0))) * known[..., None]
    levels = [Level(image, inside, known)]
    while True:
        four = lambda a: a.reshape(a.shape[0] // 2, 2, a.shape[1] // 2, 2, *a.shape[2:])
        last = levels[-1]
        if ndimage.distance_transform_edt(last.inside & ~last.known).max() <= 3 or min(last.known.shape) <= 16:
            return levels
        known = four(last.known).all((1, 3))
        image = four(last.image).mean((1, 3)) * known[..., None]
        inside = four(last.inside).all((1, 3))
        if sources_of(known).sum() < 64:
            return levels
        levels.append(Level(image, inside, known))


def sources_of(known):
    return ndimage.minimum_filter(known, PATCH, mode="constant", cval=False)


def targets_of(level):
    return sources_of(level.inside) & ~sources_of(level.known)


def synthesise(photograph, hole, guide):
    levels = pyramid(photograph, hole)
    if not sources_of(levels[0].known).any():
        return membrane(photograph.astype(np.float32), ~hole)
    height, width = hole.shape
    fields = None
    if guide is not None:
        fields = fit_guide(photograph, hole, np.asarray(guide, np.float32))
    nn = None
    for k, level in reversed(list(enumerate(levels))):
        h, w = level.known.shape
        n = h * w
        scale = 2**k
        gl = np.zeros_like(level.image)
        hole_l = level.inside & ~level.known
        if fields is not None:
            full = resize(fields.fitted, height, width) if scale == 1 else resize(fields.fitted, -(-height // scale), -(-width // scale))
            full = full[: h, : w]
            gl[: full.shape[0], : full.shape[1]] = full
            if fields.weight < 1e-3: gl[:] = 0
        sources, targets = sources_of(level.known), targets_of(level)
        if nn is None:
            if fields is not None:
                image = np.where(level.known[..., None], level.image, gl)
            else:
                image = membrane(level.image, level.known | ~level.inside) if False else membrane(level.image, level.known)
        else:
            image = level.image
        nearest = ndimage.distance_transform_edt(~sources, return_distances=False, return_indices=True)
        nearest = (nearest[0] * w + nearest[1]).astype(np.int32).ravel()
        dist = ndimage.distance_transform_edt(~level.known)
        confidence = np.where(targets, FADE ** -np.minimum(dist, 60.0), 0).astype(np.float32).ravel()
        low = {}
        corr = None
        if fields is not None and LOW:
            corr = fields.operators(level, h, w, k)
        t = padded_indices(targets)
        p = padded_indices(hole_l)
        exact = n <= EXACT
        image, nn = _level(
            jnp.asarray(image.reshape(n, 3)), jnp.asarray((gl * np.sqrt(fields.weight if fields else 0)).reshape(n, 3).astype(np.float32)),
            t, int(targets.sum()), p, int(hole_l.sum()), sources.ravel(), nearest, confidence, nn, corr,
            h=h, w=w, exact=exact, iterations=ITER["exact" if exact else "fine"], guided=guide is not None, first=nn is None)
    return np.asarray(image).reshape(h, w, 3)[:height, :width]


def padded_indices(mask):
    flat = np.flatnonzero(mask)
    return np.pad(flat, (0, mask.size - flat.size), constant_values=mask.size).astype(np.int32)


class Fields(NamedTuple):
    fitted: np.ndarray
    cloned: np.ndarray
    weight: float
    bands: list
    shape: tuple

    def operators(self, level, h, w, k):
        """Per scale, matrices that smooth rows and columns, with coefficients; and the picture to agree with."""
        gh, gw = self.cloned.shape[:2]
        height, width = self.shape
        lh, lw = -(-height // 2**k), -(-width // 2**k)
        ms, cs, prev = [], [], 0.0
        for j, a in enumerate(self.bands):
            my = smoothing(lh, max(gh >> j, 1), h)
            mx = smoothing(lw, max(gw >> j, 1), w)
            ms.append((my, mx)); cs.append(a - prev); prev = a
        picture = np.zeros((h, w, 3), np.float32)
        full = resize(self.cloned, lh, lw)
        lh, lw = min(lh, h), min(lw, w)
        picture[:lh, :lw] = full[:lh, :lw]
        return (jnp.asarray(np.stack([m[0] for m in ms])), jnp.asarray(np.stack([m[1] for m in ms])), jnp.asarray(np.array(cs, np.float32)), jnp.asarray(picture))


def smoothing(size, coarse, padded):
    m = np.zeros((padded, padded), np.float32)
    eye = np.eye(size, dtype=np.float32)[..., None]
    if coarse >= size:
        s = eye[..., 0]
    else:
        down = resize_rows(eye, coarse)
        s = resize_rows(down, size)[..., 0]
    k = min(size, padded)
    m[:k, :k] = s[:k, :k]
    return m


def resize_rows(a, rows):
    return resize_(a, rows, a.shape[1])


def resize_(image, height, width):
    kind = Image.Resampling.BICUBIC if height >= image.shape[0] else Image.Resampling.BOX
    return np.asarray(Image.fromarray(np.ascontiguousarray(image[..., 0]), "F").resize((width, height), kind))[..., None]


def fit_guide(photograph, hole, guide):
    gh, gw = guide.shape[:2]
    height, width = hole.shape
    share = resize((~hole).astype(np.float32)[..., None], gh, gw)
    photo = resize(photograph.astype(np.float32) * ~hole[..., None], gh, gw) / np.maximum(share, 1e-6)
    known = share[..., 0] > 0.999
    d = ndimage.distance_transform_edt(known)
    size = np.sqrt((~known).sum())
    near = np.where(known, np.exp(-((d / size) ** 2) / 2), 0)[..., None]
    mean = lambda a: (a * near).sum((0, 1)) / near.sum()
    mg, mp = mean(guide), mean(photo)
    gain = (mean((guide - mg) * (photo - mp)) + 9) / (mean((guide - mg) ** 2) + 9)
    fitted = (guide - mg) * np.clip(gain, 0.5, 2) + mp
    residual = (photo - fitted) * known[..., None]
    weight = 1 - mean(residual**2).sum() / (mean((photo - mp) ** 2).sum() + 3)
    cloned = fitted + membrane(residual, known)
    bands = []
    composite = np.where(known[..., None], photo, fitted)
    smooth = lambda a, j: resize(resize(a, max(gh >> j, 1), max(gw >> j, 1)), gh, gw)
    for j in range(4):
        band = lambda a: smooth(a, j) - smooth(a, j + 1) if j < 3 else smooth(a, j)
        total = mean((band(composite) - (mp if j == 3 else 0)) ** 2).sum()
        bands.append(float(np.clip(1 - mean(band(residual) ** 2).sum() / (total + 1), 0, 1)))
    return Fields(fitted, cloned, float(np.clip(weight, 0, 1)), bands, (height, width))


@partial(jax.jit, static_argnames=("h", "w", "exact", "guided", "first"))
def _level(image, guide, targets, count, pixels, n_pixels, sources, nearest, confidence, coarse, corr, *, h, w, exact, iterations, guided, first):
    n = h * w
    offsets = (jnp.arange(-RADIUS, RADIUS + 1)[:, None] * w + jnp.arange(-RADIUS, RADIUS + 1)).ravel()

    def stack_of(image):
        return jnp.concatenate([image, guide], 1) if guided else image

    def search_exact(image, nn):
        stack = stack_of(image)
        stack = stack - stack.mean(0)
        c = stack.shape[1]
        src = jnp.stack([jnp.roll(stack, -o, 0) for o in offsets], 1).reshape(n, PATCH * PATCH * c)
        norm = jnp.where(sources, (src**2).sum(1), jnp.inf)
        src_t = src.T

        def chunk(i, state):
            nn, dd = state
            t = lax.dynamic_slice(targets, (i * CHUNK,), (CHUNK,))
            f = stack[jnp.minimum(t, n - 1)[:, None] + offsets].reshape(CHUNK, -1)
            d = norm - 2 * jnp.dot(f, src_t, precision=lax.Precision.HIGHEST)
            best = jnp.argmin(d, 1).astype(jnp.int32)
            dist = jnp.take_along_axis(d, best[:, None], 1)[:, 0] + (f**2).sum(1)
            return nn.at[t].set(best, mode="drop"), dd.at[t].set(dist, mode="drop")

        return lax.fori_loop(0, (count + CHUNK - 1) // CHUNK, chunk, (nn, jnp.zeros(n)))

    def parents(t, radius):
        y, x = t // w, t % w
        cands = []
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                qy, qx = jnp.clip(y // 2 + dy, 0, h // 2 - 1), jnp.clip(x // 2 + dx, 0, w // 2 - 1)
                s = coarse[qy * (w // 2) + qx]
                cy = jnp.clip(2 * (s // (w // 2)) + y - 2 * qy, 0, h - 1)
                cx = jnp.clip(2 * (s % (w // 2)) + x - 2 * qx, 0, w - 1)
                cands.append(nearest[jnp.where(s < 0, t, cy * w + cx)])
        return jnp.stack(cands, 1)

    def search_fine(image, nn):
        stack = stack_of(image)

        def distances(f, cands):
            return ((stack[cands[..., None] + offsets] - f[:, None]) ** 2).sum((-1, -2))

        def pick(f, cands):
            d = distances(f, cands)
            b = jnp.argmin(d, 1)[:, None]
            return jnp.take_along_axis(cands, b, 1)[:, 0], jnp.take_along_axis(d, b, 1)[:, 0]

        def chunk(i, state):
            nn, dd = state
            t = lax.dynamic_slice(targets, (i * CHUNK,), (CHUNK,))
            tc = jnp.minimum(t, n - 1)
            f = stack[tc[:, None] + offsets]
            best, _ = pick(f, jnp.concatenate([nn[tc][:, None], parents(tc, 1)], 1))
            y, x = best // w, best % w
            window = [nearest[jnp.clip(y + dy, 0, h - 1) * w + jnp.clip(x + dx, 0, w - 1)] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            best, dist = pick(f, jnp.stack(window, 1))
            return nn.at[t].set(best, mode="drop"), dd.at[t].set(dist, mode="drop")

        return lax.fori_loop(0, (count + CHUNK - 1) // CHUNK, chunk, (nn, jnp.zeros(n)))

    def vote(image, nn, weights):
        def chunk(i, out):
            p = lax.dynamic_slice(pixels, (i * CHUNK,), (CHUNK,))
            centres = jnp.minimum(p, n - 1)[:, None] - offsets
            source = nn[centres] + offsets
            weight = weights[centres]
            colour = (image[source] * weight[..., None]).sum(1) / jnp.maximum(weight.sum(1), 1e-30)[:, None]
            return out.at[p].set(colour, mode="drop")

        return lax.fori_loop(0, (n_pixels + CHUNK - 1) // CHUNK, chunk, image)

    def correct(image):
        my, mx, coefficients, picture = corr
        residual = picture - image.reshape(h, w, 3)
        is_hole = (jnp.zeros(n, bool).at[pixels].set(True, mode="drop")).reshape(h, w, 1)
        out = jnp.zeros_like(residual)
        residual = jnp.where(is_hole, residual, 0)
        for j in range(my.shape[0]):
            out += coefficients[j] * jnp.einsum("yh,hwc,xw->yxc", my[j], residual, mx[j])
        return jnp.where(is_hole, image.reshape(h, w, 3) + out, image.reshape(h, w, 3)).reshape(n, 3)

    is_target = confidence > 0
    if first:
        nn = nearest
    else:
        nn = jnp.where(is_target, parents(jnp.arange(n), 0)[:, 0], -1)
        image = vote(image, nn, confidence)
        if corr is not None:
            image = correct(image)
    def turn(_, state):
        image, nn = state
        nn, d = (search_exact if exact else search_fine)(image, nn)
        sigma = jnp.sum(jnp.where(is_target, d, 0)) / count * SIGMA + 1e-3
        weights = confidence * jnp.exp(-jnp.maximum(d, 0) / (2 * sigma))
        image = vote(image, nn, weights)
        if corr is not None:
            image = correct(image)
        return image, nn

    image, nn = lax.fori_loop(0, iterations, turn, (image, nn))
    return image, jnp.where(is_target, nn, -1)

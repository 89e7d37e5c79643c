// Placements: x' = scale * x + offset, along x and y, in pixels of a displayed image.

/** @typedef {{scale: [number, number], offset: [number, number]}} Placement */
/** @typedef {import("./mask.js").Box} Box */

/** @type {Placement} */
export const STAYS = { scale: [1, 1], offset: [0, 0] };

const pair = (/** @type {(i: number) => number} */ at) => /** @type {[number, number]} */ ([at(0), at(1)]);

/** Scale about an anchor, then shift. @returns {Placement} */
export const place = (scale, anchor, shift) => ({
  scale: pair((i) => scale[i]),
  offset: pair((i) => anchor[i] - scale[i] * anchor[i] + shift[i]),
});

/** Compose two placements. @param {Placement} first @param {Placement} next @returns {Placement} */
export const then = (first, next) => ({
  scale: pair((i) => first.scale[i] * next.scale[i]),
  offset: pair((i) => next.scale[i] * first.offset[i] + next.offset[i]),
});

/** @param {Placement} placement @param {[number, number]} point */
export const apply = ({ scale, offset }, point) => pair((i) => scale[i] * point[i] + offset[i]);

/** @param {Placement} placement @param {[number, number]} point */
export const back = ({ scale, offset }, point) => pair((i) => (point[i] - offset[i]) / scale[i]);

/** @param {Placement} placement @param {Box} box @returns {Box} */
export function boxOf(placement, { left, top, right, bottom }) {
  const [[x0, y0], [x1, y1]] = [apply(placement, [left, top]), apply(placement, [right, bottom])];
  return { left: x0, top: y0, right: x1, bottom: y1 };
}

/** The box around boxes. @param {Box[]} boxes @returns {Box?} */
export function union(boxes) {
  if (!boxes.length) return null;
  const all = (name, pick) => pick(...boxes.map((box) => box[name]));
  const [left, top] = [all("left", Math.min), all("top", Math.min)];
  return { left, top, right: all("right", Math.max), bottom: all("bottom", Math.max) };
}

/** @param {Box} box @returns {[number, number]} */
export const middle = ({ left, top, right, bottom }) => [(left + right) / 2, (top + bottom) / 2];

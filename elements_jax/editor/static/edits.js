// What an edit does to pixels, before the server is asked: elements_jax/edits.py, in the same float32 steps.

/** @typedef {import("./canvas.js").Canvas} Canvas */
/**
 * x' = anchor + scale * (x - anchor) + by, each (x, y), in units of the side.
 * @typedef {{scale: number[], by: number[], anchor: number[]}} Transform
 */

const f = Math.fround;

/** As NumPy rounds: halves to even. @param {number} v */
export function round(v) {
  const r = Math.round(v);
  return r - v === 0.5 && r % 2 ? r - 1 : r;
}

/** @param {number | number[] | undefined} scale @returns {number[]} */
export const pair = (scale) => (Array.isArray(scale) ? scale : [scale ?? 1, scale ?? 1]);

/**
 * The geometry of an edit, of a move, resize, duplicate or compose.
 * @param {object} edit @param {Canvas} source the picture whose elements it takes @returns {Transform}
 */
export function transformOf(edit, source) {
  const box = edit.anchor ? null : source.box(edit.elements);
  const centre = box && [(box.left + box.right) / (2 * source.size), (box.top + box.bottom) / (2 * source.size)];
  return { scale: pair(edit.scale), by: edit.by ?? [0, 0], anchor: edit.anchor ?? centre ?? [0, 0] };
}

/**
 * For each pixel along an axis the one that comes to lie there, -1 where none does: `_source_pixels`.
 * @param {number} size @param {number} scale @param {number} by @param {number} anchor
 */
function sourcePixels(size, scale, by, anchor) {
  const [s, shift, a] = [f(scale), round(f(f(by) * size)), f(f(anchor) * size)];
  return Int32Array.from({ length: size }, (_, i) => {
    const source = Math.floor(f(f(f(f(i + 0.5 - shift) - a) / s) + a));
    return source >= 0 && source < size ? source : -1;
  });
}

/**
 * Calls visit(target, source) for each pixel that an edit fills, with the pixel it is copied from.
 * @param {Canvas} source @param {Uint8Array} selected @param {Transform} transform
 * @param {(target: number, source: number) => void} visit
 */
export function eachArrival(source, selected, { scale, by, anchor }, visit) {
  const { size, labels } = source;
  const columns = sourcePixels(size, scale[0], by[0], anchor[0]);
  const rows = sourcePixels(size, scale[1], by[1], anchor[1]);
  for (let y = 0; y < size; y++) {
    if (rows[y] < 0) continue;
    const from = rows[y] * size;
    for (let x = 0; x < size; x++) {
      const i = from + columns[x];
      if (columns[x] >= 0 && selected[labels[i]]) visit(y * size + x, i);
    }
  }
}

/** Elements on their way: what each frame of a drag shows. Made once for a gesture, so that a frame is one pass. */
export class Preview {
  /**
   * @param {Canvas} base where they arrive @param {Canvas} source where they are from
   * @param {Iterable<number>} elements @param {boolean} stay whether they also remain where they are, as copies do
   */
  constructor(base, source, elements, stay) {
    this.base = base;
    this.source = source;
    this.selected = source.flags(elements);
    this.leaving = stay ? base.flags([]) : this.selected;
    /** The picture without what leaves. */
    this.rest = base.pixels.slice();
    for (let i = 0; i < this.rest.length; i++) if (this.leaving[base.labels[i]]) this.rest[i] = 0;
    this.pixels = this.rest.slice();
    this.arrived = new Uint8Array(this.rest.length);
  }

  /**
   * Put `pixels` and `arrived` (where they come to lie) to a place.
   * @param {Transform} transform @param {number} tolerance
   * @returns {number[]} what they collide with: the elements that will be deleted
   */
  place(transform, tolerance) {
    const { base, source, pixels, arrived } = this;
    const covered = new Uint32Array(base.count + 1);
    pixels.set(this.rest);
    arrived.fill(0);
    eachArrival(source, this.selected, transform, (target, from) => {
      pixels[target] = source.pixels[from];
      arrived[target] = 1;
      covered[base.labels[target]]++;
    });
    return [...base.elements.keys()].filter((n) => {
      const share = f(covered[n] / Math.max(base.area[n], 1));
      return !this.leaving[n] && covered[n] > 0 && (share > f(tolerance) || share >= 1);
    });
  }
}

/**
 * The numbers under which the elements of a duplicate or compose edit arrived in the canvas after it.
 * @param {object} edit @param {Canvas} source @param {Canvas} after
 */
export function arrivals(edit, source, after) {
  const numbers = new Set();
  eachArrival(source, source.flags(edit.elements), transformOf(edit, source), (target) => {
    if (after.labels[target] !== after.count) numbers.add(after.labels[target]);
  });
  return numbers;
}

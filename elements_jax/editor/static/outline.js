// Lines between pixels, as paths in pixel coordinates.

/**
 * The pixel edges at which `differ(a, b)` holds for the labels on both sides; `outside` is the label beyond the border.
 * @param {Uint16Array} labels @param {number} size @param {number} outside
 * @param {(a: number, b: number) => unknown} differ
 */
export function edges(labels, size, outside, differ) {
  const path = new Path2D();
  const at = (x, y) => (x < 0 || y < 0 || x >= size || y >= size ? outside : labels[y * size + x]);
  for (let line = 0; line <= size; line++) {
    run(size, (x) => differ(at(x, line - 1), at(x, line)), (start, end) => {
      path.moveTo(start, line);
      path.lineTo(end, line);
    });
    run(size, (y) => differ(at(line - 1, y), at(line, y)), (start, end) => {
      path.moveTo(line, start);
      path.lineTo(line, end);
    });
  }
  return path;
}

/** Calls each(start, end) for each stretch of [0, length) where `holds`. */
function run(length, holds, each) {
  let start = -1;
  for (let i = 0; i <= length; i++) {
    const on = i < length && holds(i);
    if (on && start < 0) start = i;
    if (!on && start >= 0) {
      each(start, i);
      start = -1;
    }
  }
}

/** The lines between all elements. @param {import("./canvas.js").Canvas} canvas */
export const boundaries = ({ labels, size, count }) =>
  edges(labels, size, count + 1, (a, b) => a !== b && a <= count && b <= count);

/** The line around a selection. @param {import("./canvas.js").Canvas} canvas @param {Iterable<number>} numbers */
export function around(canvas, numbers) {
  const flags = canvas.flags(numbers);
  return edges(canvas.labels, canvas.size, canvas.count, (a, b) => flags[a] !== flags[b]);
}

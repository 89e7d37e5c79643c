// A canvas: the elements of one picture, the pixels they cover, and the picture itself.

/** @typedef {{x: number, y: number, width: number, height: number}} Position centroid and size, in units of the side */
/** @typedef {{left: number, top: number, right: number, bottom: number}} Box in pixels */

export class Canvas {
  /**
   * @param {number} size pixels a side
   * @param {number} count elements, live or not; the label of a pixel that none covers
   * @param {Map<number, Position>} elements the live ones by number
   * @param {Uint16Array} labels of each pixel, row by row
   * @param {Uint32Array<ArrayBuffer>} pixels RGBA, transparent at holes
   */
  constructor(size, count, elements, labels, pixels) {
    this.size = size;
    this.count = count;
    this.elements = elements;
    this.labels = labels;
    this.pixels = pixels;
    /** Pixels of each element, and last those of none. */
    this.area = new Uint32Array(count + 1);
    for (const label of labels) this.area[label]++;
  }

  /**
   * From the server's answer.
   * @param {{size: number, elements: object[], label_map: string, preview: string}} answer
   * @param {number} count
   * @param {Uint16Array} [start] labels before any edit: what no element covered then is part of the photograph, no hole
   */
  static async read(answer, count, start) {
    const bytes = Uint8Array.from(atob(answer.label_map), (c) => c.charCodeAt(0));
    const labels = new Uint16Array(answer.size ** 2);
    for (let i = 0; i < labels.length; i++) labels[i] = bytes[2 * i] | (bytes[2 * i + 1] << 8);
    const pixels = await readPixels(answer.preview, answer.size);
    const whole = start ?? labels;
    for (let i = 0; i < labels.length; i++) if (labels[i] === count && whole[i] !== count) pixels[i] = 0;
    const elements = new Map(answer.elements.map(({ number, ...position }) => [number, position]));
    return new Canvas(answer.size, count, elements, labels, pixels);
  }

  /** The element at a pixel, or null. @param {number} x @param {number} y */
  at(x, y) {
    const column = Math.floor(x);
    const row = Math.floor(y);
    if (column < 0 || row < 0 || column >= this.size || row >= this.size) return null;
    const label = this.labels[row * this.size + column];
    return label === this.count ? null : label;
  }

  /** A flag for every label. @param {Iterable<number>} numbers */
  flags(numbers) {
    const flags = new Uint8Array(this.count + 1);
    for (const n of numbers) flags[n] = 1;
    return flags;
  }

  /** The box around elements, null where none has a pixel. @param {Iterable<number>} numbers @returns {Box?} */
  box(numbers) {
    const flags = this.flags(numbers);
    let [left, top, right, bottom] = [this.size, this.size, 0, 0];
    for (let y = 0, i = 0; y < this.size; y++) {
      for (let x = 0; x < this.size; x++, i++) {
        if (!flags[this.labels[i]]) continue;
        if (x < left) left = x;
        if (x >= right) right = x + 1;
        if (y < top) top = y;
        bottom = y + 1;
      }
    }
    return right ? { left, top, right, bottom } : null;
  }

  /** The elements of which more than half lies under a mask, the rule for objects too. @param {(i: number) => boolean} mask */
  under(mask) {
    const covered = new Uint32Array(this.count + 1);
    for (let i = 0; i < this.labels.length; i++) if (mask(i)) covered[this.labels[i]]++;
    return [...this.elements.keys()].filter((n) => covered[n] > this.area[n] / 2);
  }
}

/** @param {string} url @param {number} size */
async function readPixels(url, size) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return new Uint32Array(context.getImageData(0, 0, size, size).data.buffer);
}

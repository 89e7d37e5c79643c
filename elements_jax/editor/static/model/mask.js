// Masks: sets of pixels of a displayed image.

/** @typedef {{left: number, top: number, right: number, bottom: number}} Box in pixels; right and bottom are exclusive */

export class Mask {
  /** @type {Box?} */ #box;
  /** @type {Path2D?} */ #outline = null;
  /** @type {Path2D?} */ #filled = null;
  /** @type {number?} */ #checksum = null;
  /** @type {WeakMap<object, OffscreenCanvas>} */ #cut = new WeakMap();

  /** @param {number} width @param {number} height @param {Uint8Array} data 0 to 255 for each pixel, row by row */
  constructor(width, height, data) {
    this.width = width;
    this.height = height;
    this.data = data;
  }

  /** Read the red channel of an image. @param {string} url @param {[number, number]} size */
  static async read(url, [width, height]) {
    const image = new Image();
    image.src = url;
    await image.decode();
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, width, height);
    return Mask.from(context, 0);
  }

  /** Take one channel of a canvas. @param {OffscreenCanvasRenderingContext2D} context */
  static from(context, channel = 3) {
    const { width, height } = context.canvas;
    const pixels = context.getImageData(0, 0, width, height).data;
    const data = new Uint8Array(width * height);
    for (let i = 0; i < data.length; i++) data[i] = pixels[4 * i + channel];
    return new Mask(width, height, data);
  }

  /** Make a mask of what `draw` draws on an empty canvas. @param {[number, number]} size @param {(context: OffscreenCanvasRenderingContext2D) => void} draw */
  static drawn([width, height], draw) {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    draw(context);
    return Mask.from(context);
  }

  /** @param {[number, number]} size @param {(i: number) => boolean} inside tests a pixel index */
  static where([width, height], inside) {
    const data = new Uint8Array(width * height);
    for (let i = 0; i < data.length; i++) if (inside(i)) data[i] = 255;
    return new Mask(width, height, data);
  }

  /** @param {number} x @param {number} y */
  has(x, y) {
    const [column, row] = [Math.floor(x), Math.floor(y)];
    if (column < 0 || row < 0 || column >= this.width || row >= this.height) return false;
    return this.data[row * this.width + column] > 127;
  }

  /** The bounding box, null if the mask is empty. @returns {Box?} */
  get box() {
    if (this.#box === undefined) this.#box = this.#findBox();
    return this.#box;
  }

  #findBox() {
    const { width, height, data } = this;
    let [left, top, right, bottom] = [width, height, 0, 0];
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        if (data[i] <= 127) continue;
        if (x < left) left = x;
        if (x >= right) right = x + 1;
        if (y < top) top = y;
        bottom = y + 1;
      }
    }
    return right ? { left, top, right, bottom } : null;
  }

  /** The number of pixels. */
  get area() {
    let area = 0;
    for (const value of this.data) if (value > 127) area++;
    return area;
  }

  /** Equal for masks of the same pixels (FNV-1a). */
  get checksum() {
    if (this.#checksum === null) {
      let hash = 0x811c9dc5;
      for (let i = 0; i < this.data.length; i++) if (this.data[i] > 127) hash = Math.imul(hash ^ i, 0x01000193);
      this.#checksum = hash >>> 0;
    }
    return this.#checksum;
  }

  /** @param {Mask} other */
  or(other) {
    return new Mask(this.width, this.height, this.data.map((value, i) => Math.max(value, other.data[i])));
  }

  /** @param {Mask} other */
  and(other) {
    return new Mask(this.width, this.height, this.data.map((value, i) => (other.data[i] > 127 ? value : 0)));
  }

  /** Subtract another mask; returns this same mask if they do not overlap. @param {Mask} other */
  without(other) {
    if (!this.data.some((value, i) => value > 127 && other.data[i] > 127)) return this;
    return new Mask(this.width, this.height, this.data.map((value, i) => (other.data[i] > 127 ? 0 : value)));
  }

  /** The outline, along pixel edges. */
  get outline() {
    this.#outline ??= this.box ? edges(this, this.box) : new Path2D();
    return this.#outline;
  }

  /** The area as a path. */
  get filled() {
    this.#filled ??= this.box ? rows(this, this.box) : new Path2D();
    return this.#filled;
  }

  /** The pixels of an image under the mask, cropped to its box. @param {CanvasImageSource & object} picture */
  cut(picture) {
    let canvas = this.#cut.get(picture);
    if (!canvas) {
      const { left, top, right, bottom } = this.box;
      canvas = new OffscreenCanvas(right - left, bottom - top);
      const context = canvas.getContext("2d");
      context.drawImage(this.alpha(), -left, -top);
      context.globalCompositeOperation = "source-in";
      context.drawImage(picture, -left, -top);
      this.#cut.set(picture, canvas);
    }
    return canvas;
  }

  /** A canvas that is opaque on the mask. */
  alpha() {
    const { width, height, data } = this;
    const image = new ImageData(width, height);
    const words = new Uint32Array(image.data.buffer);
    for (let i = 0; i < data.length; i++) words[i] = (data[i] << 24) | 0xffffff;
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  /** The mask as scripts use it: a PNG that is opaque on the object. */
  png() {
    return this.alpha().convertToBlob({ type: "image/png" });
  }
}

/** @param {Mask} mask @param {Box} box */
function edges({ width, height, data }, { left, top, right, bottom }) {
  const path = new Path2D();
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && data[y * width + x] > 127;
  for (let y = top; y <= bottom; y++) {
    runs(left, right, (x) => inside(x, y - 1) !== inside(x, y), (start, end) => {
      path.moveTo(start, y);
      path.lineTo(end, y);
    });
  }
  for (let x = left; x <= right; x++) {
    runs(top, bottom, (y) => inside(x - 1, y) !== inside(x, y), (start, end) => {
      path.moveTo(x, start);
      path.lineTo(x, end);
    });
  }
  return path;
}

/** @param {Mask} mask @param {Box} box */
function rows({ width, data }, { left, top, right, bottom }) {
  const path = new Path2D();
  for (let y = top; y < bottom; y++) {
    runs(left, right, (x) => data[y * width + x] > 127, (start, end) => path.rect(start, y, end - start, 1));
  }
  return path;
}

/** Calls each(start, end) for each stretch of [first, last) where `holds`. */
function runs(first, last, holds, each) {
  let start = -1;
  for (let i = first; i <= last; i++) {
    const on = i < last && holds(i);
    if (on && start < 0) start = i;
    if (!on && start >= 0) {
      each(start, i);
      start = -1;
    }
  }
}

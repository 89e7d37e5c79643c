// One picture on the screen with what is drawn over it. It shows what it is given, and knows nothing of edits.

import { COLOURS, cased, crosses, dots, hatched, sign, squares } from "./drawing.js";
import { around, boundaries } from "./outline.js";

/**
 * @typedef {import("./canvas.js").Canvas} Canvas
 * @typedef {import("./canvas.js").Box} Box
 * @typedef {import("./drawing.js").Point} Point
 * @typedef {{base: Canvas, pixels: Uint32Array<ArrayBuffer>, arrived: Uint8Array, doomed: number[], outline: Path2D, sources: Point[],
 *            targets: Point[]}} Underway what a gesture shows while it lasts
 * @typedef {{sources: Point[], targets: Point[], deleted: Point[]}} Marks what the last gesture did
 */

const LARGE = 4; // from this many screen pixels per picture pixel on, each takes a whole number of them

export class Stage {
  /** @type {Canvas?} */ canvas = null;
  /** @type {Set<number>} */ selection = new Set();
  /** @type {Underway?} */ underway = null;
  /** @type {Marks?} */ marks = null;
  /** @type {Path2D?} a box or lasso being drawn */ region = null;
  points = { positive: /** @type {Point[]} */ ([]), negative: /** @type {Point[]} */ ([]) };
  overlay = true;
  handles = false;
  /** Screen pixels per picture pixel. */
  k = 1;
  #outline = new Path2D();
  /** @type {Box?} */ #box = null;
  #frame = 0;
  #lines = null;

  /** @param {HTMLElement} root with three canvas elements in it: picture, lines and marks */
  constructor(root) {
    this.root = root;
    this.layers = [...root.querySelectorAll("canvas")].map((element) => element.getContext("2d"));
    new ResizeObserver(() => this.fit()).observe(root.parentElement);
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", () => this.fit());
  }

  /** A CSS pixel, in pixels of the picture. */
  get unit() {
    return devicePixelRatio / this.k;
  }

  /** The box around the selection. */
  get box() {
    return this.#box;
  }

  /** @param {Canvas} canvas */
  show(canvas) {
    const first = this.canvas?.size !== canvas.size;
    this.canvas = canvas;
    this.underway = null;
    this.#lines = null;
    this.select(this.selection);
    if (first) this.fit();
  }

  /** @param {Set<number>} selection of elements that are there */
  select(selection) {
    this.selection = selection;
    this.#outline = this.canvas ? around(this.canvas, selection) : new Path2D();
    this.#box = this.canvas ? this.canvas.box(selection) : null;
    this.draw();
  }

  /** The line around the selection. */
  get outline() {
    return this.#outline;
  }

  /** Where an event is, in pixels of the picture. @param {{clientX: number, clientY: number}} event @returns {Point} */
  pixel({ clientX, clientY }) {
    const { left, top } = this.root.getBoundingClientRect();
    return [(clientX - left) * this.unit, (clientY - top) * this.unit];
  }

  /** How large its place allows the picture to be, in CSS pixels, and whether its pixels show. */
  measure() {
    const { size } = this.canvas;
    const { clientWidth, clientHeight } = this.root.parentElement;
    const k = (Math.min(clientWidth, clientHeight) * devicePixelRatio) / size;
    this.k = k >= LARGE ? Math.floor(k) : Math.max(k, 0.1);
    return { size, side: Math.round(size * this.k) / devicePixelRatio, pixelated: this.k >= 2 };
  }

  /** As large as its place allows. */
  fit() {
    if (!this.canvas) return;
    const { size, side, pixelated } = this.measure();
    this.root.style.width = this.root.style.height = `${side}px`;
    this.root.classList.toggle("pixelated", pixelated);
    const [picture, ...over] = this.layers;
    picture.canvas.width = picture.canvas.height = size;
    for (const { canvas } of over) canvas.width = canvas.height = Math.round(side * devicePixelRatio);
    this.#lines = null;
    this.draw();
  }

  /** Draw with the next frame. */
  draw() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.canvas) this.#paint();
    });
  }

  #paint() {
    const { canvas, underway, unit, k } = this;
    const [picture, lines, over] = this.layers;
    const pixels = underway?.pixels ?? canvas.pixels;
    this.root.classList.toggle("underway", underway !== null); // boundaries would lie over what moves
    const bytes = new Uint8ClampedArray(pixels.buffer);
    picture.putImageData(new ImageData(bytes, canvas.size), 0, 0);
    this.#paintLines(lines);

    over.setTransform(1, 0, 0, 1, 0, 0);
    over.clearRect(0, 0, over.canvas.width, over.canvas.height);
    if (underway?.doomed.length) over.drawImage(hatched(this.#doomed(), over.canvas.width, devicePixelRatio), 0, 0);
    over.setTransform(k, 0, 0, k, 0, 0);
    if (this.region) {
      over.setLineDash([4 * unit, 4 * unit]);
      cased(over, this.region, "white", unit, 1);
      over.setLineDash([]);
    }
    if (this.handles && this.#box && !underway) {
      const frame = new Path2D();
      const { left, top, right, bottom } = this.#box;
      frame.rect(left, top, right - left, bottom - top);
      cased(over, frame, "white", unit, 1);
    }
    cased(over, underway?.outline ?? this.#outline, COLOURS.selection, unit);
    this.#paintMarks(over);
    if (this.handles && this.#box && !underway) squares(over, handlePoints(this.#box), unit);
    for (const at of this.points.positive) sign(over, at, true, unit);
    for (const at of this.points.negative) sign(over, at, false, unit);
  }

  /** Boundaries change with the canvas alone, and a gesture leaves them where they were. */
  #paintLines(/** @type {CanvasRenderingContext2D} */ lines) {
    const { canvas, unit, k, overlay } = this;
    if (this.#lines === overlay) return;
    this.#lines = overlay;
    lines.setTransform(1, 0, 0, 1, 0, 0);
    lines.clearRect(0, 0, lines.canvas.width, lines.canvas.height);
    if (!overlay) return;
    lines.setTransform(k, 0, 0, k, 0, 0);
    const path = boundaries(canvas);
    lines.strokeStyle = "rgb(0 0 0 / 0.3)";
    lines.lineWidth = 2 * unit;
    lines.stroke(path);
    lines.strokeStyle = COLOURS.boundary;
    lines.lineWidth = unit;
    lines.stroke(path);
    lines.fillStyle = "white";
    lines.strokeStyle = "rgb(0 0 0 / 0.5)";
    for (const [x, y] of centroids(canvas, canvas.elements.keys())) {
      lines.beginPath();
      lines.arc(x, y, 1.75 * unit, 0, 2 * Math.PI);
      lines.stroke();
      lines.fill();
    }
  }

  #paintMarks(/** @type {CanvasRenderingContext2D} */ over) {
    const { underway, marks, unit, canvas } = this;
    const { sources, targets } = underway ?? marks ?? { sources: centroids(canvas, this.selection), targets: [] };
    crosses(over, (underway ? null : marks)?.deleted ?? [], COLOURS.deleted, unit);
    dots(over, sources, COLOURS.source, unit);
    dots(over, targets, COLOURS.target, unit);
  }

  #doomed() {
    const { base: canvas, doomed, arrived } = this.underway;
    const flags = canvas.flags(doomed);
    const mask = new ImageData(canvas.size, canvas.size);
    const words = new Uint32Array(mask.data.buffer);
    for (let i = 0; i < words.length; i++) {
      if (flags[canvas.labels[i]] && !arrived[i]) words[i] = 0xff000000;
    }
    const image = new OffscreenCanvas(canvas.size, canvas.size);
    image.getContext("2d").putImageData(mask, 0, 0);
    return image;
  }
}

/** The eight handles of a box, clockwise from the top left. @param {Box} box @returns {Point[]} */
export function handlePoints({ left, top, right, bottom }) {
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  return [
    [left, top],
    [x, top],
    [right, top],
    [right, y],
    [right, bottom],
    [x, bottom],
    [left, bottom],
    [left, y],
  ];
}

/** @param {Canvas} canvas @param {Iterable<number>} numbers @returns {Point[]} */
export const centroids = ({ elements, size }, numbers) =>
  [...numbers].flatMap((n) => (elements.has(n) ? [[elements.get(n).x * size, elements.get(n).y * size]] : []));

// Shows an image and the drawings over it. It is independent of edits.

import { COLOURS, cased, handlePoints, ring, squares, stripes } from "./drawing.js";
import { boxOf, then } from "../model/placement.js";
import { boxAround } from "../model/scene.js";
import { Viewport, steer } from "./viewport.js";

/**
 * @typedef {import("../model/scene.js").Scene} Scene
 * @typedef {import("../model/scene.js").Layer} Layer
 * @typedef {{rest: Scene, pieces: Layer[], placement: import("../model/placement.js").Placement}} Underway the preview of a gesture
 * @typedef {{before: ImageBitmap, after: ImageBitmap, split: number}} Comparison
 */

const SHARP = 2; // from this many screen pixels per image pixel on, pixels are shown sharp
const BEYOND = 0.35; // opacity outside the image

export class Stage {
  /** @type {Scene?} */ scene = null;
  /** @type {Layer[]} the selection */ pieces = [];
  /** @type {Underway?} */ underway = null;
  /** @type {Comparison?} */ comparison = null;
  /** @type {Path2D?} a box or lasso being drawn */ region = null;
  /** @type {{canvas: OffscreenCanvas}?} a brush's strokes */ paint = null;
  /** @type {[number, number]?} where an object is being searched */ looking = null;
  /** @type {(scene: Scene) => ImageBitmap?} the preview of a scene's gaps */ gaps = () => null;
  handles = false;
  #frame = 0;

  /** @param {HTMLElement} root contains two canvas elements: image and marks */
  constructor(root) {
    this.root = root;
    [this.picture, this.over] = [...root.querySelectorAll("canvas")].map((each) => each.getContext("2d"));
    this.view = new Viewport(root);
    this.view.addEventListener("change", () => this.draw());
    steer(this.view, () => this.scene !== null);
  }

  /** The size of a CSS pixel in pixels of the image. */
  get unit() {
    return 1 / this.view.k;
  }

  /** The box around the selection. */
  get box() {
    return this.pieces.length ? boxAround(this.pieces) : null;
  }

  /** @param {Scene} scene */
  show(scene) {
    this.scene = scene;
    this.underway = null;
    this.view.show(scene.photo.shown);
    this.draw();
  }

  /** @param {Layer[]} pieces */
  select(pieces) {
    this.pieces = pieces;
    this.draw();
  }

  pixel(/** @type {{clientX: number, clientY: number}} */ event) {
    return this.view.pixel(event);
  }

  /** The position of the comparison's split, in CSS pixels of the stage. */
  get splitAt() {
    const { x, k, size, place } = this.view;
    const [left, right] = [Math.max(0, x), Math.min(place.clientWidth, x + size[0] * k)];
    return left + this.comparison.split * (right - left);
  }

  /** Draw with the next frame. */
  draw() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.scene) this.#paint();
    });
  }

  #paint() {
    const { clientWidth, clientHeight } = this.root;
    const ratio = devicePixelRatio;
    for (const { canvas } of [this.picture, this.over]) {
      const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    }
    const { k, x, y } = this.view;
    for (const context of [this.picture, this.over]) {
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, context.canvas.width, context.canvas.height);
      context.setTransform(k * ratio, 0, 0, k * ratio, x * ratio, y * ratio);
      context.imageSmoothingEnabled = k * ratio < SHARP;
      context.imageSmoothingQuality = "high";
    }
    if (this.comparison) this.#compare(ratio);
    else this.#edit(ratio);
  }

  #edit(/** @type {number} */ ratio) {
    const { picture, over, unit } = this;
    const scene = this.underway?.rest ?? this.scene;
    const moved = (this.underway?.pieces ?? []).map((each) => ({
      ...each,
      placement: then(each.placement, this.underway.placement),
    }));
    const layers = [...scene.layers, ...moved];
    const [width, height] = this.view.size;
    const frame = new Path2D();
    frame.rect(0, 0, width, height);
    picture.globalAlpha = BEYOND;
    for (const layer of layers) lay(picture, layer);
    picture.globalAlpha = 1;
    picture.clearRect(0, 0, width, height);
    picture.save();
    picture.clip(frame);
    const filled = this.gaps(scene);
    if (scene.lifted && !filled) {
      picture.fillStyle = "#8d939c";
      picture.fillRect(0, 0, width, height);
    }
    picture.drawImage(filled ? scene.photo.bitmap : scene.rest, 0, 0, width, height);
    if (filled) picture.drawImage(filled, 0, 0, width, height);
    else if (scene.lifted) this.#hatch(scene, ratio);
    for (const layer of layers) lay(picture, layer);
    picture.restore();

    if (this.paint) over.drawImage(this.paint.canvas, 0, 0);
    const shown = this.underway ? moved : this.pieces;
    for (const { mask, placement } of shown) {
      const outline = new Path2D();
      const { scale, offset } = placement;
      outline.addPath(mask.outline, new DOMMatrix([scale[0], 0, 0, scale[1], offset[0], offset[1]]));
      cased(over, outline, COLOURS.selection, unit);
    }
    if (this.region) {
      over.setLineDash([4 * unit, 4 * unit]);
      cased(over, this.region, "white", unit, 1);
      over.setLineDash([]);
    }
    const { box } = this;
    if (this.handles && box && !this.underway) {
      const around = new Path2D();
      around.rect(box.left, box.top, box.right - box.left, box.bottom - box.top);
      cased(over, around, "white", unit, 1);
      squares(over, handlePoints(box), unit);
    }
    if (this.looking) ring(over, this.looking, unit);
  }

  /** Stripes over the holes, with the same width on the screen at any zoom. */
  #hatch(/** @type {Scene} */ scene, /** @type {number} */ ratio) {
    const { picture } = this;
    picture.save();
    const pattern = picture.createPattern(stripes(ratio), "repeat");
    pattern.setTransform(picture.getTransform().inverse());
    picture.clip(scene.lifted.filled);
    picture.fillStyle = pattern;
    picture.fillRect(0, 0, ...scene.photo.shown);
    picture.restore();
  }

  #compare(/** @type {number} */ ratio) {
    const { picture, over } = this;
    const { before, after } = this.comparison;
    const [width, height] = this.view.size;
    const at = (this.splitAt - this.view.x) / this.view.k;
    picture.drawImage(after, 0, 0, width, height);
    picture.save();
    picture.beginPath();
    picture.rect(0, 0, at, height);
    picture.clip();
    picture.clearRect(0, 0, width, height);
    picture.drawImage(before, 0, 0, width, height);
    picture.restore();
    over.setTransform(ratio, 0, 0, ratio, 0, 0);
    const [top, bottom] = [Math.max(0, this.view.y), Math.min(this.root.clientHeight, this.view.y + height * this.view.k)];
    const line = new Path2D();
    line.moveTo(this.splitAt, top);
    line.lineTo(this.splitAt, bottom);
    cased(over, line, "white", 1, 2);
    squares(over, [[this.splitAt, (top + bottom) / 2]], 1.6);
  }
}

/** @param {CanvasRenderingContext2D} context @param {Layer} layer */
function lay(context, { picture, mask, placement }) {
  const { left, top, right, bottom } = boxOf(placement, mask.box);
  context.drawImage(mask.cut(picture.bitmap), left, top, right - left, bottom - top);
}

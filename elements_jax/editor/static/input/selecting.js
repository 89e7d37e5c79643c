// Turns clicks and shapes into selections: masks of the image, and their objects in scripts.

import { Mask } from "../model/mask.js";

/**
 * @typedef {import("../model/session.js").Session} Session
 * @typedef {import("../model/session.js").Picture} Picture
 * @typedef {import("../model/scene.js").Selection} Selection
 * @typedef {import("./pointing.js").Mode} Mode
 * @typedef {import("./pointing.js").Point} Point
 * @typedef {{mask: Mask, object: any}} Pixels
 */

/** The selection on one image; the page has one for each stage. */
export class Selecting {
  /**
   * @param {Session} session @param {import("../view/stage.js").Stage} stage
   * @param {{picture: () => Picture, selection: () => Selection?, select: (selection: Selection?) => void,
   *          say: (text: string) => void}} page
   */
  constructor(session, stage, page) {
    this.session = session;
    this.stage = stage;
    this.page = page;
  }

  /** The topmost layer there, if an edit put it there. @param {Point} at @returns {Selection?} */
  #layerAt(at) {
    const layer = this.stage.scene.layerAt(at);
    if (!layer) return null;
    if (layer.copy) return { edit: layer.made };
    const { object } = this.session.edits[layer.made];
    return { mask: layer.mask, object: this.session.isWhole(layer) ? object : null };
  }

  /** Select the topmost layer there, to drag it at once. @param {Point} at */
  grab(at) {
    const found = this.#layerAt(at);
    if (found) this.page.select(found);
    return found !== null;
  }

  /** @param {Point} at @param {Mode} mode @param {boolean} objects */
  async click(at, mode, objects) {
    const { scene } = this.stage;
    const size = scene.photo.shown;
    const layer = this.#layerAt(at);
    if (layer && (mode === "replace" || "edit" in layer)) return this.#done(layer, "Selected.");
    if (layer) return this.#combine(layer, mode);
    if (at.some((v, i) => v < 0 || v >= size[i])) return this.#done(null, "Nothing selected.");
    if (scene.isHole(at)) return this.#done(null, "A gap: it will be filled when you run.");
    const found = objects ? await this.#objectAt(at) : await this.#pieceAt(at);
    if (found) this.#combine(found, mode);
  }

  async #objectAt(/** @type {Point} */ at) {
    const picture = this.page.picture();
    const object = { point: at.map((v, i) => v / picture.shown[i]) };
    this.stage.looking = at;
    this.stage.draw();
    try {
      return await this.#found(object, picture);
    } finally {
      this.stage.looking = null;
      this.stage.draw();
    }
  }

  async #found(/** @type {any} */ object, /** @type {Picture} */ picture) {
    this.page.say("Finding the object …");
    const mask = await this.session.find(object, picture);
    if (picture === this.page.picture()) return { mask, object }; // otherwise another was opened meanwhile
  }

  async #pieceAt(/** @type {Point} */ at) {
    const picture = this.page.picture();
    if (!this.#labels) this.page.say("Segmenting the photograph into pieces …");
    const { width, height, numbers } = await this.session.pieces(picture);
    if (picture !== this.page.picture()) return null;
    const [w, h] = picture.shown;
    const index = (x, y) => Math.floor(((y + 0.5) * height) / h) * width + Math.floor(((x + 0.5) * width) / w);
    const wanted = numbers[index(Math.floor(at[0]), Math.floor(at[1]))];
    const mask = Mask.where([w, h], (i) => numbers[index(i % w, Math.floor(i / w))] === wanted);
    return { mask, object: null };
  }

  get #labels() {
    return this.page.picture().labels;
  }

  /** Select an object in a box. @param {Point} from @param {Point} to @param {Mode} mode */
  async box(from, to, mode) {
    const picture = this.page.picture();
    const side = (i) => [from[i], to[i]].map((v) => Math.min(1, Math.max(0, v / picture.shown[i]))).sort((a, b) => a - b);
    const [[left, right], [top, bottom]] = [side(0), side(1)];
    if (left === right || top === bottom) return this.#done(null, "Nothing selected.");
    const found = await this.#found({ box: [left, top, right, bottom] }, picture);
    if (found) this.#combine(found, mode);
  }

  /** Select everything inside a shape. @param {Path2D} shape @param {Mode} mode */
  lasso(shape, mode) {
    this.#combine({ mask: this.#drawn((context) => context.fill(shape)), object: null }, mode);
  }

  /** @param {(context: OffscreenCanvasRenderingContext2D) => void} draw */
  #drawn(draw) {
    const { scene } = this.stage;
    const mask = Mask.drawn(scene.photo.shown, draw);
    return scene.lifted ? mask.without(scene.lifted) : mask;
  }

  /** Brush strokes of a width, added to the selection or, with Alt, subtracted from it. @param {Point} at @param {Mode} mode @param {number} width */
  brush(at, mode, width) {
    const canvas = new OffscreenCanvas(...this.stage.scene.photo.shown);
    const context = canvas.getContext("2d");
    Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round" });
    const colour = mode === "subtract" ? "rgb(255 42 42 / 0.5)" : "rgb(255 235 60 / 0.5)";
    const points = [at, at];
    const show = () => {
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.strokeStyle = colour;
      context.stroke(line(points));
      this.stage.paint = { canvas };
      this.stage.draw();
    };
    const cancel = () => {
      this.stage.paint = null;
      this.stage.draw();
    };
    show();
    return {
      move: (/** @type {PointerEvent} */ event) => {
        points.push(this.stage.pixel(event));
        show();
      },
      finish: () => {
        cancel();
        const mask = this.#drawn((pen) => {
          Object.assign(pen, { lineWidth: width, lineCap: "round", lineJoin: "round" });
          pen.stroke(line(points));
        });
        this.#combine({ mask, object: null }, mode === "subtract" ? mode : "add");
      },
      cancel,
    };
  }

  /** @param {Pixels} found @param {Mode} mode */
  #combine(found, mode) {
    const old = this.page.selection();
    const pixels = old && "mask" in old ? old.mask : null;
    let next = found;
    if (mode === "add" && pixels) next = { mask: pixels.or(found.mask), object: null };
    if (mode === "subtract") {
      if (!pixels) return;
      next = { mask: pixels.without(found.mask), object: null };
    }
    if (!next.mask.box) return this.#done(null, mode === "subtract" ? "Nothing selected." : "No object found here.");
    const { left, top, right, bottom } = next.mask.box;
    const { width, shown } = this.page.picture();
    const [w, h] = [right - left, bottom - top].map((v) => Math.round((v * width) / shown[0]));
    this.#done(next, `Selected ${w} x ${h} px. Drag it, or press Delete.`);
  }

  #done(/** @type {Selection?} */ selection, /** @type {string} */ sentence) {
    this.page.select(selection);
    this.page.say(sentence);
  }
}

function line(/** @type {Point[]} */ points) {
  const path = new Path2D();
  for (const point of points) path.lineTo(...point);
  return path;
}

// A scene: the result of a script's edits on a photograph, as layers over holes. It follows the same rules as the
// server's `photograph/composition.py`, at the displayed resolution.

import { Mask } from "./mask.js";
import { STAYS, back, boxOf, middle, place, then, union } from "./placement.js";

/**
 * @typedef {import("./placement.js").Placement} Placement
 * @typedef {import("./session.js").Picture} Picture
 * @typedef {import("./session.js").Edit} Edit
 * @typedef {{mask: Mask, object: object?} | {edit: number}} Selection pixels of the photograph, or the object inserted by an edit
 * @typedef {{picture: Picture, mask: Mask, placement: Placement, made: number, copy: boolean}} Layer
 *   `made` is the index of the edit that made it
 * @typedef {{moved: Placement, around: import("./mask.js").Box}} Insertion the placement of an inserted object with the box `around`
 */

const TOUCH = 0.05; // masks with a smaller overlap only touch

export class Scene {
  /** @type {OffscreenCanvas?} */ #rest = null;

  /** @param {Picture} photo @param {Layer[]} layers from the lowest @param {Mask?} lifted pixels that left their place */
  constructor(photo, layers = [], lifted = null) {
    this.photo = photo;
    this.layers = layers;
    this.lifted = lifted;
    /** @type {Map<number, Insertion>} by the edit */ this.insertions = new Map();
  }

  /**
   * @param {Picture} photo @param {Edit[]} edits
   * @param {(edit: Edit) => {mask: Mask, picture: Picture}} select returns the selection of an edit, and its image
   */
  static of(photo, edits, select) {
    let scene = new Scene(photo);
    for (const [i, edit] of edits.entries()) scene = scene.#after(edit, i, select(edit));
    return scene;
  }

  /** @param {Edit} edit @param {number} i @param {{mask: Mask, picture: Picture}} what */
  #after(edit, i, { mask, picture }) {
    const composed = edit.edit === "compose";
    const copies = composed || edit.edit === "duplicate";
    const { pieces, rest } = composed
      ? { pieces: [{ picture, mask, placement: STAYS, made: i, copy: true }], rest: this }
      : this.take(mask, copies);
    const next = new Scene(this.photo, [...rest.layers], rest.lifted);
    next.insertions = new Map(this.insertions);
    if (edit.edit === "delete" || !pieces.length) return next;
    const around = boxAround(pieces);
    const moved = movedBy(edit, around, this.photo, picture);
    if (copies) next.insertions.set(i, { moved, around });
    next.layers.push(
      ...pieces.map((layer) => ({ ...layer, made: i, copy: copies, placement: then(layer.placement, moved) })),
    );
    return next;
  }

  /**
   * The layers of pixels of the photograph, wherever earlier edits have put them, and the scene without them.
   * @param {Mask} mask @param {boolean} [keep] whether they also stay, like the sources of copies
   */
  take(mask, keep = false) {
    const pieces = /** @type {Layer[]} */ ([]);
    const left = /** @type {Layer[]} */ ([]);
    let lifted = this.lifted;
    for (const layer of this.layers) {
      const inside = layer.copy || layer.mask === mask ? layer.mask : layer.mask.and(mask);
      const shared = layer.copy ? 0 : inside === mask ? 1 : inside.area / Math.min(mask.area, layer.mask.area);
      if (shared <= TOUCH) {
        left.push(layer);
        continue;
      }
      pieces.push({ ...layer, mask: inside });
      const others = layer.mask.without(mask);
      if (keep) left.push(layer);
      else if (others.box) left.push({ ...layer, mask: others });
    }
    const background = lifted ? mask.without(lifted) : mask;
    if (background.box) {
      pieces.push({ picture: this.photo, mask: background, placement: STAYS, made: -1, copy: false });
      if (!keep) lifted = lifted ? lifted.or(background) : background;
    }
    return { pieces, rest: keep ? this : new Scene(this.photo, left, lifted) };
  }

  /** The layers of a selection, and the scene without them. @param {Selection} selection */
  without(selection) {
    if ("mask" in selection) return this.take(selection.mask);
    const chosen = (/** @type {Layer} */ { made, copy }) => copy && made === selection.edit;
    const rest = new Scene(this.photo, this.layers.filter((layer) => !chosen(layer)), this.lifted);
    return { pieces: this.layers.filter(chosen), rest };
  }

  /** @param {Selection} selection */
  pieces(selection) {
    return "mask" in selection ? this.take(selection.mask, true).pieces : this.without(selection).pieces;
  }

  /** The topmost layer at a place. @param {[number, number]} at @returns {Layer?} */
  layerAt(at) {
    return this.layers.findLast(({ mask, placement }) => mask.has(...back(placement, at))) ?? null;
  }

  /** Whether a point is in a hole that no layer hides. @param {[number, number]} at */
  isHole(at) {
    return Boolean(this.lifted?.has(...at)) && !this.layerAt(at);
  }

  /** The photograph without the pixels that left their place. */
  get rest() {
    if (!this.lifted) return this.photo.bitmap;
    if (!this.#rest) {
      this.#rest = new OffscreenCanvas(...this.photo.shown);
      const context = this.#rest.getContext("2d");
      context.drawImage(this.photo.bitmap, 0, 0);
      context.globalCompositeOperation = "destination-out";
      context.drawImage(this.lifted.alpha(), 0, 0);
    }
    return this.#rest;
  }

}

/** @param {Layer[]} pieces */
export const boxAround = (pieces) => union(pieces.map(({ mask, placement }) => boxOf(placement, mask.box)));

/** The placement of an edit's selection. @param {Edit} edit @param {Picture} photo @param {Picture} other @returns {Placement} */
function movedBy(edit, around, photo, other) {
  const [width, height] = photo.shown;
  const centre = middle(around);
  const scale = [edit.scale ?? 1].flat();
  const by = edit.by ?? [0, 0];
  const [sx, sy] = [scale[0], scale[1] ?? scale[0]];
  if (edit.edit === "compose") {
    const [w, h] = other.shown;
    const shift = [(centre[0] / w + by[0]) * width - centre[0], (centre[1] / h + by[1]) * height - centre[1]];
    return place([(sx * width) / w, (sy * width) / w], centre, shift);
  }
  const anchor = edit.anchor ? [edit.anchor[0] * width, edit.anchor[1] * height] : centre;
  return place([sx, sy], anchor, [by[0] * width, by[1] * height]);
}

/**
 * The inverse: change an inserting edit so that its object gets another placement.
 * @param {Edit} edit @param {Insertion} insertion @param {Picture} photo @param {Picture} other @returns {Edit}
 */
export function insertedAt(edit, { moved, around }, photo, other) {
  const centre = middle(around);
  const [width, height] = photo.shown;
  const size = edit.edit === "compose" ? width / other.shown[0] : 1;
  const at = [0, 1].map((i) => moved.scale[i] * centre[i] + moved.offset[i]);
  const home = edit.edit === "compose" ? [centre[0] / other.shown[0], centre[1] / other.shown[1]] : [centre[0] / width, centre[1] / height];
  return {
    ...edit,
    scale: scaleOf(moved.scale.map((v) => v / size)),
    by: [at[0] / width - home[0], at[1] / height - home[1]],
  };
}

/** One number if both axes have the same scale. @param {number[]} scale */
export function scaleOf(scale) {
  const [x, y] = scale.map((v) => Math.min(100, Math.max(0.01, v)));
  return Math.abs(x - y) < 1e-9 ? x : [x, y];
}

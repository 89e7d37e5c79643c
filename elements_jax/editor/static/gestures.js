// A gesture: an edit in the making, seen at once in the page's own pixels and told to the server when it is done.

import { Preview, transformOf } from "./edits.js";
import { around } from "./outline.js";
import { isInsertion } from "./session.js";
import { centroids } from "./stage.js";

/**
 * @typedef {import("./canvas.js").Canvas} Canvas
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./session.js").Edit} Edit
 * @typedef {import("./stage.js").Stage} Stage
 */

export class Gesture {
  /**
   * @param {Session} session @param {Stage} stage @param {(text: string) => void} say
   * @param {{base: Canvas, source: Canvas, edit: Edit, edits: Edit[]}} what `edits` come before this one;
   *        `base` is the canvas they make, `source` that of the picture whose elements are taken
   */
  constructor(session, stage, say, { base, source, edit, edits }) {
    this.session = session;
    this.stage = stage;
    this.say = say;
    this.base = base;
    this.source = source;
    this.edits = edits;
    this.edit = edit;
    this.changed = false;
    this.preview = new Preview(base, source, edit.elements, isInsertion(edit));
    this.line = around(source, edit.elements);
  }

  /** Show the edit with other numbers. @param {Partial<Edit>} values */
  place(values) {
    this.edit = { ...this.edit, ...values };
    this.changed = true;
    const { base, source, preview, edit } = this;
    const { size } = base;
    const transform = transformOf(edit, source);
    const doomed = preview.place(transform, this.session.tolerance);
    const [sx, sy] = transform.scale;
    const [bx, by] = transform.by.map((v) => Math.round(v * size));
    const [ax, ay] = transform.anchor.map((v) => v * size);
    const outline = new Path2D();
    outline.addPath(this.line, new DOMMatrix([sx, 0, 0, sy, ax - sx * ax + bx, ay - sy * ay + by]));
    const from = centroids(source, edit.elements);
    this.stage.underway = {
      base,
      pixels: preview.pixels,
      arrived: preview.arrived,
      doomed,
      outline,
      sources: edit.edit === "compose" ? [] : from,
      targets: from.map(([x, y]) => [ax + sx * (x - ax) + bx, ay + sy * (y - ay) + by]),
    };
    this.stage.draw();
    this.say(describe(edit, size, doomed));
  }

  /** Tell the server, and show this until it has answered. */
  async finish() {
    const shown = this.stage.underway;
    try {
      if (this.changed) await this.session.change([...this.edits, this.edit]);
    } finally {
      if (this.stage.underway === shown) this.cancel();
    }
  }

  cancel() {
    this.stage.underway = null;
    this.stage.draw();
  }
}

/** Moves the selection: `by(dx, dy)` in pixels. What was only just inserted is inserted elsewhere instead. */
export class Move extends Gesture {
  /** @type {number[]?} where it began */ #origin = null;

  /** @param {Session} session @param {Stage} stage @param {(text: string) => void} say */
  static async start(session, stage, say) {
    const { canvas, before, edits, selection } = session;
    const last = edits.at(-1);
    if (last && isInsertion(last) && sameSet(selection, session.inserted)) {
      const source = last.edit === "compose" ? await session.canvasOfImage(last.image) : before;
      return new Move(session, stage, say, { base: before, source, edit: last, edits: edits.slice(0, -1) });
    }
    const edit = { edit: "move", elements: sorted(selection), by: [0, 0] };
    return new Move(session, stage, say, { base: canvas, source: canvas, edit, edits });
  }

  /** @param {number} dx @param {number} dy */
  by(dx, dy) {
    const { size } = this.base;
    this.#origin ??= (this.edit.by ?? [0, 0]).map((v) => Math.round(v * size));
    this.place({ by: [(this.#origin[0] + dx) / size, (this.#origin[1] + dy) / size] });
    if (dx === 0 && dy === 0) this.changed = false;
  }
}

/** Inserts elements of another picture. @param {Session} session @param {Stage} stage @param {string} image */
export async function insertion(session, stage, say, image, elements) {
  const edit = { edit: "compose", image, elements: sorted(elements), by: [0, 0], scale: 1 };
  const source = await session.canvasOfImage(image);
  return new Move(session, stage, say, { base: session.canvas, source, edit, edits: session.edits });
}

/** Resizes the selection about a point of its box: `to(width, height)` in pixels. */
export class Resize extends Gesture {
  /** What is resized. */
  box = this.source.box(this.edit.elements);

  /** @param {Session} session @param {Stage} stage @param {number[]} anchor (x, y) in pixels */
  static start(session, stage, say, anchor) {
    const { canvas, edits, selection } = session;
    const at = anchor.map((v) => v / canvas.size);
    const edit = { edit: "resize", elements: sorted(selection), scale: 1, anchor: at };
    return new Resize(session, stage, say, { base: canvas, source: canvas, edit, edits });
  }

  /** @param {number} width @param {number} height @param {boolean} locked whether the aspect is kept */
  to(width, height, locked) {
    const { left, top, right, bottom } = this.box;
    const [w, h] = [right - left, bottom - top];
    const bounded = (scale) => Math.min(100, Math.max(0.01, scale));
    const [sx, sy] = [bounded(Math.max(1, width) / w), bounded(Math.max(1, height) / h)];
    this.place({ scale: locked || sx === sy ? sx : [sx, sy] });
    if (sx === 1 && sy === 1) this.changed = false;
  }
}

/** Where a copy finds room: beside the selection, on the side where most of it stays inside. @param {Canvas} canvas */
export function beside({ size }, { left, top, right, bottom }) {
  const [w, h] = [right - left, bottom - top];
  const rooms = [
    { by: [w, 0], room: (size - right) / w },
    { by: [-w, 0], room: left / w },
    { by: [0, h], room: (size - bottom) / h },
    { by: [0, -h], room: top / h },
  ];
  const best = rooms.find(({ room }) => room >= 1) ?? rooms.reduce((a, b) => (b.room > a.room ? b : a));
  return best.by.map((v) => v / size);
}

/** @param {Edit} edit @param {number} size @param {number[]} doomed */
function describe(edit, size, doomed) {
  const pixels = (edit.by ?? [0, 0]).map((v) => Math.round(v * size));
  const scale = [edit.scale ?? 1].flat().map((v) => `${Math.round(v * 100)} %`);
  const what = {
    move: `Move by ${pixels.join(", ")} px.`,
    duplicate: `Copy to ${pixels.join(", ")} px from here.`,
    compose: "Insert here.",
    resize: `Resize to ${scale.join(" × ")}.`,
  }[edit.edit];
  if (!doomed.length) return `${what} Covers nothing.`;
  const count = doomed.length === 1 ? "1 element" : `${doomed.length} elements`;
  return `${what} Will delete ${count} (hatched): ${doomed.join(", ")}`;
}

/** @param {Iterable<number>} numbers */
export const sorted = (numbers) => [...numbers].sort((a, b) => a - b);

const sameSet = (a, b) => a.size === b.size && [...a].every((v) => b.has(v));

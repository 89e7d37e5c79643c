// What buttons and keys do to the selection.

import { Move, beside, insertion, sorted } from "./gestures.js";

const PAUSE = 350; // milliseconds without a key that end a burst of nudges, which is one gesture

/** @typedef {import("./dragging.js").Page} Page */
/** @typedef {import("./pointing.js").Mode} Mode */

/** @param {Set<number>} selection @param {Iterable<number>} numbers @param {Mode} mode */
export function combine(selection, numbers, mode) {
  const all = new Set(mode === "replace" ? [] : selection);
  for (const n of numbers) mode === "subtract" ? all.delete(n) : all.add(n);
  return all;
}

/** The next element by number, around the end. @param {import("./stage.js").Stage} stage @param {1|-1} step */
export function neighbour({ canvas, selection }, step) {
  const live = sorted(canvas.elements.keys());
  if (!live.length) return [];
  const current = step > 0 ? Math.max(-1, ...selection) : Math.min(canvas.count, ...selection);
  const next = step > 0 ? live.find((n) => n > current) : live.findLast((n) => n < current);
  return [next ?? (step > 0 ? live[0] : live.at(-1))];
}

/** Several nudges in one go. */
export class Nudging {
  /** @type {Promise<Move>?} */ #gesture = null;
  #total = [0, 0];
  #timer = 0;

  /** @param {Page} page */
  constructor(page) {
    this.page = page;
  }

  /** @param {number} dx @param {number} dy pixels */
  async by(dx, dy) {
    const { session, stage, say } = this.page;
    if (!session.selection.size) return;
    if (!this.#gesture) {
      this.#total = [0, 0];
      this.#gesture = session.idle().then(() => Move.start(session, stage, say));
    }
    this.#total = [this.#total[0] + dx, this.#total[1] + dy];
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.page.attempt(() => this.end()), PAUSE);
    const gesture = await this.#gesture;
    gesture.by(this.#total[0], this.#total[1]);
  }

  async end() {
    clearTimeout(this.#timer);
    const gesture = await this.#gesture;
    this.#gesture = null;
    await gesture?.finish();
  }
}

/** @param {Page} page */
export async function remove({ session, settle }) {
  await settle();
  if (session.selection.size) await session.append({ edit: "delete", elements: sorted(session.selection) });
}

/** @param {Page} page */
export async function duplicate({ session, settle }) {
  await settle();
  const { selection, canvas } = session;
  if (!selection.size) return;
  const by = beside(canvas, canvas.box(selection));
  await session.append({ edit: "duplicate", elements: sorted(selection), by, scale: 1 });
}

/** Insert what is selected in the tray, in its own place. @param {Page} page @param {import("./stage.js").Stage} tray */
export async function insert({ session, stage, say, settle }, tray, /** @type {string} */ image) {
  await settle();
  if (!tray.selection.size) return;
  const gesture = await insertion(session, stage, say, image, tray.selection);
  gesture.by(0, 0);
  gesture.changed = true;
  await gesture.finish();
}

/**
 * Go on from a result: what its edits left uncovered becomes elements of it.
 * @param {Page} page @param {import("./results.js").Result} result
 */
export async function continueFrom({ session, settle }, result) {
  await settle();
  const rounds = result.script.edits.filter((/** @type {any} */ { edit }) => edit === "continue").length;
  const image = await session.addImage(result.blob, `round-${rounds + 1}.png`);
  await session.change([...result.script.edits, { edit: "continue", image }]);
}

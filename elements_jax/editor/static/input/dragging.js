// Gestures: a move or a resize in progress, shown live with the photograph's own pixels.

import { STAYS, middle, place } from "../model/placement.js";
import { handlePoints } from "../view/drawing.js";

/**
 * @typedef {import("../model/session.js").Session} Session
 * @typedef {import("../view/stage.js").Stage} Stage
 * @typedef {import("./pointing.js").Drag} Drag
 * @typedef {{session: Session, stage: Stage, say: (text: string) => void, attempt: (work: () => Promise<any>) => any}} Page
 */

/** A move or resize of the selection in progress. */
export class Gesture {
  placement = STAYS;

  /** @param {Page} page @param {boolean} [copy] whether the original stays */
  constructor({ session, stage, say }, copy = false) {
    this.session = session;
    this.stage = stage;
    this.say = say;
    this.box = stage.box;
    const { photo } = session;
    this.full = photo.width / photo.shown[0]; // the photograph's own pixels per displayed pixel
    this.copy = copy;
    this.done = copy ? "Copied" : "Moved";
    const { scene, selection } = session;
    this.taken = copy ? { pieces: scene.pieces(selection), rest: scene } : scene.without(selection);
  }

  /** @param {number} dx @param {number} dy in the photograph's own pixels */
  by(dx, dy) {
    const [x, y] = [Math.round(dx), Math.round(dy)];
    this.#show(place([1, 1], [0, 0], [x / this.full, y / this.full]), x || y ? `${this.copy ? "Copy" : "Move"} by ${x}, ${y} px.` : "Not moved.");
  }

  /** Scale about a point. @param {number} sx @param {number} sy @param {number[]} anchor in pixels of the picture */
  scale(sx, sy, anchor) {
    const { left, top, right, bottom } = this.box;
    const bounded = (v, side) => Math.min(100, Math.max(0.01, 1 / (side * this.full), v));
    const [x, y] = [bounded(sx, right - left), bounded(sy, bottom - top)];
    const share = [...new Set([x, y].map((v) => `${Math.round(v * 100)} %`))].join(" x ");
    this.done = "Resized";
    this.#show(place([x, y], anchor, [0, 0]), `Resize to ${share}.`);
  }

  #show(/** @type {import("../model/placement.js").Placement} */ placement, /** @type {string} */ sentence) {
    this.placement = placement;
    this.stage.underway = { ...this.taken, placement };
    this.stage.draw();
    this.say(sentence);
  }

  async finish() {
    const { scale, offset } = this.placement;
    if (scale.some((v) => v !== 1) || offset.some((v) => v !== 0)) {
      if (this.copy) await this.session.duplicate(offset.map((v, i) => v / this.session.photo.shown[i]));
      else await this.session.put(this.placement, this.done);
      this.say(this.copy ? "Copied." : `${this.done}. The gap will be filled when you run.`);
    }
    this.cancel();
  }

  cancel() {
    this.stage.underway = null;
    this.stage.draw();
  }
}

/** @param {Page} page @param {(gesture: Gesture, event: PointerEvent) => void} follow @param {boolean} [copy] @returns {Drag} */
function drag(page, follow, copy) {
  const gesture = new Gesture(page, copy);
  return {
    move: (event) => follow(gesture, event),
    finish: () => page.attempt(() => gesture.finish()),
    cancel: () => gesture.cancel(),
  };
}

/** Alt drags a copy; Shift keeps to one axis. @param {Page} page @param {PointerEvent} pressed */
export function dragSelection(page, pressed) {
  const from = page.stage.pixel(pressed);
  const follow = (/** @type {Gesture} */ gesture, /** @type {PointerEvent} */ event) => {
    const by = page.stage.pixel(event).map((v, i) => (v - from[i]) * gesture.full);
    if (event.shiftKey) by[Math.abs(by[0]) < Math.abs(by[1]) ? 0 : 1] = 0;
    gesture.by(by[0], by[1]);
  };
  return drag(page, follow, pressed.altKey);
}

/** Resize the box about the opposite handle. @param {Page} page @param {PointerEvent} pressed @param {number} handle @param {() => boolean} locked */
export function dragHandle(page, pressed, handle, locked) {
  const { stage } = page;
  const { box } = stage;
  const [hold, anchor] = [handlePoints(box)[handle], handlePoints(box)[(handle + 4) % 8]];
  const from = stage.pixel(pressed);
  const [w, h] = [box.right - box.left, box.bottom - box.top];
  return drag(page, (gesture, event) => {
    const to = stage.pixel(event);
    // Outward movement of the handle from the anchor; an edge's handle does not change the other axis.
    const [x, y] = [0, 1].map((i) => (to[i] - from[i]) * Math.sign(hold[i] - anchor[i]));
    const corner = handle % 2 === 0;
    const grown = 1 + (x * w + y * h) / (w * w + h * h); // along the diagonal
    if (corner && locked() !== event.shiftKey) gesture.scale(grown, grown, anchor);
    else gesture.scale((w + x) / w, (h + y) / h, anchor);
  });
}

/**
 * Drag from the second photograph and drop.
 * @param {Page} page @param {import("../view/tray.js").Tray} tray @param {PointerEvent} pressed @param {() => void} begin
 * @returns {Drag}
 */
export function dragOver({ session, stage, say, attempt }, tray, pressed, begin) {
  const { picture, selection } = tray;
  const { shown } = session.photo;
  const from = tray.stage.pixel(pressed);
  const scale = shown[0] / picture.shown[0]; // keeps its share of the width
  const pieces = tray.stage.pieces;
  const centre = middle(tray.stage.box);
  let last = pressed;
  const over = () => stage.root.contains(document.elementFromPoint(last.clientX, last.clientY));
  const offset = () => stage.pixel(last).map((v, i) => v - scale * from[i]);
  const show = (/** @type {import("../view/stage.js").Underway?} */ underway) => {
    stage.underway = underway;
    stage.draw();
  };
  return {
    move(event) {
      last = event;
      if (over()) begin();
      const [x, y] = offset();
      show(over() ? { rest: session.scene, pieces, placement: { scale: [scale, scale], offset: [x, y] } } : null);
      say(over() ? "Insert here." : "Drag it over to the photo.");
    },
    finish: () =>
      attempt(async () => {
        show(null);
        if (!over()) return;
        const by = offset().map((v, i) => (scale * centre[i] + v) / shown[i] - centre[i] / picture.shown[i]);
        await session.insert(picture, selection, by);
        say("Inserted.");
      }),
    cancel: () => show(null),
  };
}

const PAUSE = 350; // milliseconds without a key that end a series of nudges, which is one gesture

/** Combines a series of nudges into one gesture. */
export class Nudging {
  /** @type {Gesture?} */ #gesture = null;
  #total = [0, 0];
  #timer = 0;

  /** @param {Page} page */
  constructor(page) {
    this.page = page;
  }

  /** @param {number} dx @param {number} dy the photograph's own pixels */
  by(dx, dy) {
    if (!this.page.session.selection) return;
    if (!this.#gesture) this.#total = [0, 0];
    this.#gesture ??= new Gesture(this.page);
    this.#total = [this.#total[0] + dx, this.#total[1] + dy];
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.page.attempt(() => this.end()), PAUSE);
    this.#gesture.by(this.#total[0], this.#total[1]);
  }

  async end() {
    clearTimeout(this.#timer);
    const gesture = this.#gesture;
    this.#gesture = null;
    await gesture?.finish();
  }
}

/** The shift of a copy: next to a box, on the side where most of it stays inside. @param {import("../model/mask.js").Box} box */
export function beside([width, height], { left, top, right, bottom }) {
  const [w, h] = [right - left, bottom - top];
  const rooms = [
    { by: [w / width, 0], room: (width - right) / w },
    { by: [-w / width, 0], room: left / w },
    { by: [0, h / height], room: (height - bottom) / h },
    { by: [0, -h / height], room: top / h },
  ];
  return (rooms.find(({ room }) => room >= 1) ?? rooms.reduce((a, b) => (b.room > a.room ? b : a))).by;
}

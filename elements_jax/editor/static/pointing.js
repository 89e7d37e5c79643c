// What the pointer does on a picture: select by click, box, lasso or object; drag what is selected, and its handles.

import { handlePoints } from "./stage.js";

/** @typedef {import("./stage.js").Stage} Stage */
/** @typedef {"replace"|"add"|"subtract"} Mode */
/** @typedef {{move: (event: PointerEvent) => void, finish: () => void, cancel: () => void}} Drag */
/**
 * What the page does with it.
 * @typedef {{
 *   tool: () => "select"|"box"|"lasso"|"object",
 *   select: (numbers: Iterable<number>, mode: Mode) => void,
 *   drag: (event: PointerEvent) => Drag | null,
 *   resize: (event: PointerEvent, handle: number) => Drag | null,
 *   object: (positive: boolean, at: [number, number]) => void,
 * }} Actions
 */

const SLACK = 4; // CSS pixels that a click may slip
const REACH = 8; // and that a handle is caught from

/** @param {{shiftKey: boolean, altKey: boolean}} event @returns {Mode} */
const modeOf = ({ shiftKey, altKey }) => (altKey ? "subtract" : shiftKey ? "add" : "replace");

/** @param {Stage} stage @param {Actions} actions */
export function point(stage, actions) {
  const { root } = stage;
  const place = root.parentElement; // a box may begin beside the picture
  /** @type {Drag?} */ let drag = null;
  /** @type {(() => void)?} what a press that does not move means */ let click = null;
  /** @type {((event: PointerEvent) => Drag | null)?} what one that moves means */ let start = null;
  /** @type {PointerEvent?} */ let pressed = null;

  place.addEventListener("contextmenu", (event) => event.preventDefault());

  place.addEventListener("pointerdown", (event) => {
    if (!stage.canvas || root.hidden || pressed) return;
    const tool = actions.tool();
    if (event.button !== 0 && !(event.button === 2 && tool === "object")) return;
    event.preventDefault();
    root.focus({ preventScroll: true });
    place.setPointerCapture(event.pointerId);
    pressed = event;
    const at = stage.pixel(event);
    const handle = handleAt(stage, at);
    const label = stage.canvas.at(...at);
    const mode = modeOf(event);
    const mine = label !== null && stage.selection.has(label) && mode === "replace";
    start = () => regionOf(stage, tool === "lasso", actions, at, mode);
    click = () => actions.select(label === null ? [] : [label], mode);
    if (handle >= 0) {
      start = (now) => actions.resize(now, handle);
      click = null;
    } else if (tool === "object") {
      start = mine ? actions.drag : null;
      click = () => actions.object(event.button === 0 && !event.altKey, at);
    } else if (mine) {
      start = actions.drag;
    } else if (tool === "select" && label !== null && mode === "replace") {
      start = (now) => {
        actions.select([label], "replace");
        return actions.drag(now);
      };
    }
  });

  place.addEventListener("pointermove", (event) => {
    if (!pressed) {
      place.style.cursor = cursor(stage, actions.tool(), event);
      return;
    }
    const far = Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) >= SLACK;
    if (!drag && far && start) {
      drag = start(pressed);
      if (drag) start = click = null;
    }
    drag?.move(event);
  });

  const release = (/** @type {boolean} */ done) => {
    const [ended, meant] = [drag, click];
    drag = click = start = pressed = null;
    if (!done) ended?.cancel();
    else if (ended) ended.finish();
    else meant?.();
  };
  place.addEventListener("pointerup", () => pressed && release(true));
  place.addEventListener("pointercancel", () => pressed && release(false));
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !pressed) return;
    event.stopPropagation();
    release(false);
  });
}

/**
 * Selects what lies in a box or a lasso.
 * @param {Stage} stage @param {boolean} free whether it is a lasso @param {Actions} actions
 * @param {[number, number]} from @param {Mode} mode @returns {Drag}
 */
function regionOf(stage, free, actions, from, mode) {
  const points = [from];
  const shape = () => {
    const path = new Path2D();
    const [x, y] = points.at(-1);
    if (free) {
      for (const point of points) path.lineTo(...point);
      path.closePath();
    } else {
      path.rect(from[0], from[1], x - from[0], y - from[1]);
    }
    return path;
  };
  const end = () => {
    stage.region = null;
    stage.draw();
  };
  return {
    move(event) {
      points.push(stage.pixel(event));
      stage.region = shape();
      stage.draw();
    },
    finish() {
      const mask = filled(shape(), stage.canvas.size);
      end();
      actions.select(stage.canvas.under((i) => mask[4 * i + 3] > 127), mode);
    },
    cancel: end,
  };
}

/** The pixels inside a path. @param {Path2D} path @param {number} size */
function filled(path, size) {
  const context = new OffscreenCanvas(size, size).getContext("2d");
  context.fill(path);
  return context.getImageData(0, 0, size, size).data;
}

/** @param {Stage} stage @param {[number, number]} at */
function handleAt(stage, at) {
  if (!stage.handles || !stage.box) return -1;
  // Of a small selection, its middle stays free to be dragged.
  const { left, top, right, bottom } = stage.box;
  const [w, h] = [(right - left) / 4, (bottom - top) / 4].map((quarter) => Math.min(REACH * stage.unit, quarter));
  const inside = (v, from, to) => v > from && v < to;
  const outward = (v, from, to, reach) => (inside(v, from, to) ? reach : REACH * stage.unit);
  const [rx, ry] = [outward(at[0], left, right, w), outward(at[1], top, bottom, h)];
  return handlePoints(stage.box).findIndex(([x, y]) => Math.abs(x - at[0]) <= rx && Math.abs(y - at[1]) <= ry);
}

const CURSORS = ["nwse", "ns", "nesw", "ew", "nwse", "ns", "nesw", "ew"];

/** @param {Stage} stage @param {PointerEvent} event */
function cursor(stage, tool, event) {
  if (!stage.canvas) return "";
  const at = stage.pixel(event);
  const handle = handleAt(stage, at);
  if (handle >= 0) return `${CURSORS[handle]}-resize`;
  const label = stage.canvas.at(...at);
  if (label !== null && stage.selection.has(label) && !event.shiftKey && !event.altKey) return "move";
  return tool === "select" ? "default" : "crosshair";
}

// Pointer gestures on a photograph: click; draw a box, a lasso or a brush stroke; drag the selection or its handles; pan.
// A second finger ends the gesture of the first and zooms.

import { handlePoints } from "../view/drawing.js";

/** @typedef {import("../view/stage.js").Stage} Stage */
/** @typedef {"replace"|"add"|"subtract"} Mode */
/** @typedef {"select"|"pieces"|"box"|"lasso"|"brush"|"hand"} Tool */
/** @typedef {[number, number]} Point */
/** @typedef {{move: (event: PointerEvent) => void, finish: () => void, cancel: () => void}} Drag */
/**
 * The actions of the page.
 * @typedef {{
 *   tool: () => Tool,
 *   click: (at: Point, mode: Mode) => void,
 *   shape: (shape: Path2D, from: Point, to: Point, mode: Mode) => void,
 *   brush: (at: Point, mode: Mode) => Drag,
 *   grab: (at: Point) => boolean,
 *   drag: (event: PointerEvent) => Drag | null,
 *   resize: (event: PointerEvent, handle: number) => Drag | null,
 * }} Actions `grab` selects the topmost layer there, if it can be dragged at once
 */

const SLACK = 4; // maximum movement of a click in CSS pixels
const REACH = { mouse: 8, pen: 10, touch: 18 }; // distance from which a handle is caught

const SMALL = 64; // CSS pixels: the handles of a smaller selection are caught only from outside

/** @param {{shiftKey: boolean, altKey: boolean}} event @returns {Mode} */
const modeOf = ({ shiftKey, altKey }) => (altKey ? "subtract" : shiftKey ? "add" : "replace");

/** @param {Stage} stage @param {Actions} actions */
export function point(stage, actions) {
  const { root, view } = stage;
  /** @type {Drag?} */ let drag = null;
  /** @type {(() => void)?} the meaning of a press without movement */ let click = null;
  /** @type {((event: PointerEvent) => Drag | null)?} the meaning of one with movement */ let start = null;
  /** @type {PointerEvent?} */ let pressed = null;
  let space = false;
  const fingers = new Set();

  root.addEventListener("contextmenu", (event) => event.preventDefault());
  for (const kind of ["keydown", "keyup"]) {
    addEventListener(kind, (/** @type {any} */ event) => event.key === " " && (space = kind === "keydown"));
  }

  root.addEventListener("pointerdown", (event) => {
    fingers.add(event.pointerId);
    if (fingers.size > 1) return release(false);
    if (!stage.scene || pressed || event.button > 1) return;
    event.preventDefault();
    root.focus({ preventScroll: true });
    root.setPointerCapture(event.pointerId);
    pressed = event;
    const at = stage.pixel(event);
    const mode = modeOf(event);
    click = null;
    if (event.button === 1 || space || (actions.tool() === "hand" && !stage.comparison)) start = () => panning(view);
    else if (stage.comparison) start = () => (nearSplit(stage, event) ? splitting(stage) : panning(view));
    else start = meaning(event, at, mode);
  });

  /** The meaning of a press on the photograph. @param {PointerEvent} event @param {Point} at @param {Mode} mode */
  function meaning(event, at, mode) {
    const tool = actions.tool();
    if (tool === "brush") {
      drag = actions.brush(at, mode);
      return null;
    }
    const handle = handleAt(stage, at, REACH[event.pointerType] ?? REACH.mouse);
    if (handle >= 0 && mode === "replace") return (/** @type {PointerEvent} */ now) => actions.resize(now, handle);
    if (tool === "box" || tool === "lasso") return () => drawing(stage, tool === "lasso", actions, at, mode);
    click = () => actions.click(at, mode);
    if (mode !== "replace") return isSelected(stage, at) ? (/** @type {PointerEvent} */ now) => actions.drag(now) : null;
    return (/** @type {PointerEvent} */ now) => (isSelected(stage, at) || actions.grab(at) ? actions.drag(now) : panning(view));
  }

  root.addEventListener("pointermove", (event) => {
    if (!pressed) {
      root.style.cursor = cursor(stage, actions.tool(), event);
      return;
    }
    if (event.pointerId !== pressed.pointerId) return;
    const far = Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) >= SLACK;
    if (!drag && far && start) {
      drag = start(pressed);
      drag?.move(pressed);
      start = click = null;
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
  const up = (/** @type {boolean} */ done) => (/** @type {PointerEvent} */ { pointerId }) => {
    fingers.delete(pointerId);
    if (pressed?.pointerId === pointerId) release(done);
  };
  root.addEventListener("pointerup", up(true));
  root.addEventListener("pointercancel", up(false));
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !pressed) return;
    event.stopPropagation();
    release(false);
  });
}

/** A drag that follows the pointer step by step. @param {(dx: number, dy: number, event: PointerEvent) => void} step @returns {Drag} */
function following(step) {
  /** @type {PointerEvent?} */ let last = null;
  return {
    move(event) {
      if (last) step(event.clientX - last.clientX, event.clientY - last.clientY, event);
      last = event;
    },
    finish() {},
    cancel() {},
  };
}

const panning = (/** @type {import("../view/viewport.js").Viewport} */ view) => following((dx, dy) => view.pan(dx, dy));

const nearSplit = (/** @type {Stage} */ stage, /** @type {PointerEvent} */ { clientX }) =>
  Math.abs(clientX - stage.root.getBoundingClientRect().left - stage.splitAt) < 24;

/** The range input holds the split. @param {Stage} stage */
const splitting = (stage) =>
  following((dx, dy, { clientX }) => {
    const { left, width } = stage.root.getBoundingClientRect();
    const { x, k, size } = stage.view;
    const [from, to] = [Math.max(0, x), Math.min(width, x + size[0] * k)];
    const split = /** @type {HTMLInputElement} */ (document.querySelector("#split"));
    split.value = String((100 * (clientX - left - from)) / (to - from));
    split.dispatchEvent(new Event("input"));
  });

/**
 * A box or a lasso.
 * @param {Stage} stage @param {boolean} free whether it is a lasso @param {Actions} actions @param {Point} from
 * @param {Mode} mode @returns {Drag}
 */
function drawing(stage, free, actions, from, mode) {
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
      end();
      actions.shape(shape(), from, points.at(-1), mode);
    },
    cancel: end,
  };
}

/** @param {Stage} stage @param {Point} at */
const isSelected = (stage, at) =>
  stage.pieces.some(({ mask, placement: { scale, offset } }) => mask.has((at[0] - offset[0]) / scale[0], (at[1] - offset[1]) / scale[1]));

/** @param {Stage} stage @param {Point} at @param {number} reach CSS pixels */
function handleAt(stage, at, reach) {
  if (!stage.handles || !stage.box) return -1;
  // The middle of a selection stays free for dragging; a small selection completely.
  const { left, top, right, bottom } = stage.box;
  const far = reach * stage.unit;
  const inner = (/** @type {number} */ side) => (side < SMALL * stage.unit ? 0 : Math.min(far, side / 4));
  const [w, h] = [inner(right - left), inner(bottom - top)];
  const within = (v, from, to, reach) => (v > from && v < to ? reach : far);
  const [rx, ry] = [within(at[0], left, right, w), within(at[1], top, bottom, h)];
  return handlePoints(stage.box).findIndex(([x, y]) => Math.abs(x - at[0]) <= rx && Math.abs(y - at[1]) <= ry);
}

const CURSORS = ["nwse", "ns", "nesw", "ew", "nwse", "ns", "nesw", "ew"];

/** @param {Stage} stage @param {Tool} tool @param {PointerEvent} event */
function cursor(stage, tool, event) {
  if (!stage.scene) return "";
  if (stage.comparison) return nearSplit(stage, event) ? "ew-resize" : "grab";
  if (tool === "hand") return "grab";
  if (tool === "brush") return "crosshair";
  const at = stage.pixel(event);
  const handle = handleAt(stage, at, REACH.mouse);
  if (handle >= 0) return `${CURSORS[handle]}-resize`;
  if (tool === "box" || tool === "lasso") return "crosshair";
  return isSelected(stage, at) && !event.shiftKey && !event.altKey ? "move" : "default";
}

// From the pointer to gestures: drags of the selection, of its handles, and of elements out of the tray.

import { Move, Resize, insertion } from "./gestures.js";
import { handlePoints } from "./stage.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./stage.js").Stage} Stage
 * @typedef {import("./pointing.js").Drag} Drag
 * @typedef {{session: Session, stage: Stage, say: (text: string) => void, attempt: (work: () => Promise<any>) => any,
 *            settle: () => Promise<void>}} Page `settle` ends what is under way and awaits the server's answer
 */

/**
 * A drag whose gesture starts as soon as the server's last answer is there.
 * @template {import("./gestures.js").Gesture} G
 * @param {Page} page @param {() => Promise<G>} start @param {(gesture: G, event: PointerEvent) => void} follow
 * @param {(event: PointerEvent) => boolean} [here] whether it may be let go there
 * @returns {Drag}
 */
function drag({ settle, attempt }, start, follow, here = () => true) {
  /** @type {G} */ let gesture;
  /** @type {PointerEvent} */ let last;
  let over = false;
  const update = () => {
    if (!gesture || !last || over) return;
    if (here(last)) follow(gesture, last);
    else gesture.cancel();
  };
  const started = attempt(async () => {
    await settle();
    gesture = await start();
    update();
    return gesture;
  });
  return {
    move(event) {
      last = event;
      update();
    },
    async finish() {
      await started;
      over = true;
      if (here(last)) await attempt(() => gesture?.finish());
    },
    async cancel() {
      over = true;
      await started;
      gesture?.cancel();
    },
  };
}

/** @param {Page} page @param {PointerEvent} pressed */
export function dragSelection(page, pressed) {
  const { session, stage, say } = page;
  const from = stage.pixel(pressed);
  return drag(
    page,
    () => Move.start(session, stage, say),
    (gesture, event) => {
      const to = stage.pixel(event);
      gesture.by(Math.round(to[0] - from[0]), Math.round(to[1] - from[1]));
    },
  );
}

/**
 * The box grows from the opposite handle.
 * @param {Page} page @param {PointerEvent} pressed @param {number} handle @param {() => boolean} locked
 */
export function dragHandle(page, pressed, handle, locked) {
  const { session, stage, say } = page;
  const box = stage.box;
  const [hold, anchor] = [handlePoints(box)[handle], handlePoints(box)[(handle + 4) % 8]];
  const from = stage.pixel(pressed);
  const [w, h] = [box.right - box.left, box.bottom - box.top];
  return drag(
    page,
    async () => Resize.start(session, stage, say, anchor),
    (gesture, event) => {
      const to = stage.pixel(event);
      // How far the handle is from the anchor, counted outwards; an edge's handle leaves the other axis as it is.
      const [x, y] = [0, 1].map((i) => (to[i] - from[i]) * Math.sign(hold[i] - anchor[i]));
      const corner = handle % 2 === 0;
      if (corner && locked() !== event.shiftKey) {
        const grown = 1 + (x * w + y * h) / (w * w + h * h); // along the diagonal
        gesture.to(Math.round(w * grown), Math.round(h * grown), true);
      } else {
        gesture.to(Math.round(w + x), Math.round(h + y), false);
      }
    },
  );
}

/**
 * Elements come from the tray's picture to where they are let go.
 * @param {Page} page @param {Stage} tray @param {string} image @param {PointerEvent} pressed
 */
export function dragIn(page, tray, image, pressed) {
  const { session, stage, say } = page;
  const from = tray.pixel(pressed);
  return drag(
    page,
    () => insertion(session, stage, say, image, tray.selection),
    (gesture, event) => {
      const to = stage.pixel(event);
      gesture.by(Math.round(to[0] - from[0]), Math.round(to[1] - from[1]));
      gesture.changed = true;
    },
    (event) => stage.root.parentElement.contains(document.elementFromPoint(event.clientX, event.clientY)),
  );
}

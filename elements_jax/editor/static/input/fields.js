// The bar below the photograph: the selection's box as numbers, in the photograph's own pixels.

import { Gesture } from "./dragging.js";

const field = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (document.querySelector(`#box-${name}`));
const names = /** @type {const} */ (["x", "y", "width", "height"]);
const lock = /** @type {HTMLInputElement} */ (document.querySelector("#lock"));

export const locked = () => lock.checked;

/** @param {import("./dragging.js").Page} page */
export function setUpFields(page) {
  for (const name of names) field(name).addEventListener("change", () => page.attempt(() => change(page, name)));
}

/** @param {import("../view/stage.js").Stage} stage @param {number} full the photograph's own pixels per displayed pixel */
export function showBox({ box }, full) {
  const values = box && { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top };
  for (const name of names) {
    field(name).disabled = !box;
    field(name).value = values ? String(Math.round(values[name] * full)) : "";
  }
}

/** Apply a changed field: a move, or a resize about the top left corner. */
async function change(/** @type {import("./dragging.js").Page} */ page, /** @type {string} */ name) {
  const typed = field(name).valueAsNumber;
  const { box } = page.stage;
  if (!box) return;
  const gesture = new Gesture(page);
  showBox(page.stage, gesture.full);
  if (Number.isNaN(typed)) return;
  const [w, h] = [box.right - box.left, box.bottom - box.top].map((v) => v * gesture.full);
  if (name === "x") gesture.by(typed - box.left * gesture.full, 0);
  else if (name === "y") gesture.by(0, typed - box.top * gesture.full);
  else {
    const grown = typed / (name === "width" ? w : h);
    const scales = locked() ? [grown, grown] : name === "width" ? [grown, 1] : [1, grown];
    gesture.scale(scales[0], scales[1], [box.left, box.top]);
  }
  return gesture.finish();
}

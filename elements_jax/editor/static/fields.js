// The bar under the picture: the selection's box in numbers.

import { Move, Resize } from "./gestures.js";

const field = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (document.querySelector(`#box-${name}`));
const names = /** @type {const} */ (["x", "y", "width", "height"]);
const unit = /** @type {HTMLSelectElement} */ (document.querySelector("#box-unit"));
const lock = /** @type {HTMLInputElement} */ (document.querySelector("#lock"));

export const locked = () => lock.checked;

/** @param {import("./dragging.js").Page} page */
export function setUpFields(page) {
  for (const name of names) field(name).addEventListener("change", () => page.attempt(() => change(page, name)));
  unit.addEventListener("change", () => showBox(page.stage));
}

/** @param {import("./stage.js").Stage} stage */
export function showBox({ box, canvas }) {
  const values = box && {
    x: box.left,
    y: box.top,
    width: box.right - box.left,
    height: box.bottom - box.top,
  };
  const whole = unit.value === "px";
  for (const name of names) {
    field(name).disabled = !box;
    field(name).step = whole ? "1" : "any";
    const shown = values && (whole ? values[name] : Number(((100 * values[name]) / canvas.size).toFixed(2)));
    field(name).value = values ? String(shown) : "";
  }
}

/** One field was changed: a move, or a resize about the top left corner. */
async function change(/** @type {import("./dragging.js").Page} */ { session, stage, say, settle }, /** @type {string} */ name) {
  const { box, canvas } = stage;
  const typed = field(name).valueAsNumber;
  showBox(stage);
  if (!box || Number.isNaN(typed)) return;
  const pixels = Math.round(unit.value === "px" ? typed : (typed * canvas.size) / 100);
  await settle();
  if (name === "x" || name === "y") {
    const gesture = await Move.start(session, stage, say);
    gesture.by(name === "x" ? pixels - box.left : 0, name === "y" ? pixels - box.top : 0);
    return gesture.finish();
  }
  const [w, h] = [box.right - box.left, box.bottom - box.top];
  const grown = pixels / (name === "width" ? w : h);
  const gesture = Resize.start(session, stage, say, [box.left, box.top]);
  if (locked()) gesture.to(w * grown, h * grown, true);
  else gesture.to(name === "width" ? pixels : w, name === "height" ? pixels : h, false);
  return gesture.finish();
}

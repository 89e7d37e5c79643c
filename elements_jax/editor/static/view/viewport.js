// The visible part of an image: zoom and pan.

const [FURTHEST, NEAREST] = [0.5, 64]; // minimum relative to the fitting size, and maximum CSS pixels per pixel
const MARGIN = 16; // CSS pixels around a fitted image
const KEPT = 48; // CSS pixels of an image that always stay visible

export class Viewport extends EventTarget {
  /** CSS pixels per pixel of the image, and the position of its corner. */
  k = 1;
  x = 0;
  y = 0;
  fitted = true;
  size = [1, 1];

  /** @param {HTMLElement} place */
  constructor(place) {
    super();
    this.place = place;
    new ResizeObserver(() => (this.fitted ? this.fit() : this.#changed())).observe(place);
  }

  /** @param {number[]} size of the image in pixels */
  show(size) {
    const same = size[0] === this.size[0] && size[1] === this.size[1];
    this.size = size;
    if (!same || this.fitted) this.fit();
  }

  get #fitting() {
    const { clientWidth, clientHeight } = this.place;
    const [width, height] = this.size;
    return Math.max(0.001, Math.min((clientWidth - 2 * MARGIN) / width, (clientHeight - 2 * MARGIN) / height));
  }

  /** Fit the complete image. */
  fit() {
    const { clientWidth, clientHeight } = this.place;
    this.k = this.#fitting;
    this.x = (clientWidth - this.size[0] * this.k) / 2;
    this.y = (clientHeight - this.size[1] * this.k) / 2;
    this.fitted = true;
    this.#changed();
  }

  /** Zoom about a point, by default the centre. @param {number} factor */
  zoom(factor, x = this.place.clientWidth / 2, y = this.place.clientHeight / 2) {
    const fitting = this.#fitting;
    const k = Math.min(Math.max(NEAREST, fitting), Math.max(FURTHEST * fitting, this.k * factor));
    this.x = x - ((x - this.x) * k) / this.k;
    this.y = y - ((y - this.y) * k) / this.k;
    this.k = k;
    this.pan(0, 0);
  }

  /** @param {number} dx @param {number} dy CSS pixels */
  pan(dx, dy) {
    const within = (v, room, length) => Math.min(room - KEPT, Math.max(KEPT - length, v));
    this.x = within(this.x + dx, this.place.clientWidth, this.size[0] * this.k);
    this.y = within(this.y + dy, this.place.clientHeight, this.size[1] * this.k);
    this.fitted = false;
    this.#changed();
  }

  /** Convert the position of an event to pixels of the image. @param {{clientX: number, clientY: number}} event @returns {[number, number]} */
  pixel({ clientX, clientY }) {
    const { left, top } = this.place.getBoundingClientRect();
    return [(clientX - left - this.x) / this.k, (clientY - top - this.y) / this.k];
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** Handle the wheel and two fingers. The wheel zooms about the pointer; with Shift it pans. @param {Viewport} view @param {() => boolean} active */
export function steer(view, active) {
  const { place } = view;
  /** @type {Map<number, {x: number, y: number}>} */ const fingers = new Map();
  const at = (/** @type {{clientX: number, clientY: number}} */ { clientX, clientY }) => {
    const { left, top } = place.getBoundingClientRect();
    return { x: clientX - left, y: clientY - top };
  };
  place.addEventListener(
    "wheel",
    (event) => {
      if (!active()) return;
      event.preventDefault();
      if (event.shiftKey) return view.pan(-event.deltaX - event.deltaY, 0);
      const { x, y } = at(event);
      view.zoom(Math.exp(-Math.sign(event.deltaY) * Math.min(100, Math.abs(event.deltaY)) * 0.002), x, y);
    },
    { passive: false },
  );
  place.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch") fingers.set(event.pointerId, at(event));
  });
  place.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const [[x0, y0, d0], now] = [pair(fingers), at(event)];
    fingers.set(event.pointerId, now);
    if (fingers.size !== 2 || !active()) return;
    const [x1, y1, d1] = pair(fingers);
    view.pan(x1 - x0, y1 - y0);
    view.zoom(d1 / d0, x1, y1);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    place.addEventListener(end, (/** @type {any} */ { pointerId }) => fingers.delete(pointerId));
  }
}

/** The middle of the fingers, and their distance. */
function pair(/** @type {Map<number, {x: number, y: number}>} */ fingers) {
  const [a, b] = [...fingers.values(), ...fingers.values()];
  return [(a.x + b.x) / 2, (a.y + b.y) / 2, Math.hypot(a.x - b.x, a.y - b.y)];
}

// Previews of gaps: the server fills them in a reduced photograph as soon as something is selected, so that a drag
// already shows what will be behind it.

import * as api from "./api.js";

const KEPT = 12; // previews in memory
const PAUSE = 100; // milliseconds without another wish

export class Gaps extends EventTarget {
  /** @type {Map<string, ImageBitmap>} by the photograph and the mask */ #filled = new Map();
  /** @type {{photo: import("./session.js").Picture, mask: import("./mask.js").Mask}?} */ #wanted = null;
  #timer = 0;
  #busy = false;

  /** The preview of the gaps of a scene; null until the server has sent it. @param {import("./scene.js").Scene} scene */
  of({ photo, lifted }) {
    return (lifted && this.#filled.get(keyOf(photo, lifted))) ?? null;
  }

  /** Ask for a preview; only the latest wish counts. "change" follows. @param {import("./scene.js").Scene?} scene */
  want(scene) {
    this.#wanted = scene?.lifted?.box && !this.of(scene) ? { photo: scene.photo, mask: scene.lifted } : null;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), PAUSE);
  }

  async #ask() {
    if (this.#busy || !this.#wanted) return;
    const { photo, mask } = this.#wanted;
    this.#wanted = null;
    this.#busy = true;
    try {
      const png = await api.preview(photo.id, await mask.png());
      this.#filled.set(keyOf(photo, mask), await createImageBitmap(png));
      if (this.#filled.size > KEPT) this.#filled.delete(this.#filled.keys().next().value);
      this.dispatchEvent(new Event("change"));
    } catch (error) {
      console.warn("no preview of the gap:", error); // stripes stay, and a run says what is wrong
    } finally {
      this.#busy = false;
    }
    await this.#ask();
  }
}

/** @param {import("./session.js").Picture} photo @param {import("./mask.js").Mask} mask */
const keyOf = (photo, mask) => `${photo.id} ${mask.checksum}`;

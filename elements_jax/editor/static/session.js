// The state of the page: the photograph, the pictures that its script names, and the history of the script's edits.
//
// Each gesture makes a new list of edits, and the server says what canvas comes of it. Only what it accepted stays.

import * as api from "./api.js";
import { Canvas } from "./canvas.js";
import { arrivals } from "./edits.js";

/**
 * @typedef {{name: string, blob: Blob, id: string}} Picture
 * @typedef {Picture & {fit: "crop"|"pad", said: string, box: number[]}} Photo `box` is what of the square is photograph
 * @typedef {{edit: string, elements?: number[], image?: string, by?: number[], scale?: number|number[],
 *            anchor?: number[]}} Edit
 */

const CACHED = 48;

export class Session extends EventTarget {
  #steps = [[]];
  #at = 0;
  #accepted = { steps: [[]], at: 0, tolerance: 0 };
  #asked = 0;
  #works = 0;
  /** @type {Map<string, Canvas>} */
  #canvases = new Map();

  /** @param {number} count elements of a canvas @param {() => object} settings the script's fields but edits and fit */
  constructor(count, settings) {
    super();
    this.count = count;
    this.settings = settings;
    this.tolerance = 0;
    /** @type {Photo?} */ this.photo = null;
    /** @type {Map<string, Picture>} */ this.images = new Map();
    /** @type {Canvas?} */ this.canvas = null;
    /** @type {Canvas?} the canvas before the last edit */ this.before = null;
    /** @type {Set<number>} */ this.selection = new Set();
    /** @type {Set<number>} what the last edit inserted */ this.inserted = new Set();
  }

  /** Whether an answer of the server is awaited. */
  get busy() {
    return this.#works > 0;
  }

  /** @returns {Edit[]} */
  get edits() {
    return this.#steps[this.#at];
  }

  get canUndo() {
    return this.#at > 0;
  }

  get canRedo() {
    return this.#at < this.#steps.length - 1;
  }

  /** The whole script, as it is saved and run. */
  script(settings = this.settings()) {
    return { version: 1, edits: this.edits, ...settings, tolerance: this.tolerance, fit: this.photo?.fit ?? "crop" };
  }

  /** A request about this photograph, with the pictures that the script names. @param {{edits: Edit[]}} script */
  request(script) {
    const names = script.edits.flatMap(({ image }) => (image ? [image] : []));
    return {
      image: this.photo.id,
      images: Object.fromEntries(names.map((name) => [name, this.images.get(name).id])),
      script,
    };
  }

  /** Start anew with a photograph. @param {Blob} blob @param {string} name @param {"crop"|"pad"} fit */
  async open(blob, name, fit) {
    await this.#working(async () => {
      const { id, said, box } = await api.upload(blob, fit);
      const photo = { name, blob, id, fit, said, box };
      const canvas = await this.#canvasOfPicture(photo, fit);
      Object.assign(this, { photo, canvas, before: null, images: new Map() });
      this.#canvases.clear();
      this.#canvases.set(this.#key([]), canvas);
      this.#asked++;
      this.#steps = [[]];
      this.#at = 0;
      this.#accepted = { steps: this.#steps, at: 0, tolerance: this.tolerance };
      this.inserted = new Set();
      this.select([]);
    });
    this.#tell("canvas");
  }

  /** Make a picture known by a name that is not taken yet. @returns {Promise<string>} the name */
  async addImage(/** @type {Blob} */ blob, /** @type {string} */ wanted) {
    const [, stem, end] = wanted.match(/^(.*?)(\.\w+)?$/);
    let name = wanted;
    for (let i = 2; this.images.has(name); i++) name = `${stem}-${i}${end ?? ""}`;
    const { id } = await api.upload(blob, this.photo.fit);
    this.images.set(name, { name, blob, id });
    return name;
  }

  /** The canvas of a named picture, unedited. @param {string} name */
  async canvasOfImage(name) {
    const key = `image ${name}`;
    if (!this.#canvases.has(key)) this.#keep(key, await this.#canvasOfPicture(this.images.get(name)));
    return this.#canvases.get(key);
  }

  /** @param {Iterable<number>} numbers */
  select(numbers) {
    this.selection = new Set([...numbers].filter((n) => this.canvas?.elements.has(n)));
    this.#tell("selection");
  }

  /** Append an edit. @param {Edit} edit */
  append(edit) {
    return this.change([...this.edits, edit]);
  }

  /**
   * One step of the history. Rejects with the server's reason, and then all is as it was.
   * @param {Edit[]} edits @param {number} [tolerance] of the whole script
   */
  async change(edits, tolerance) {
    const steps = [...this.#steps.slice(0, this.#at + 1), edits];
    await this.#go(steps, steps.length - 1, tolerance);
    this.#tell("changed");
  }

  async undo() {
    if (!this.canUndo) return;
    const undone = this.edits;
    await this.#go(this.#steps, this.#at - 1);
    const { edit, elements } = undone.at(-1) ?? {};
    const gone = undone.length > this.edits.length; // else it was changed, not appended
    if (gone && elements && edit !== "compose") this.select(elements);
  }

  async redo() {
    if (this.canRedo) await this.#go(this.#steps, this.#at + 1);
  }

  /** @param {number} tolerance of the whole script, whose edits it may change */
  async setTolerance(tolerance) {
    if (this.photo) await this.#go(this.#steps, this.#at, tolerance);
    else this.tolerance = tolerance;
  }

  /** The elements that a SAM click selects. @param {number[][]} positive @param {number[][]} negative */
  async objects(positive, negative) {
    const script = this.#bare(this.edits);
    return (await this.#known(() => api.objects({ ...this.request(script), positive, negative }))).elements;
  }

  /** Those of another picture. @param {string} name @param {number[][]} positive @param {number[][]} negative */
  async objectsOfImage(name, positive, negative) {
    const ask = () => api.objects({ image: this.images.get(name).id, images: {}, script: this.#bare([]), positive, negative });
    return (await this.#known(ask)).elements;
  }

  /** @param {object} script @param {number} variants */
  run(script, variants) {
    return this.#known(() => api.run({ ...this.request(script), variants }));
  }

  async #go(/** @type {Edit[][]} */ steps, /** @type {number} */ at, tolerance = this.tolerance) {
    const ticket = ++this.#asked;
    this.#steps = steps;
    this.#at = at;
    this.tolerance = tolerance;
    this.#tell("history");
    const edits = this.edits;
    try {
      await this.#working(async () => {
        const before = edits.length ? await this.#canvasOf(edits.slice(0, -1)) : null;
        const canvas = await this.#canvasOf(edits);
        if (ticket !== this.#asked) return;
        const last = edits.at(-1);
        const same = this.#accepted.steps === steps && this.#accepted.at === at;
        const source = last?.edit === "compose" ? await this.canvasOfImage(last.image) : before;
        Object.assign(this, { canvas, before });
        this.#accepted = { steps, at, tolerance };
        this.inserted = last && isInsertion(last) ? arrivals(last, source, canvas) : new Set();
        if (same) this.select(this.selection);
        else this.select(last && isInsertion(last) ? this.inserted : (last?.elements ?? this.selection));
        this.#tell("canvas");
      });
    } catch (error) {
      if (ticket === this.#asked) {
        this.#steps = this.#accepted.steps;
        this.#at = this.#accepted.at;
        this.tolerance = this.#accepted.tolerance;
        this.#tell("history");
      }
      throw error;
    }
  }

  /** @param {Edit[]} edits @returns {Promise<Canvas>} */
  async #canvasOf(edits) {
    const key = this.#key(edits);
    if (!this.#canvases.has(key)) {
      const answer = await this.#known(() => api.canvas(this.request(this.#bare(edits))));
      // Holes are what was left uncovered since the picture that the edits go on from.
      const goesOn = edits.findLastIndex(({ edit }) => edit === "continue") + 1;
      const whole = goesOn === edits.length ? undefined : await this.#canvasOf(edits.slice(0, goesOn));
      this.#keep(key, await Canvas.read(answer, this.count, whole?.labels));
    }
    return this.#canvases.get(key);
  }

  async #canvasOfPicture(/** @type {Picture} */ picture, fit = this.photo.fit) {
    const ask = () => api.canvas({ image: picture.id, images: {}, script: { version: 1, fit } });
    return Canvas.read(await this.#known(ask), this.count);
  }

  /** What of a script makes its canvas. */
  #bare(/** @type {Edit[]} */ edits) {
    return { version: 1, edits, tolerance: this.tolerance, fit: this.photo?.fit ?? "crop" };
  }

  #key(/** @type {Edit[]} */ edits) {
    return JSON.stringify([edits, edits.length ? this.tolerance : 0]);
  }

  #keep(/** @type {string} */ key, /** @type {Canvas} */ canvas) {
    this.#canvases.set(key, canvas);
    if (this.#canvases.size > CACHED) this.#canvases.delete(this.#canvases.keys().next().value);
  }

  /** A server that was restarted, or forgot pictures, gets them again. @template T @param {() => Promise<T>} ask */
  async #known(ask) {
    try {
      return await ask();
    } catch (error) {
      if (error.status !== 404 || !this.photo) throw error;
      for (const picture of [this.photo, ...this.images.values()]) {
        picture.id = (await api.upload(picture.blob, this.photo.fit)).id;
      }
      return ask();
    }
  }

  /** Resolves when no answer is awaited. */
  async idle() {
    while (this.busy) await new Promise((done) => this.addEventListener("busy", done, { once: true }));
  }

  /** @param {() => Promise<void>} work */
  async #working(work) {
    this.#works++;
    this.#tell("busy");
    try {
      await work();
    } finally {
      this.#works--;
      this.#tell("busy");
    }
  }

  #tell(/** @type {string} */ what) {
    this.dispatchEvent(new Event(what));
  }
}

/** @param {Edit} edit */
export const isInsertion = (edit) => edit.edit === "duplicate" || edit.edit === "compose";

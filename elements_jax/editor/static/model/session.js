// The state of the page: the photograph, the images and masks named in its script, and the history of its edits.
//
// Every gesture adds a list of edits. The scene is computed here; only finding objects and running need the server.

import * as api from "./api.js";
import { Mask } from "./mask.js";
import { Scene, insertedAt, scaleOf } from "./scene.js";
import { then } from "./placement.js";

/**
 * @typedef {{name: string, blob: Blob, id: string?}} Named a file named in scripts; its id is null until it is uploaded
 * @typedef {Named & {width: number, height: number, shown: [number, number], bitmap: ImageBitmap, notes: string[],
 *            format: string, labels?: Promise<Labels>}} Picture
 * @typedef {{width: number, height: number, numbers: Uint16Array}} Labels
 * @typedef {{edit: string, object?: any, image?: string, by?: number[], scale?: number|number[], anchor?: number[]}} Edit
 * @typedef {import("./scene.js").Selection} Selection
 * @typedef {{edits: Edit[], selection: Selection?, what: string}} Step
 */

const EMPTY = { edits: [], selection: null, what: "" };

export class Session extends EventTarget {
  /** @type {Step[]} */ #steps = [EMPTY];
  #at = 0;
  #works = 0;
  /** @type {Map<string, Mask>} of objects, by picture and place */ #masks = new Map();
  /** @type {Picture?} */ photo = null;
  /** @type {Map<string, Named>} */ images = new Map();
  /** @type {Scene?} */ scene = null;
  /** @type {Selection?} */ selection = null;

  /** @param {() => object} settings the script's fields except edits */
  constructor(settings) {
    super();
    this.settings = settings;
  }

  get busy() {
    return this.#works > 0;
  }

  /** @returns {Edit[]} */
  get edits() {
    return this.#steps[this.#at].edits;
  }

  get canUndo() {
    return this.#at > 0;
  }

  get canRedo() {
    return this.#at < this.#steps.length - 1;
  }

  /** The complete script, to save and run. */
  script() {
    return { version: 1, edits: this.edits, ...this.settings() };
  }

  /** The files that edits name. @param {Edit[]} edits @returns {Named[]} */
  named(edits = this.edits) {
    const names = edits.flatMap(({ image, object }) => [image, object?.mask]).filter(Boolean);
    return [...new Set(names)].map((name) => this.images.get(name));
  }

  /** Start from scratch with a photograph. @param {Blob} blob @param {string} name @param {(part: number) => void} [progress] */
  async open(blob, name, progress) {
    await this.#working(async () => {
      this.photo = await this.#read(blob, name, progress);
    });
    this.#begin();
    this.#show();
  }

  /** Forget all edits and named files. */
  #begin() {
    this.images = new Map();
    this.selection = null;
    this.#masks.clear();
    this.#steps = [EMPTY];
    this.#at = 0;
  }

  /** @returns {Promise<Picture>} */
  async #read(/** @type {Blob} */ blob, /** @type {string} */ name, /** @type {any} */ progress = undefined) {
    let found;
    try {
      found = await api.upload(blob, progress);
    } catch (error) {
      error.message = `${name}: ${error.message}`;
      throw error;
    }
    const bitmap = await createImageBitmap(await api.fetchBlob(api.viewUrl(found.id)));
    return { ...found, name, blob, bitmap };
  }

  /** Add another photograph under an unused name. @param {Blob} blob @param {string} wanted */
  async addPicture(blob, wanted) {
    const picture = await this.#working(() => this.#read(blob, this.#free(wanted)));
    this.images.set(picture.name, picture);
    return picture;
  }

  #addFile(/** @type {Blob} */ blob, /** @type {string} */ name) {
    this.images.set(name, { name, blob, id: null });
  }

  #free(/** @type {string} */ wanted) {
    const [, stem, end] = wanted.match(/^(.*?)(\.\w+)?$/);
    let name = wanted;
    for (let i = 2; this.images.has(name); i++) name = `${stem}-${i}${end ?? ""}`;
    return name;
  }

  // Selecting

  /** @param {Selection?} selection */
  select(selection) {
    this.selection = selection;
    this.#tell("selection");
  }

  /** Find the object at a place, by the server. @param {any} object @param {Picture} [picture] */
  async find(object, picture = this.photo) {
    const key = keyOf(object, picture === this.photo ? null : picture.name);
    if (!this.#masks.has(key)) {
      await this.#working(async () => {
        const ask = async () => api.object({ images: await this.#ids([{ object }]), image: picture.id, object });
        const { mask } = await this.#known(ask);
        this.#masks.set(key, await Mask.read(mask, picture.shown));
      });
    }
    return this.#masks.get(key);
  }

  /** The piece number of each pixel. @param {Picture} picture */
  pieces(picture) {
    picture.labels ??= this.#working(() => this.#known(() => api.pieces(picture.id)));
    picture.labels.catch(() => delete picture.labels);
    return picture.labels;
  }

  /** The script's object for a selection of pixels; a drawn mask becomes a file. */
  async #objectOf(/** @type {{mask: Mask, object: any}} */ selection, /** @type {Picture} */ picture) {
    if (!selection.object) {
      const blob = await this.#working(() => selection.mask.png());
      const name = this.#free("mask-1.png");
      this.#addFile(blob, name);
      selection.object = { mask: name };
      this.#masks.set(keyOf(selection.object, picture === this.photo ? null : picture.name), selection.mask);
    }
    return selection.object;
  }

  /** Whether a layer contains everything that its edit selected. @param {import("./scene.js").Layer} layer */
  isWhole({ mask, made }) {
    const { object } = this.edits[made];
    return this.#masks.get(keyOf(object, null)) === mask;
  }

  // Editing

  /** One step of the history. @param {Edit[]} edits @param {Selection?} selection the new one @param {string} what was done */
  change(edits, selection, what) {
    const before = { ...this.#steps[this.#at], selection: this.selection }; // restored by undo
    this.#steps = [...this.#steps.slice(0, this.#at), before, { edits, selection, what }];
    this.#at++;
    this.selection = selection;
    this.#show();
  }

  /**
   * Move or resize the selection.
   * @param {import("./placement.js").Placement} placement @param {string} what was done
   */
  async put(placement, what) {
    const { selection, photo, scene } = this;
    if ("edit" in selection) {
      const edit = this.edits[selection.edit];
      const { moved, around } = scene.insertions.get(selection.edit);
      const other = this.#pictureOf(edit);
      const changed = insertedAt(edit, { moved: then(moved, placement), around }, photo, other);
      return this.change(this.edits.with(selection.edit, changed), selection, what);
    }
    const object = await this.#objectOf(selection, photo);
    const { scale, offset } = placement;
    const size = photo.shown;
    if (scale[0] === 1 && scale[1] === 1) {
      const by = offset.map((v, i) => v / size[i]);
      return this.change([...this.edits, { edit: "move", object, by }], selection, what);
    }
    // The fixed point; there is none along an axis that is only shifted.
    const anchor = scale.map((s, i) => (s === 1 ? 0.5 : offset[i] / (1 - s) / size[i]));
    this.change([...this.edits, { edit: "resize", object, scale: scaleOf(scale), anchor }], selection, what);
  }

  async remove() {
    const { selection } = this;
    if ("edit" in selection) return this.change(this.edits.toSpliced(selection.edit, 1), null, "Deleted");
    this.change([...this.edits, { edit: "delete", object: await this.#objectOf(selection, this.photo) }], null, "Deleted");
  }

  /** Insert a copy next to the selection. @param {number[]} by in units of the photograph's width and height */
  async duplicate(by) {
    const { selection, edits } = this;
    if ("edit" in selection) {
      const edit = edits[selection.edit];
      const copy = { ...edit, by: edit.by.map((v, i) => v + by[i]) };
      const at = selection.edit + 1;
      return this.change(edits.toSpliced(at, 0, copy), { edit: at }, "Copied");
    }
    const object = await this.#objectOf(selection, this.photo);
    this.change([...edits, { edit: "duplicate", object, by, scale: 1 }], { edit: edits.length }, "Copied");
  }

  /** Insert an object of another photograph. @param {Picture} other @param {{mask: Mask, object: any}} selection @param {number[]} by */
  async insert(other, selection, by = [0, 0]) {
    const object = await this.#objectOf(selection, other);
    const edit = { edit: "compose", image: other.name, object, by, scale: 1 };
    this.change([...this.edits, edit], { edit: this.edits.length }, "Inserted");
  }

  undo() {
    const { what } = this.#steps[this.#at];
    this.#go(this.#at - 1);
    return what;
  }

  redo() {
    this.#go(this.#at + 1);
    return this.#steps[this.#at].what;
  }

  #go(/** @type {number} */ at) {
    this.#at = at;
    this.selection = this.#steps[at].selection;
    this.#show();
  }

  #show() {
    this.scene = Scene.of(this.photo, this.edits, (edit) => {
      const picture = this.#pictureOf(edit);
      return { picture, mask: this.#masks.get(keyOf(edit.object, edit.image ?? null)) };
    });
    this.#tell("scene");
  }

  #pictureOf(/** @type {Edit} */ { image }) {
    return image ? /** @type {Picture} */ (this.images.get(image)) : this.photo;
  }

  // Other sessions

  /** Start from scratch with the edits of a script. @param {Edit[]} edits @param {Map<string, Blob>} files named in them */
  async load(edits, files) {
    this.#begin();
    this.#show();
    for (const [name, blob] of files) this.#addFile(blob, name);
    await this.#take(edits);
  }

  /** Load edits whose files are known. @param {Edit[]} edits */
  async #take(edits) {
    for (const name of new Set(edits.flatMap(({ image }) => image ?? []))) {
      const named = this.images.get(name);
      if (!("bitmap" in named)) this.images.set(name, await this.#working(() => this.#read(named.blob, name)));
    }
    for (const edit of edits) await this.find(edit.object, this.#pictureOf(edit));
    this.change(edits, null, "Loaded the script");
  }

  /** Everything needed to resume later. */
  saved() {
    const { photo, edits } = this;
    const images = this.named().map(({ name, blob }) => ({ name, blob }));
    const masks = edits.map(({ object, image }) => [keyOf(object, image ?? null), this.#masks.get(keyOf(object, image ?? null))]);
    return { name: photo.name, blob: photo.blob, edits, images, masks: masks.map(([key, { width, height, data }]) => ({ key, width, height, data })) };
  }

  /** @param {ReturnType<Session["saved"]>} saved */
  async restore({ name, blob, edits, images, masks }) {
    await this.open(blob, name);
    for (const { name, blob } of images) this.#addFile(blob, name);
    for (const { key, width, height, data } of masks) this.#masks.set(key, new Mask(width, height, data));
    await this.#take(edits);
  }

  // The server

  /** @param {any} script @param {number} variants */
  run(script, variants) {
    const ask = async () => api.run({ images: await this.#ids(script.edits), image: this.photo.id, script, variants });
    return this.#known(ask);
  }

  /** Ids of the files named in edits; uploads missing ones. @param {Edit[]} edits */
  async #ids(edits) {
    const named = this.named(edits);
    for (const each of named) each.id ??= (await api.upload(each.blob)).id;
    return Object.fromEntries(named.map(({ name, id }) => [name, id]));
  }

  /** Upload images again if the server was restarted or forgot them. @template T @param {() => Promise<T>} ask */
  async #known(ask) {
    try {
      return await ask();
    } catch (error) {
      if (error.status !== 404 || !this.photo) throw error;
      for (const named of [this.photo, ...this.images.values()]) named.id = (await api.upload(named.blob)).id;
      return ask();
    }
  }

  /** Resolves when no answer is pending. */
  async idle() {
    while (this.busy) await new Promise((done) => this.addEventListener("busy", done, { once: true }));
  }

  /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  async #working(work) {
    this.#works++;
    this.#tell("busy");
    try {
      return await work();
    } finally {
      this.#works--;
      this.#tell("busy");
    }
  }

  #tell(/** @type {string} */ what) {
    this.dispatchEvent(new Event(what));
  }
}

const keyOf = (/** @type {any} */ object, /** @type {string?} */ image) => JSON.stringify([image, object]);

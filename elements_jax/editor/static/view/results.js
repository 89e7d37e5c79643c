// Runs and their results: progress, the gallery of variants, and the comparison of before and after.

import * as api from "../model/api.js";

const $ = (/** @type {string} */ query) => /** @type {any} */ (document.querySelector(query));
const running = { box: $("#running"), bar: $("#progress"), text: $("#progress-text"), cancel: $("#cancel") };

/**
 * @typedef {{blob: Blob, bitmap: ImageBitmap, name: string, seed: number, number: number,
 *            photo: import("../model/session.js").Picture}} Result the edited photograph's file and its displayed image
 */

export class Results extends EventTarget {
  /** @type {Result[]} */ all = [];
  /** @type {Result?} the one on the stage */ shown = null;
  /** @type {string?} */ #job = null;

  /** @param {import("./stage.js").Stage} stage */
  constructor(stage) {
    super();
    this.stage = stage;
    running.cancel.addEventListener("click", () => this.cancel());
    $("#split").addEventListener("input", ({ target }) => {
      if (stage.comparison) stage.comparison.split = target.value / 100;
      stage.draw();
    });
  }

  get running() {
    return this.#job !== null;
  }

  /**
   * Follow a job to its end, taking its results as they come.
   * @param {Promise<import("../model/api.js").Job>} started @param {number} seed @param {import("../model/session.js").Picture} photo
   * @returns {Promise<import("../model/api.js").Job>}
   */
  async follow(started, seed, photo) {
    this.#job = "";
    progress(null);
    this.#tell();
    running.cancel.focus();
    try {
      const { id } = await started;
      this.#job = id;
      let taken = 0;
      let adding = Promise.resolve();
      const ended = await api.follow(id, (job) => {
        progress(job);
        for (; taken < job.results.length; taken++) {
          const [path, own] = [job.results[taken].slice(1), seed + taken]; // relative, since a proxy may serve the page below a path
          adding = adding.then(() => this.#add(path, own, photo));
        }
      });
      await adding;
      return ended;
    } finally {
      this.#job = null;
      running.box.hidden = true;
      this.#tell();
    }
  }

  cancel() {
    if (this.#job) return api.cancel(this.#job);
  }

  /** @param {Result?} result null for the edits */
  show(result) {
    this.shown = result;
    for (const [i, thumb] of [...$("#gallery").children].entries()) {
      thumb.firstChild.setAttribute("aria-pressed", String(this.all[i] === result));
    }
    const { stage } = this;
    stage.comparison = result && { before: result.photo.bitmap, after: result.bitmap, split: $("#split").value / 100 };
    if (result) {
      stage.view.show(result.photo.shown);
      $("#result-name").textContent = `Result ${result.number}`;
      $("#result-name").title = `${result.name}, seed ${result.seed}`;
    } else if (stage.scene) {
      stage.view.show(stage.scene.photo.shown);
    }
    stage.draw();
    this.#tell();
  }

  /** Fetch the file once and keep it, since the server may forget it. */
  async #add(/** @type {string} */ path, /** @type {number} */ seed, /** @type {import("../model/session.js").Picture} */ photo) {
    const [blob, view] = await Promise.all([api.fetchBlob(path), api.fetchBlob(`${path}/view`)]);
    const name = editedName(photo);
    const number = this.all.length + 1;
    const result = { blob, bitmap: await createImageBitmap(view), name, seed, number, photo };
    this.all.push(result);
    const button = document.createElement("button");
    button.type = "button";
    button.title = `Result ${number} of ${photo.name}, seed ${seed}`;
    const image = new Image();
    image.src = URL.createObjectURL(view);
    image.alt = button.title;
    button.append(image);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => this.show(result));
    const item = document.createElement("li");
    item.append(button);
    $("#gallery").append(item);
    $("#no-results").hidden = true;
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

/** The name that `elements edit` would use. @param {import("../model/session.js").Picture} photo */
function editedName({ name, format }) {
  const [, stem, suffix] = name.match(/^(.+?)(\.\w+)?$/);
  return `${stem.replace(/-edited$/, "")}-edited${suffix ?? `.${format}`}`;
}

/** @param {import("../model/api.js").Job?} job */
function progress(job) {
  const { box, bar, text } = running;
  box.hidden = false;
  if (!job || job.status === "queued") {
    bar.removeAttribute("value");
    text.textContent = job?.position > 0 ? `Waiting: ${job.position} ${job.position === 1 ? "job" : "jobs"} ahead of yours` : "Waiting";
    return;
  }
  const which = job.variants > 1 ? `Variant ${Math.min(job.variant + 1, job.variants)} of ${job.variants}: ` : "";
  if (!job.step) {
    bar.removeAttribute("value");
    text.textContent = `${which}Finding what to fill`;
    return;
  }
  bar.max = job.steps;
  bar.value = job.step;
  const last = job.step === job.steps;
  text.textContent = `${which}${last ? "Filling the gaps" : `Looking at the surroundings, step ${job.step} of ${job.steps}`}`;
}

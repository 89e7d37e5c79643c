// Runs and what comes of them: progress, the gallery of variants, and the comparison of before and after.

import * as api from "./api.js";

const $ = (/** @type {string} */ query) => /** @type {any} */ (document.querySelector(query));
const running = { box: $("#running"), bar: $("#progress"), text: $("#progress-text"), cancel: $("#cancel") };

/**
 * @typedef {{blob: Blob, url: string, script: any, number: number, photo: import("./session.js").Photo}} Result
 * `script` is the one that makes it again of the photo, seed and all
 */

export class Results extends EventTarget {
  /** @type {Result[]} */ all = [];
  /** @type {Result?} the one on the stage */ shown = null;
  /** @type {string?} */ #job = null;

  /** @param {import("./stage.js").Stage} stage whose place and size the comparison takes */
  constructor(stage) {
    super();
    this.stage = stage;
    new ResizeObserver(() => this.fit()).observe(stage.root.parentElement);
    running.cancel.addEventListener("click", () => this.cancel());
    $("#split").addEventListener("input", ({ target }) => {
      $("#compare").style.setProperty("--split", `${target.value}%`);
    });
  }

  get running() {
    return this.#job !== null;
  }

  /**
   * Follow a job to its end, taking its results as they come.
   * @param {Promise<import("./api.js").Job>} started @param {any} script @param {import("./session.js").Photo} photo
   * @returns {Promise<import("./api.js").Job>}
   */
  async follow(started, script, photo) {
    this.#job = "";
    progress(null);
    this.#tell();
    try {
      const { id } = await started;
      this.#job = id;
      let taken = 0;
      let adding = Promise.resolve();
      const ended = await api.follow(id, (job) => {
        progress(job);
        for (; taken < job.results.length; taken++) {
          const [url, seed] = [job.results[taken], script.seed + taken];
          adding = adding.then(() => this.#add(url, { ...script, seed }, photo));
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

  /** @param {Result?} result null for the canvas */
  show(result) {
    this.shown = result;
    for (const [i, thumb] of [...$("#gallery").children].entries()) {
      thumb.firstChild.setAttribute("aria-pressed", String(this.all[i] === result));
    }
    $("#compare").hidden = !result;
    if (result) {
      $("#before").src = api.imageUrl(result.photo.id);
      $("#after").src = result.url;
      this.fit();
      $("#result-name").textContent = `Result ${result.number}, seed ${result.script.seed}`;
    }
    this.#tell();
  }

  /** As large as the stage. A result has no margins: it lies where the photograph lies in the square. */
  fit() {
    if (!this.shown) return;
    const { side, size, pixelated } = this.stage.measure();
    $("#compare").style.width = $("#compare").style.height = `${side}px`;
    $("#compare").classList.toggle("pixelated", pixelated);
    const [left, top, right, bottom] = this.shown.photo.box.map((v) => `${(100 * v) / size}%`);
    Object.assign($("#after").style, { left, top, width: `calc(${right} - ${left})`, height: `calc(${bottom} - ${top})` });
  }

  /** The picture is fetched once and kept, since the server may forget it. */
  async #add(/** @type {string} */ address, /** @type {any} */ script, /** @type {any} */ photo) {
    const blob = await api.fetchBlob(address);
    const result = { blob, url: URL.createObjectURL(blob), script, photo, number: this.all.length + 1 };
    this.all.push(result);
    const button = document.createElement("button");
    button.type = "button";
    button.title = `Result ${result.number}, seed ${result.script.seed}`;
    const image = new Image();
    image.src = result.url;
    image.alt = button.title;
    button.append(image);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => this.show(result));
    const item = document.createElement("li");
    item.append(button);
    $("#gallery").append(item);
    item.scrollIntoView({ block: "nearest" });
    $("#no-results").hidden = true;
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

/** @param {import("./api.js").Job?} job */
function progress(job) {
  const { box, bar, text } = running;
  box.hidden = false;
  if (!job || job.status === "queued") {
    bar.removeAttribute("value");
    text.textContent = job?.position > 0 ? `Waiting: ${job.position} ${job.position === 1 ? "job" : "jobs"} ahead of yours` : "Waiting";
    return;
  }
  bar.max = job.variants * job.steps;
  bar.value = Math.min(bar.max, job.variant * job.steps + job.step);
  const step = job.step ? `step ${job.step} of ${job.steps}` : "compiling"; // for the first picture of its kind
  text.textContent = `Variant ${job.variant + 1} of ${job.variants}, ${step}`;
}

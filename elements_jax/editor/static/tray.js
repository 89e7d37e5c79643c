// The tray: a second picture beside the canvas, whose elements may be taken.

import { Stage } from "./stage.js";

const $ = (/** @type {string} */ query) => /** @type {any} */ (document.querySelector(query));

export class Tray {
  /** @type {string?} the name of its picture */ image = null;

  constructor() {
    this.stage = new Stage($("#tray-stage"));
    $("#close-tray").addEventListener("click", () => this.close());
  }

  /** @param {import("./session.js").Session} session @param {File} file */
  async open(session, file) {
    const name = await session.addImage(file, file.name);
    const canvas = await session.canvasOfImage(name);
    this.image = name;
    $("#tray").hidden = false;
    $("#tray-name").textContent = name;
    this.stage.selection = new Set();
    this.stage.points = { positive: [], negative: [] };
    this.stage.show(canvas);
    this.select([]);
  }

  /** @param {Iterable<number>} numbers */
  select(numbers) {
    this.stage.select(new Set(numbers));
    const count = this.stage.selection.size;
    $("#insert").disabled = !count;
    $("#tray-selected").textContent = count ? `${count} selected` : "Select elements, and drag them over";
  }

  close() {
    this.image = null;
    $("#tray").hidden = true;
  }
}

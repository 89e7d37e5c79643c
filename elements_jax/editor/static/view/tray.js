// The tray: a second photograph next to the first, whose objects can be inserted.

import { Scene } from "../model/scene.js";
import { Stage } from "./stage.js";

const $ = (/** @type {string} */ query) => /** @type {any} */ (document.querySelector(query));

export class Tray {
  /** @type {import("../model/session.js").Picture?} */ picture = null;
  /** @type {import("../model/scene.js").Selection?} */ selection = null;

  constructor() {
    this.stage = new Stage($("#tray-stage"));
    $("#close-tray").addEventListener("click", () => this.close());
  }

  /** @param {import("../model/session.js").Picture} picture */
  open(picture) {
    this.picture = picture;
    $("#tray").hidden = false;
    $("#tray-name").textContent = $("#tray-name").title = picture.name;
    this.stage.show(new Scene(picture));
    this.select(null);
  }

  /** @param {import("../model/scene.js").Selection?} selection */
  select(selection) {
    this.selection = selection;
    this.stage.select(selection ? this.stage.scene.pieces(selection) : []);
    $("#insert").disabled = !selection;
    $("#tray-selected").textContent = selection ? "Drag it over" : "Select an object";
  }

  close() {
    this.picture = null;
    $("#tray").hidden = true;
  }
}

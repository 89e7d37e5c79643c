// Loading a script: asks for the images and masks named in it.

import * as api from "../model/api.js";
import * as settings from "./settings.js";

const dialog = /** @type {HTMLDialogElement} */ (document.querySelector("#ask-pictures"));

/**
 * @param {import("../model/session.js").Session} session @param {File} file
 * @returns {Promise<boolean>} whether it was loaded, not cancelled
 */
export async function loadScript(session, file) {
  const { script } = await api.readScript(file).catch((error) => {
    error.message = `${file.name} is not an edit script: ${error.message}`;
    throw error;
  });
  const edits = script.edits ?? [];
  const other = edits.find((/** @type {any} */ edit) => !edit.object);
  if (other) {
    const why = other.edit === "continue" ? "continues from an earlier result" : "names elements by number";
    throw new Error(`${file.name} ${why}: run it with "elements edit".`);
  }
  const names = edits.flatMap((/** @type {any} */ { image, object }) => [image, object.mask]).filter(Boolean);
  const named = /** @type {string[]} */ ([...new Set(names)]);
  const wanted = [...(session.photo ? [] : [null]), ...named];
  const files = wanted.length ? await askFor(wanted) : new Map();
  if (!files) return false;
  if (session.edits.length && !confirm("Load the script? Your edits will be lost.")) return false;
  const photo = files.get(null);
  if (photo) await session.open(photo, photo.name);
  await session.load(edits, new Map(named.map((name) => [name, files.get(name)])));
  settings.write(script);
  return true;
}

/** @param {(string | null)[]} wanted null for the photograph itself @returns {Promise<Map<string | null, File>?>} */
function askFor(wanted) {
  const rows = wanted.map((name) => {
    const [label, input] = [document.createElement("label"), document.createElement("input")];
    label.textContent = name ?? "The photograph";
    input.type = "file";
    input.accept = "image/*";
    input.required = true;
    label.append(input);
    return label;
  });
  dialog.querySelector(".pictures").replaceChildren(...rows);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const inputs = rows.map((row) => row.querySelector("input"));
        resolve(dialog.returnValue === "use" ? new Map(wanted.map((name, i) => [name, inputs[i].files[0]])) : null);
      },
      { once: true },
    );
  });
}

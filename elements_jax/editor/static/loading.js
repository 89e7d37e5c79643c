// Loading a script: pictures that it names and that are not open are asked for by name.

import * as api from "./api.js";
import * as settings from "./settings.js";

const dialog = /** @type {HTMLDialogElement} */ (document.querySelector("#ask-pictures"));

/**
 * @param {import("./session.js").Session} session @param {File} file
 * @returns {Promise<boolean>} whether it was loaded, not given up
 */
export async function loadScript(session, file) {
  const { script } = await api.readScript(file);
  const edits = script.edits ?? [];
  const named = edits.flatMap((/** @type {any} */ { image }) => (image ? [image] : []));
  const missing = [...new Set(named)].filter((name) => !session.images.has(name));
  const wanted = [...(session.photo ? [] : [null]), ...missing];
  const files = wanted.length ? await askFor(wanted) : new Map();
  if (!files) return false;
  const fit = script.fit ?? "crop";
  const photo = files.get(null);
  if (photo) await session.open(photo, photo.name, fit);
  else if (session.photo.fit !== fit) {
    throw new Error(`The script is for a photograph opened with "${fit}": undo all edits, choose that, and load it again.`);
  }
  for (const name of missing) await session.addImage(files.get(name), name);
  await session.change(edits, script.tolerance ?? 0);
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

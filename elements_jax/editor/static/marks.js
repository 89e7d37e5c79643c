// The dots that the last edit leaves: red where elements were, green where they went, blue crosses on those it deleted.

import { centroids } from "./stage.js";
import { isInsertion } from "./session.js";

/** @param {import("./session.js").Session} session @returns {import("./stage.js").Marks?} */
export function lastEdit({ edits, before, canvas, inserted }) {
  const last = edits.at(-1);
  if (!last?.elements || !before) return null;
  const taken = isInsertion(last) ? inserted : new Set(last.elements);
  const deleted = [...before.elements.keys()].filter((n) => !canvas.elements.has(n) || (inserted.has(n) && taken.has(n)));
  return {
    sources: last.edit === "move" || last.edit === "resize" || last.edit === "duplicate" ? centroids(before, last.elements) : [],
    targets: last.edit === "delete" ? [] : centroids(canvas, taken),
    deleted: centroids(before, deleted),
  };
}

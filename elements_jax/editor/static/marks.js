// What the last edit did: its dots, as in the paper's figures, and a sentence.

import { isInsertion } from "./session.js";
import { centroids } from "./stage.js";

/** @typedef {import("./session.js").Session} Session */

const DONE = { move: "Moved", resize: "Resized", delete: "Deleted", duplicate: "Copied", compose: "Inserted" };

/** Numbers of the elements that the last edit took, of those it made or moved, and of those it deleted. @param {Session} session */
function numbers({ edits, before, canvas, inserted }) {
  const last = edits.at(-1);
  if (!last?.elements || !before) return null;
  const targets = isInsertion(last) ? [...inserted] : last.elements.filter((n) => canvas.elements.has(n));
  // An insertion may take the numbers of what it deletes.
  const deleted = [...before.elements.keys()].filter((n) => !canvas.elements.has(n) || inserted.has(n));
  return { last, targets, deleted };
}

/**
 * Red dots where elements were, green where they went, blue crosses on those that were deleted.
 * @param {Session} session @returns {import("./stage.js").Marks?}
 */
export function marksOf(session) {
  const { last, targets, deleted } = numbers(session) ?? {};
  if (!last) return null;
  const { before, canvas } = session;
  return {
    sources: last.edit === "compose" || last.edit === "delete" ? [] : centroids(before, last.elements),
    targets: centroids(canvas, targets),
    deleted: centroids(before, deleted),
  };
}

/** @param {Session} session */
export function sentenceOf(session) {
  const { last, deleted } = numbers(session) ?? {};
  if (!last) return "";
  if (last.edit === "delete") return `Deleted ${count(deleted.length)}.`;
  const done = `${DONE[last.edit]} ${count(last.elements.length)}.`;
  if (!deleted.length) return done;
  const them = last.elements.length === 1 ? "it" : "them";
  return `${done.slice(0, -1)}; ${count(deleted.length)} beneath ${them} will be filled in.`;
}

const count = (/** @type {number} */ n) => (n === 1 ? "1 piece" : `${n} pieces`);

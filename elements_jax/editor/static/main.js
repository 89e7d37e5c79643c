// Wires the page: what is shown follows the session, and buttons, keys and the pointer act on it.

import * as api from "./api.js";
import { Nudging, combine, continueFrom, duplicate, insert, neighbour, remove } from "./commands.js";
import { dragHandle, dragIn, dragSelection } from "./dragging.js";
import { locked, setUpFields, showBox } from "./fields.js";
import { acceptDrops, acceptFile, acceptPaste, download, downloadText, refuseOtherDrops } from "./files.js";
import { sorted } from "./gestures.js";
import { bindKeys, listKeys } from "./keys.js";
import { loadScript } from "./loading.js";
import { marksOf, sentenceOf } from "./marks.js";
import { point } from "./pointing.js";
import { Results } from "./results.js";
import { Session } from "./session.js";
import * as settings from "./settings.js";
import { Stage } from "./stage.js";
import { attempt, fail, say } from "./status.js";
import { Tray } from "./tray.js";

const $ = (/** @type {string} */ query) => /** @type {any} */ (document.querySelector(query));
const on = (/** @type {string} */ query, /** @type {() => any} */ act) => $(query).addEventListener("click", () => attempt(act));

// A synthetic scene, of the kind that the package's own model has seen.
const EXAMPLE = {
  url: "static/example.png",
  size: 64,
  caption: "a yellow circle, a teal shaded heart and a brown marbled cross on a light green checked background",
};

const model = await api.model().catch((error) => {
  fail(error);
  throw error;
});
settings.setUp(model);
$("#model").textContent = model.name;
$("#notice").textContent = model.notice ?? "";
$("#notice").hidden = !model.notice;

const session = new Session(model.num_elements, settings.read);
const stage = new Stage($("#stage"));
stage.handles = true;
const tray = new Tray();
const results = new Results(stage);
const page = { session, stage, say, attempt, settle };
const nudging = new Nudging(page);

async function settle() {
  await nudging.end();
  await session.idle();
}

// What is shown

session.addEventListener("busy", () => stage.root.setAttribute("aria-busy", String(session.busy)));
session.addEventListener("history", showHistory);
session.addEventListener("selection", showSelection);
session.addEventListener("canvas", () => {
  stage.points = { positive: [], negative: [] };
  stage.selection = session.selection;
  stage.show(session.canvas);
  $("#fit").value = session.photo.fit;
  $("#said").textContent = $("#said").title = session.photo.said;
  document.body.classList.add("open");
  showHistory();
  showSelection();
  stage.marks = marksOf(session);
});
session.addEventListener("changed", () => say(sentenceOf(session)));
results.addEventListener("change", () => {
  const { shown } = results;
  stage.root.hidden = shown !== null;
  $("#edit-bar").hidden = shown !== null;
  $("#result-bar").hidden = shown === null;
  $("#run").disabled = results.running || !session.photo;
  if (!shown) stage.fit();
});

function showHistory() {
  $("#undo").disabled = !session.canUndo;
  $("#redo").disabled = !session.canRedo;
  $("#fit").disabled = session.edits.length > 0;
  $("#fit").title = session.edits.length ? "Undo all edits to change this" : "How a picture that is not square is made so";
  $("#tolerance").value = String(session.tolerance);
  $("#tolerance-value").textContent = `${Math.round(session.tolerance * 100)} %`;
  for (const query of ["#save-script", "#open-second", "#run"]) $(query).disabled = !session.photo;
  if (results.running) $("#run").disabled = true;
}

function showSelection() {
  const { selection, canvas } = session;
  stage.marks = null;
  stage.select(selection);
  showBox(stage);
  const count = selection.size;
  $("#duplicate").disabled = $("#delete").disabled = !count;
  const numbers = sorted(selection);
  $("#selected").textContent = count ? `${count} selected` : "Nothing selected";
  $("#selected").title = numbers.join(", ");
  const which = count ? `selected: ${numbers.join(", ")}` : "none selected";
  stage.root.setAttribute("aria-label", canvas ? `Picture of ${canvas.elements.size} elements, ${which}` : "No picture");
}

// Files

const openPhoto = (/** @type {File} */ file) =>
  attempt(async () => {
    await settle();
    if (session.edits.length && !confirm("Open another photo? Your edits to this one will be lost.")) return;
    say("Opening the photograph and dividing it into elements …");
    results.show(null);
    await session.open(file, file.name || "photo.png", $("#fit").value);
    tray.close();
    say(`${session.photo.said} ${session.canvas.elements.size} elements.`);
    stage.root.focus();
  });
const openSecond = (/** @type {File} */ file) =>
  attempt(async () => {
    say("Dividing the second picture into elements …");
    await tray.open(session, file);
    say(`${tray.image} is open beside the canvas: select elements in it and drag them over, or press Insert.`);
  });
const openScript = (/** @type {File} */ file) =>
  attempt(async () => {
    await settle();
    results.show(null);
    const loaded = await loadScript(session, file);
    say(loaded ? `The script was loaded: ${session.edits.length} edits. Its seed is locked.` : "No script was loaded.");
  });
const take = (/** @type {File} */ file) => (/\.json$/i.test(file.name) ? openScript(file) : openPhoto(file));

acceptFile($("#open"), $("#photo-file"), openPhoto);
on("#open-first", async () => $("#photo-file").click());
$("#example").hidden = model.image_size !== EXAMPLE.size;
on("#open-example", async () => {
  await openPhoto(new File([await (await fetch(EXAMPLE.url)).blob()], "example.png", { type: "image/png" }));
  $("#prompt").value = EXAMPLE.caption;
});
acceptFile($("#open-second"), $("#second-file"), openSecond);
acceptFile($("#load-script"), $("#script-file"), openScript);
acceptDrops($("#place"), take);
acceptDrops($("#tray"), openSecond);
refuseOtherDrops();
addEventListener("beforeunload", (event) => session.edits.length && event.preventDefault());
acceptPaste(take);
$("#fit").addEventListener("change", () => {
  if (session.photo) openPhoto(new File([session.photo.blob], session.photo.name));
});
on("#save-script", async () => {
  await settle();
  downloadText(JSON.stringify(session.script(), null, 2), "edit.json");
  const rounds = session.edits.flatMap(({ edit, image }) => (edit === "continue" ? [image] : []));
  for (const name of rounds) download(URL.createObjectURL(session.images.get(name).blob), name);
  say(rounds.length ? `Saved edit.json, and beside it what it continues from: ${rounds.join(", ")}.` : "Saved edit.json.");
});

// Selecting and pointing

/** @type {"select"|"box"|"lasso"|"object"} */
let tool = "select";
const tools = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("#tools [data-tool]")]);
function choose(/** @type {any} */ name) {
  if (name === "object" && !model.select_objects) return say($("[data-tool=object]").title);
  tool = name;
  for (const button of tools) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  clearPoints();
}
for (const button of tools) button.addEventListener("click", () => choose(button.dataset.tool));
if (!model.select_objects) {
  const button = $("[data-tool=object]");
  button.setAttribute("aria-disabled", "true");
  button.title = "Object selection is off: start the editor with --checkpoint FILE.";
}
function clearPoints() {
  for (const each of [stage, tray.stage]) {
    each.points = { positive: [], negative: [] };
    each.draw();
  }
}

/** A click of the object tool. @param {Stage} where @param {(p: number[][], n: number[][]) => Promise<number[]>} ask */
const objectClick = (where, ask, select) => (/** @type {boolean} */ positive, /** @type {[number, number]} */ at) =>
  attempt(async () => {
    const { points, canvas } = where;
    points[positive ? "positive" : "negative"].push(at);
    where.draw();
    if (!points.positive.length) return say("Click the object first; then what is not part of it.");
    const units = (/** @type {number[][]} */ list) => list.map((point) => point.map((v) => v / canvas.size));
    const numbers = await ask(units(points.positive), units(points.negative));
    select(numbers);
    const found = numbers.length === 1 ? "1 piece" : `${numbers.length} pieces`;
    say(numbers.length ? `Object found: ${found}. Click to add to it, Alt-click what is not part of it.` : "No object found here.");
  });

point(stage, {
  tool: () => tool,
  select: (numbers, mode) => session.select(combine(session.selection, numbers, mode)),
  drag: (event) => dragSelection(page, event),
  resize: (event, handle) => dragHandle(page, event, handle, locked),
  object: objectClick(
    stage,
    (...points) => session.objects(...points),
    (numbers) => session.select(numbers),
  ),
});
point(tray.stage, {
  tool: () => tool,
  select: (numbers, mode) => tray.select(combine(tray.stage.selection, numbers, mode)),
  drag: (event) => {
    results.show(null);
    return dragIn(page, tray.stage, tray.image, event);
  },
  resize: () => null,
  object: objectClick(
    tray.stage,
    (...points) => session.objectsOfImage(tray.image, ...points),
    (numbers) => tray.select(numbers),
  ),
});
setUpFields(page);

const active = () => (document.activeElement === tray.stage.root ? tray.stage : stage);
const selectOn = (/** @type {Stage} */ where, numbers) => (where === stage ? session : tray).select(numbers);
function step(/** @type {1|-1} */ by, /** @type {boolean} */ add) {
  const where = active();
  if (!where.canvas || results.shown) return;
  selectOn(where, combine(where.selection, neighbour(where, by), add ? "add" : "replace"));
  say(`Selected: ${sorted(where.selection).join(", ")}`);
}

// Commands

const act = {
  undo: async () => {
    results.show(null);
    await settle();
    await session.undo();
    say("Undone.");
  },
  redo: async () => {
    results.show(null);
    await settle();
    await session.redo();
    say("Redone.");
  },
  // What is not seen is not edited: with a result on the stage, keys leave the canvas alone.
  delete: async () => results.shown || remove(page),
  duplicate: async () => results.shown || duplicate(page),
  insert: async () => {
    results.show(null);
    await insert(page, tray.stage, tray.image);
  },
  run,
  help: async () => $("#help").showModal(),
  clear: async () => {
    if (results.shown) return results.show(null);
    clearPoints();
    selectOn(active(), []);
  },
  all: async () => active().canvas && !results.shown && selectOn(active(), active().canvas.elements.keys()),
  overlay: async () => {
    const show = !stage.overlay;
    $("#overlay").setAttribute("aria-pressed", String(show));
    for (const each of [stage, tray.stage]) {
      each.overlay = show;
      each.draw();
    }
  },
  continue: async () => {
    const { shown } = results;
    await continueFrom(page, shown);
    results.show(null);
    stage.root.focus();
    say(`Continuing from result ${shown.number}. Filled areas can now be edited; the rest keeps its original detail.`);
  },
};
for (const name of ["undo", "redo", "delete", "duplicate", "insert", "run", "overlay", "continue"]) on(`#${name}`, act[name]);
on("#show-help", act.help);
on("#to-edit", act.clear);
on("#download", async () => download(results.shown.url, `result-${results.shown.number}-seed-${results.shown.script.seed}.png`));
$("#tolerance").addEventListener("input", ({ target }) => {
  $("#tolerance-value").textContent = `${Math.round(target.value * 100)} %`;
});
$("#tolerance").addEventListener("change", ({ target }) =>
  attempt(async () => {
    const tolerance = Number(target.value);
    await settle();
    await session.setTolerance(tolerance);
  }),
);
$("#settings").addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());

async function run() {
  if (!session.photo || results.running || !settings.valid()) return;
  await settle();
  settings.newSeed();
  const script = session.script();
  say("Running …");
  const job = await results.follow(session.run(script, settings.variants()), script, session.photo);
  if (job.status === "failed") throw new Error(job.error ?? "The run failed.");
  const count = job.results.length === 1 ? "1 result" : `${job.results.length} results`;
  const cancelled = job.results.length ? `Cancelled after ${count}.` : "Cancelled.";
  say(job.status === "cancelled" ? cancelled : `Done: ${count}.`);
  if (job.status === "done") results.show(results.all.at(-job.results.length));
}

const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const nudge = ({ key, shiftKey }) => {
  if (results.shown) return;
  const [dx, dy] = arrows[key].map((/** @type {number} */ v) => v * (shiftKey ? 8 : 1));
  attempt(() => nudging.by(dx, dy));
};
const doing = (/** @type {() => Promise<any>} */ work) => () => attempt(work);
const shortcuts = [
  { keys: ["V"], shown: "V", what: "Select tool", act: () => choose("select") },
  { keys: ["B"], shown: "B", what: "Box tool", act: () => choose("box") },
  { keys: ["L"], shown: "L", what: "Lasso tool", act: () => choose("lasso") },
  { keys: ["O"], shown: "O", what: "Object tool", act: () => choose("object") },
  { keys: ["N", "Shift+N"], shown: "N Shift+N", what: "Select, or add, the next element", act: (e) => step(1, e.shiftKey) },
  { keys: ["P", "Shift+P"], shown: "P Shift+P", what: "Select, or add, the previous one", act: (e) => step(-1, e.shiftKey) },
  { keys: ["Ctrl+A"], shown: "Ctrl+A", what: "Select all", act: doing(act.all) },
  { keys: ["Escape"], shown: "Esc", what: "Select nothing; end a drag; leave a result", act: doing(act.clear) },
  {
    keys: Object.keys(arrows).flatMap((key) => [key, `Shift+${key}`]),
    shown: "Arrows Shift+Arrows",
    what: "Nudge by 1 or 8 pixels",
    act: nudge,
  },
  { keys: ["Delete", "Backspace"], shown: "Delete", what: "Delete what is selected", act: doing(act.delete) },
  { keys: ["Ctrl+D"], shown: "Ctrl+D", what: "Duplicate what is selected", act: doing(act.duplicate) },
  { keys: ["I"], shown: "I", what: "Insert what is selected in the second picture", act: doing(act.insert) },
  { keys: ["Ctrl+Z"], shown: "Ctrl+Z", what: "Undo", act: doing(act.undo) },
  { keys: ["Ctrl+Shift+Z", "Ctrl+Y"], shown: "Ctrl+Y", what: "Redo (also Ctrl+Shift+Z)", act: doing(act.redo) },
  { keys: ["E"], shown: "E", what: "Show or hide element boundaries", act: doing(act.overlay) },
  { keys: ["Ctrl+Enter"], shown: "Ctrl+Enter", what: "Run", act: doing(act.run) },
  { keys: ["?"], shown: "?", what: "This list", act: doing(act.help) },
];
bindKeys(shortcuts);
listKeys($("#shortcuts"), [
  ...shortcuts,
  { shown: "Shift+click", what: "Add to the selection, also with box and lasso" },
  { shown: "Alt+click", what: "Take from it; not part of the object" },
]);
say("Open a photograph to begin.");

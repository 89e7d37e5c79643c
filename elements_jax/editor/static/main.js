// Wires the page: the views show the session, and buttons, keys and the pointer change it.

import { Nudging, beside, dragHandle, dragOver, dragSelection } from "./input/dragging.js";
import { locked, setUpFields, showBox } from "./input/fields.js";
import { acceptDrops, acceptFile, acceptPaste, download, downloadText, refuseOtherDrops } from "./input/files.js";
import { bindKeys, listKeys } from "./input/keys.js";
import { loadScript } from "./input/loading.js";
import { point } from "./input/pointing.js";
import { Selecting } from "./input/selecting.js";
import * as settings from "./input/settings.js";
import { GESTURES, shortcutsFor } from "./input/shortcuts.js";
import * as api from "./model/api.js";
import { Gaps } from "./model/gaps.js";
import { Session } from "./model/session.js";
import * as storage from "./model/storage.js";
import { Results } from "./view/results.js";
import { Stage } from "./view/stage.js";
import { attempt, fail, say, wait } from "./view/status.js";
import { Tray } from "./view/tray.js";

const $ = (/** @type {string} */ query) => /** @type {any} */ (document.querySelector(query));
const on = (/** @type {string} */ query, /** @type {() => any} */ act) => $(query).addEventListener("click", () => attempt(act));

// A synthetic scene, like the training images of the bundled model.
const EXAMPLE = "static/example.png";

const model = await api.model().catch((error) => {
  fail(error);
  throw error;
});
settings.setUp(model);
$("#model").textContent = model.name;
$("#notice").textContent = $("#notice").title = model.notice ?? "";
$("#notice").hidden = !model.notice;

const session = new Session(settings.read);
const stage = new Stage($("#stage"));
stage.handles = true;
const tray = new Tray();
const results = new Results(stage);
const gaps = new Gaps();
stage.gaps = (scene) => gaps.of(scene);
gaps.addEventListener("change", () => stage.draw());
const page = { session, stage, say, attempt };
const nudging = new Nudging(page);

async function settle() {
  await nudging.end();
  await session.idle();
}

// Views

session.addEventListener("busy", () => {
  stage.root.setAttribute("aria-busy", String(session.busy));
  wait(session.busy);
  showHistory();
});
session.addEventListener("selection", showSelection);
session.addEventListener("scene", () => {
  const { photo } = session;
  stage.show(session.scene);
  $("#said").textContent = `${photo.name}, ${photo.width} x ${photo.height} px`;
  $("#said").title = [photo.name, ...photo.notes].join("\n");
  document.body.classList.add("open");
  showHistory();
  showSelection();
  keep();
});
let restoring = false; // while true, the stored session is not overwritten
const keep = () => session.photo && !restoring && storage.keep({ ...session.saved(), settings: settings.read() });
$("#settings").addEventListener("change", keep);
results.addEventListener("change", () => {
  const { shown } = results;
  $("#edit-bar").hidden = shown !== null;
  $("#result-bar").hidden = shown === null;
  showHistory();
  showSelection();
});
stage.view.addEventListener("change", () => {
  const { photo } = session;
  $("#zoom-fit").textContent = photo ? `${Math.round((stage.view.k * devicePixelRatio * photo.shown[0] * 100) / photo.width)} %` : "";
});

function showHistory() {
  const { photo, edits } = session;
  $("#undo").disabled = !session.canUndo;
  $("#redo").disabled = !session.canRedo;
  for (const query of ["#save-script", "#open-second"]) $(query).disabled = !photo;
  const why = whyNot();
  $("#run").disabled = why !== "" || session.busy || results.running;
  $("#why").textContent = why || `${edits.length === 1 ? "1 edit" : `${edits.length} edits`}; the rest of the photo stays unchanged.`;
}

/** The reason why nothing can be run; "" if something can. */
function whyNot() {
  if (!session.photo) return "Open a photo first.";
  return session.edits.length ? "" : "Nothing to run yet: move, resize, copy or delete something first.";
}

function showSelection() {
  const { selection, scene, photo } = session;
  stage.select(selection && scene && !results.shown ? scene.pieces(selection) : []);
  gaps.want(selection && scene ? scene.without(selection).rest : scene);
  showBox(stage, photo ? photo.width / photo.shown[0] : 1);
  $("#duplicate").disabled = $("#delete").disabled = !selection;
  const what = selection ? "one object selected" : "nothing selected";
  stage.root.setAttribute("aria-label", photo ? `${photo.name}, ${what}` : "No photograph");
}

// Files

/** @type {import("./model/scene.js").Selection?} */
let copied = null;
const openPhoto = (/** @type {File} */ file) =>
  attempt(async () => {
    await settle();
    if (session.edits.length && !confirm("Open another photo? Your edits to this one will be lost.")) return;
    await openNow(file, file.name || "photo.png");
    say([`${session.photo.name}: ${howToBegin()}`, ...session.photo.notes].join(" "));
    stage.root.focus();
  });
const howToBegin = () => (tool === "pieces" ? "click a piece, or draw around an object with the lasso." : "click an object.");
async function openNow(/** @type {Blob} */ blob, /** @type {string} */ name) {
  say(`Uploading ${name} …`);
  copied = null;
  await session.open(blob, name, (part) => say(part < 1 ? `Uploading ${name}: ${Math.floor(part * 100)} %` : `Opening ${name} …`));
  results.show(null);
  tray.close();
}
const openSecond = (/** @type {File} */ file) =>
  attempt(async () => {
    if (!session.photo) return openPhoto(file);
    say(`Opening ${file.name} …`);
    tray.open(await session.addPicture(file, file.name || "photo.png"));
    say(`${tray.picture.name} is open next to the photo: select an object in it and drag it over, or press Insert.`);
  });
const openScript = (/** @type {File} */ file) =>
  attempt(async () => {
    await settle();
    results.show(null);
    say(`Loading ${file.name} …`);
    const loaded = await loadScript(session, file);
    if (loaded) tray.close();
    const count = session.edits.length === 1 ? "1 edit" : `${session.edits.length} edits`;
    say(loaded ? `The script was loaded: ${count}. Its seed is locked.` : "No script was loaded.");
  });
const take = (/** @type {File} */ file) => (/\.json$/i.test(file.name) ? openScript(file) : openPhoto(file));

acceptFile($("#open"), $("#photo-file"), openPhoto);
on("#open-first", async () => $("#photo-file").click());
on("#open-example", async () => openPhoto(new File([await (await fetch(EXAMPLE)).blob()], "example.png", { type: "image/png" })));
acceptFile($("#open-second"), $("#second-file"), openSecond);
acceptFile($("#load-script"), $("#script-file"), openScript);
acceptDrops($("#place"), take);
acceptDrops($("#tray"), openSecond);
refuseOtherDrops();
acceptPaste(take, {
  copy: () => {
    copied = session.selection;
    if (copied) say("Copied. Paste with Ctrl+V.");
    return copied !== null;
  },
  paste: () => attempt(act.paste),
});
addEventListener("beforeunload", (event) => session.edits.length && event.preventDefault());
on("#save-script", async () => {
  await settle();
  downloadText(JSON.stringify(session.script(), null, 2), "edit.json");
  const named = session.named();
  for (const { name, blob } of named) download(URL.createObjectURL(blob), name);
  const files = named.map(({ name }) => name).join(", ");
  say(named.length ? `Saved edit.json and its masks and photos: ${files}.` : "Saved edit.json.");
});

// Selecting and pointing

/** @type {import("./input/pointing.js").Tool} */
let tool = "select";
const tools = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("#tools [data-tool]")]);
function choose(/** @type {any} */ name) {
  if (name === "select" && !model.select_objects) {
    say("Object selection is off: start the editor with --checkpoint FILE. Clicks select pieces.");
    name = "pieces";
  }
  tool = name;
  for (const button of tools) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  $("#brush-size").hidden = name !== "brush";
}
for (const button of tools) button.addEventListener("click", () => choose(button.dataset.tool));
if (!model.select_objects) $("[data-tool=select]").setAttribute("aria-disabled", "true");
choose(model.select_objects ? "select" : "pieces");
const resting = () => choose(model.select_objects ? "select" : "pieces");

const selecting = new Selecting(session, stage, {
  picture: () => session.photo,
  selection: () => session.selection,
  select: (selection) => session.select(selection),
  say,
});
const taking = new Selecting(session, tray.stage, {
  picture: () => tray.picture,
  selection: () => tray.selection,
  select: (selection) => tray.select(selection),
  say,
});

/** @param {Selecting} where @returns {Omit<import("./input/pointing.js").Actions, "drag" | "resize">} */
const pointingWith = (where) => ({
  tool: () => tool,
  grab: (at) => where.grab(at),
  click: (at, mode) => attempt(() => where.click(at, mode, tool === "select")),
  shape: (shape, from, to, mode) =>
    attempt(async () => {
      if (tool === "box") await where.box(from, to, mode);
      else where.lasso(shape, mode);
      if (mode === "replace") resting(); // so that the next drag moves the selection
    }),
  brush: (at, mode) => where.brush(at, mode, $("#brush-width").value / where.stage.view.k),
});
point(stage, {
  ...pointingWith(selecting),
  drag: (event) => dragSelection(page, event),
  resize: (event, handle) => dragHandle(page, event, handle, locked),
});
point(tray.stage, { ...pointingWith(taking), drag: (event) => dragOver(page, tray, event, () => results.shown && results.show(null)), resize: () => null });
setUpFields(page);

// Commands

const act = {
  undo: async () => {
    results.show(null);
    await settle();
    if (session.canUndo) say(`Undone: ${session.undo().toLowerCase()}.`);
  },
  redo: async () => {
    results.show(null);
    await settle();
    if (session.canRedo) say(`Redone: ${session.redo().toLowerCase()}.`);
  },
  // Keys do not change edits while a result hides them.
  delete: async () => {
    await settle();
    if (results.shown || !session.selection) return;
    await session.remove();
    say("Deleted. The gap will be filled when you run.");
  },
  duplicate: async () => {
    await settle();
    if (results.shown || !session.selection) return;
    await session.duplicate(beside(session.photo.shown, stage.box));
    say("Copied. Drag the copy where you want it.");
  },
  paste: async () => {
    await settle();
    if (results.shown || !copied || ("edit" in copied && !session.scene.insertions.has(copied.edit))) return;
    session.select(copied);
    await act.duplicate();
  },
  insert: async () => {
    await settle();
    if (!tray.picture || !tray.selection) return;
    results.show(null);
    await session.insert(tray.picture, tray.selection);
    say("Inserted.");
  },
  run,
  help: async () => $("#help").showModal(),
  clear: async () => {
    if (results.shown) return results.show(null);
    if (document.activeElement === tray.stage.root) tray.select(null);
    else if (session.photo) session.select(null);
  },
  continue: async () => {
    const { shown } = results;
    await openNow(shown.blob, shown.name);
    stage.root.focus();
    say(`Continuing from result ${shown.number}.`);
  },
};
for (const name of ["undo", "redo", "delete", "duplicate", "insert", "run", "continue"]) on(`#${name}`, act[name]);
on("#show-help", act.help);
on("#to-edit", act.clear);
on("#download", async () => download(URL.createObjectURL(results.shown.blob), results.shown.name));
on("#zoom-in", async () => stage.view.zoom(1.5));
on("#zoom-out", async () => stage.view.zoom(1 / 1.5));
on("#zoom-fit", async () => stage.view.fit());
$("#settings").addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());

async function run() {
  await settle();
  const why = whyNot();
  if (why) return say(why);
  if (results.running || !settings.valid()) return;
  settings.newSeed();
  const script = session.script();
  say("Running …");
  const job = await results.follow(session.run(script, settings.variants()), script.seed, session.photo);
  stage.root.focus(); // also scrolls there in a narrow window
  if (job.status === "failed") throw new Error(job.error ?? "The run failed.");
  const count = job.results.length === 1 ? "1 result" : `${job.results.length} results`;
  const cancelled = job.results.length ? `Cancelled after ${count}.` : "Cancelled.";
  say(job.status === "cancelled" ? cancelled : `Done: ${count}.`);
  if (job.status === "done") results.show(results.all.at(-job.results.length));
}

const nudge = (/** @type {number} */ dx, /** @type {number} */ dy) => results.shown || session.busy || nudging.by(dx, dy);
const shortcuts = shortcutsFor({ act, attempt, choose, nudge, view: stage.view, brush: $("#brush-width") });
bindKeys(shortcuts);
listKeys($("#shortcuts"), [...shortcuts, ...GESTURES]);

showHistory();
const kept = await storage.kept();
if (kept?.edits?.length) {
  say(`Opening ${kept.name} with your last edits …`);
  await attempt(async () => {
    restoring = true;
    await session.restore(kept).finally(() => (restoring = false));
    settings.write(kept.settings);
    say(`Restored your edits of ${kept.name}.`);
  });
} else say("Open a photo to begin.");

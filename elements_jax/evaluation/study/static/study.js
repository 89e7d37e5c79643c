// The study's page: shows a form's pairs one by one, keeps the answers in this browser, and exports them as a file.
// A plain script, since a page opened from disk may not load modules.
"use strict";

const study = JSON.parse(document.getElementById("study").textContent);
const parameters = new URLSearchParams(location.search);
const $ = (id) => document.getElementById(id);

const SECONDS_A_PAIR = 7; // for the estimate shown to raters
const SHORTEST = 250; // minimum ms per pair: a key pressed twice answers only one pair
const MARKED = 200; // ms for which a choice is highlighted
const SMALL = 256; // images below this width are shown with sharp pixels

let state; // {form, worker, started, finished, answers: [{pair, choice, seconds}]}
let shownAt = null; // when the pair's images were loaded; null while it cannot be answered

// State that survives a reload, by study, and by form and worker if the address has them

const PLACE = ["study", study.study, parameters.get("form") ?? "", parameters.get("worker") ?? ""].join("/");
let kept = null; // the fallback without browser storage

function load() {
  try {
    kept = localStorage.getItem(PLACE);
  } catch {
    report("This browser stores nothing: please do not close or reload the page before you are done.");
  }
  return JSON.parse(kept);
}

function save() {
  kept = JSON.stringify(state);
  try {
    localStorage.setItem(PLACE, kept);
  } catch {
    // reported at the start
  }
}

// The form in the address, or a random one

function chooseForm() {
  const count = study.forms.length;
  const asked = parameters.get("form");
  if (asked === null) return 1 + Math.floor(Math.random() * count);
  const form = Number(asked);
  return Number.isInteger(form) && form >= 1 && form <= count ? form : null;
}

const trials = () => study.forms[state.form - 1];

// Screens

function show(screen) {
  for (const id of ["intro", "trial", "end"]) $(id).hidden = id !== screen;
  scrollTo(0, 0);
}

function report(problem) {
  $("status").textContent = problem;
}

function introduce() {
  const count = trials().length;
  const minutes = Math.max(1, Math.round((count * SECONDS_A_PAIR) / 60));
  $("count").textContent = count;
  $("minutes").textContent = minutes === 1 ? "a minute" : `${minutes} minutes`;
  $("worker").value = state.worker;
  show("intro");
}

function proceed() {
  if (state.answers.length < trials().length) showTrial();
  else finish();
}

const source = (file) => `pictures/${file}`;

function preload(trial) {
  for (const file of [trial.drawing, trial.left, trial.right]) new Image().src = source(file);
}

async function showTrial() {
  shownAt = null;
  const number = state.answers.length;
  const trial = trials()[number];
  const pictures = [$("drawing"), $("left").querySelector("img"), $("right").querySelector("img")];
  $("pictures").setAttribute("aria-busy", "true");
  for (const side of ["left", "right"]) $(side).classList.remove("chosen");
  show("trial");

  $("progress").max = trials().length;
  $("progress").value = number;
  $("position").textContent = `${number + 1} of ${trials().length}`;
  $("back").disabled = number === 0;
  $("instruction").textContent = trial.instruction;
  $("instruction").focus({ preventScroll: true });
  $("drawing").alt = `The input with the edit drawn on it: ${trial.instruction}`;
  [trial.drawing, trial.left, trial.right].forEach((file, i) => (pictures[i].src = source(file)));
  try {
    await Promise.all(pictures.map((picture) => picture.decode()));
  } catch {
    if (current(trial)) report("An image could not be loaded. Please reload the page; your answers are kept.");
    return;
  }
  if (!current(trial)) return;
  report("");
  for (const picture of pictures) picture.classList.toggle("small", picture.naturalWidth < SMALL);
  $("pictures").setAttribute("aria-busy", "false");
  shownAt = performance.now();
  if (number + 1 < trials().length) preload(trials()[number + 1]);
}

// Whether a pair is still the current one after its images are loaded
const current = (trial) => trials()[state.answers.length] === trial && !$("trial").hidden;

function choose(side) {
  const elapsed = performance.now() - shownAt;
  if (shownAt === null || elapsed < SHORTEST) return;
  shownAt = null;
  const pair = trials()[state.answers.length].pair;
  state.answers.push({ pair, choice: side, seconds: Math.round(elapsed) / 1000 });
  if (state.answers.length === trials().length) state.finished = new Date().toISOString();
  save();
  $(side).classList.add("chosen");
  setTimeout(proceed, MARKED);
}

function takeBack() {
  if ($("end").hidden && shownAt === null) return; // a choice is highlighted
  state.answers.pop();
  save();
  showTrial();
}

function finish() {
  $("text").value = answersText();
  $("finish").textContent = study.finish;
  show("end");
  $("end").querySelector("h1").focus({ preventScroll: true });
}

// The file of answers; elements_jax/evaluation/study/answers.py reads it

function answersText() {
  const { form, worker, started, finished, answers } = state;
  return JSON.stringify({ version: 1, study: study.study, form, worker, started, finished, answers }, null, 1);
}

function download() {
  const link = document.createElement("a");
  const worker = state.worker.replace(/[^\w-]+/g, "_");
  link.href = URL.createObjectURL(new Blob([answersText()], { type: "application/json" }));
  link.download = `answers-${study.study}-${state.form}-${worker}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function copy() {
  $("text").select();
  try {
    await navigator.clipboard.writeText($("text").value);
  } catch {
    document.execCommand("copy"); // on pages opened from disk
  }
  $("copy").textContent = "Copied";
}

// Events

$("start").addEventListener("submit", (event) => {
  event.preventDefault();
  const worker = $("worker").value.trim();
  if (!worker) return;
  state = { ...state, worker, started: new Date().toISOString() };
  save();
  proceed();
});
for (const side of ["left", "right"]) $(side).addEventListener("click", () => choose(side));
addEventListener("keydown", (event) => {
  if ($("trial").hidden || event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  const side = { ArrowLeft: "left", ArrowRight: "right" }[event.key];
  if (!side) return;
  event.preventDefault();
  choose(side);
});
$("back").addEventListener("click", takeBack);
$("undo").addEventListener("click", takeBack);
$("download").addEventListener("click", download);
$("copy").addEventListener("click", copy);
$("again").addEventListener("click", () => {
  if (!confirm("Have you sent your answers? They will be deleted from this browser.")) return;
  begin();
  save();
});

function begin() {
  const worker = parameters.get("worker") ?? `rater-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
  state = { form: chooseForm(), worker, started: null, finished: null, answers: [] };
  if (state.form === null) report(`This study has forms 1 to ${study.forms.length}: please check the address.`);
  else introduce();
}

state = load();
if (state?.started) proceed();
else begin();

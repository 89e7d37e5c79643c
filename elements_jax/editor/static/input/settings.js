// The form on the right: the script's fields except edits.

const form = /** @type {HTMLFormElement} */ (document.querySelector("#settings"));
const field = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
const SEEDS = 2 ** 32 - 8; // so that the following seeds of the variants are valid, too

const NO_PROMPTS = "This model takes no prompts; --model tiny does.";
const DIFFUSION = ["negative_prompt", "sampler", "steps", "seed", "seed_lock", "guidance", "separate", "variants", "eta"];
let takesPrompts = true;

/**
 * @param {{prompts: boolean, samplers: string[], steps: number, guidance: number | number[],
 *   limits: {variants: number}}} model
 */
export function setUp(model) {
  field("sampler").replaceChildren(...model.samplers.map((name) => new Option(name.toUpperCase(), name)));
  field("variants").max = String(model.limits.variants);
  const [guidance, elements] = [model.guidance].flat();
  field("steps").value = String(model.steps);
  field("guidance").value = String(guidance);
  field("element_guidance").value = String(elements ?? guidance);
  field("separate").checked = elements !== undefined;
  for (const name of ["detail", "separate", "sampler"]) field(name).addEventListener("change", reflect);
  for (const name of ["guidance", "element_guidance", "tolerance"]) field(name).addEventListener("input", reflect);
  document.querySelector("#background").addEventListener("click", () => {
    field("prompt").value = "background";
    field("prompt").focus();
  });
  takesPrompts = model.prompts;
  if (!takesPrompts) {
    for (const name of DIFFUSION) field(name).disabled = true;
    document.querySelector("#background").hidden = true;
    field("prompt").placeholder = NO_PROMPTS;
    field("prompt").addEventListener("input", checkPrompt);
  }
  newSeed();
  reflect();
}

/** A prompt can also come from a script, so the field stays open to be cleared. */
function checkPrompt() {
  field("prompt").setCustomValidity(takesPrompts || field("prompt").value === "" ? "" : NO_PROMPTS);
}

/** @returns {any} fields of the script */
export function read() {
  const value = (/** @type {string} */ name) => field(name).value;
  const sampler = value("sampler");
  return {
    prompt: value("prompt"),
    negative_prompt: value("negative_prompt"),
    seed: Number(value("seed")),
    detail: value("detail"),
    tolerance: Number(value("tolerance")),
    sampling: {
      sampler,
      steps: Number(value("steps")),
      guidance: Number(value("guidance")),
      element_guidance: field("separate").checked ? Number(value("element_guidance")) : null,
      eta: sampler === "ddim" && value("eta") !== "" ? Number(value("eta")) : null,
    },
  };
}

/** Fill the form from a script; omitted fields stay unchanged. The seed is locked, so that a run repeats it. */
export function write(/** @type {any} */ script) {
  const sampling = script.sampling ?? {};
  const set = (/** @type {string} */ name, /** @type {any} */ value) => {
    if (value !== undefined && value !== null) field(name).value = String(value);
  };
  set("prompt", script.prompt ?? "");
  set("negative_prompt", script.negative_prompt ?? "");
  set("seed", script.seed ?? 0);
  set("detail", script.detail ?? "pixels");
  set("tolerance", script.tolerance ?? 0);
  for (const name of ["sampler", "steps", "guidance", "element_guidance"]) set(name, sampling[name]);
  field("eta").value = sampling.eta ?? "";
  field("separate").checked = (sampling.element_guidance ?? null) !== null;
  field("seed_lock").checked = true;
  checkPrompt();
  reflect();
}

export const variants = () => Number(field("variants").value);

/** Let the browser validate the form and show errors. */
export function valid() {
  if (!form.checkValidity()) form.querySelector("details").open = true;
  return form.reportValidity();
}

/** Draw a new seed before a run, unless it is locked. */
export function newSeed() {
  if (!field("seed_lock").checked) field("seed").value = String(crypto.getRandomValues(new Uint32Array(1))[0] % SEEDS);
}

function reflect() {
  field("element_guidance").closest("label").hidden = !field("separate").checked;
  field("eta").closest("label").hidden = field("sampler").value !== "ddim";
  field("tolerance").closest("label").hidden = field("detail").value !== "decoder";
  for (const name of ["guidance", "element_guidance"]) {
    form.querySelector(`#${name}-value`).textContent = Number(field(name).value).toFixed(1);
  }
  form.querySelector("#tolerance-value").textContent = `${Math.round(Number(field("tolerance").value) * 100)} %`;
}

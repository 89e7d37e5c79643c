// The server's HTTP interface, relative to the page. Every failure is an ApiError with the server's message.

export class ApiError extends Error {
  /** @param {string} message @param {number} status 0 if the server did not answer */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * @typedef {{id: string, width: number, height: number, format: string, shown: [number, number], notes: string[]}} Uploaded
 * @typedef {{image: string, images: Object<string, string>}} Pictures a photograph and the named images
 * @typedef {{id: string, status: "queued"|"running"|"done"|"failed"|"cancelled", position: number, variant: number,
 *            variants: number, step: number, steps: number, results: string[], error: string?}} Job
 */

const silent = () => new ApiError("Can't reach the editor's server. Is it still running in the terminal?", 0);

/** @param {number} status @param {string} [sentence] */
const refused = (status, sentence) => new ApiError(sentence ?? `The server answered ${status}.`, status);

/** @param {string} path @param {RequestInit} [init] */
async function ask(path, init) {
  const response = await fetch(path, init).catch(() => {
    throw silent();
  });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw refused(response.status, error);
}

const read = async (/** @type {Promise<Response>} */ asked) => (await asked).json();

/** @param {string} path @param {object} body */
const post = (path, body) =>
  read(ask(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } }));

export const model = () => read(ask("api/model"));

/**
 * Uses XMLHttpRequest, since `fetch` does not report upload progress.
 * @param {Blob} file @param {(part: number) => void} [progress] from 0 to 1 @returns {Promise<Uploaded>}
 */
export function upload(file, progress) {
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.open("POST", "api/images");
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => progress?.(loaded / total);
    request.onerror = () => reject(silent());
    request.onload = () =>
      request.status === 201 ? resolve(request.response) : reject(refused(request.status, request.response?.error));
    request.send(file);
  });
}

/** @param {string} id */
export const viewUrl = (id) => `api/images/${id}/view`;

/** @param {string} id @returns {Promise<import("./session.js").Labels>} */
export async function pieces(id) {
  const bitmap = await createImageBitmap(await fetchBlob(`api/images/${id}/pieces`));
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  const numbers = new Uint16Array(width * height);
  for (let i = 0; i < numbers.length; i++) numbers[i] = pixels[4 * i] | (pixels[4 * i + 1] << 8);
  return { width, height, numbers };
}

/** Fill gaps in a reduced photograph. @param {string} id @param {Blob} gaps a mask's PNG @returns {Promise<Blob>} */
export const preview = async (id, gaps) =>
  (await ask(`api/images/${id}/preview`, { method: "POST", body: gaps, headers: { "Content-Type": "image/png" } })).blob();

/** @param {Pictures & {object: object}} request @returns {Promise<{mask: string}>} */
export const object = (request) => post("api/objects", request);

/** @param {Blob} file @returns {Promise<{script: any}>} */
export const readScript = (file) => read(ask("api/scripts", { method: "POST", body: file }));

/** @param {Pictures & {script: object, variants: number}} request @returns {Promise<Job>} */
export const run = (request) => post("api/jobs", request);

/** @param {string} id */
export const cancel = (id) => ask(`api/jobs/${id}`, { method: "DELETE" });

/** The bytes of an image. @param {string} path */
export const fetchBlob = async (path) => (await ask(path)).blob();

/**
 * Follow a job until it ends. The stream keeps the job alive: the server cancels jobs that nobody follows.
 * @param {string} id @param {(job: Job) => void} report @returns {Promise<Job>}
 */
export function follow(id, report) {
  const events = new EventSource(`api/jobs/${id}/events`);
  return new Promise((resolve, reject) => {
    events.onmessage = ({ data }) => {
      const job = JSON.parse(data);
      report(job);
      if (["done", "failed", "cancelled"].includes(job.status)) {
        events.close();
        resolve(job);
      }
    };
    events.onerror = () => {
      if (events.readyState !== EventSource.CLOSED) events.close();
      reject(new ApiError("The connection to the server was lost during the run.", 0));
    };
  });
}

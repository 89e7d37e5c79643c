// The server's HTTP interface, relative to the page. Every failure is an ApiError whose message is the server's own sentence.

export class ApiError extends Error {
  /** @param {string} message @param {number} status 0 where the server gave no answer */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * @typedef {{id: string, width: number, height: number, box: number[], said: string}} Uploaded
 * @typedef {{image: string, images: Object<string, string>, script: object}} Request_
 * @typedef {{id: string, status: "queued"|"running"|"done"|"failed"|"cancelled", position: number, variant: number,
 *            variants: number, step: number, steps: number, results: string[], error: string?}} Job
 */

/** @param {string} path @param {RequestInit} [init] */
async function ask(path, init) {
  let response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new ApiError("Can't reach the editor's server. Is it still running in the terminal?", 0);
  }
  if (response.ok) return response.json();
  const { error } = await response.json().catch(() => ({}));
  throw new ApiError(error ?? `The server answered ${response.status}.`, response.status);
}

/** @param {string} path @param {object} body */
const post = (path, body) =>
  ask(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });

export const model = () => ask("api/model");

/** @param {Blob} file @param {"crop"|"pad"} fit @returns {Promise<Uploaded>} */
export const upload = (file, fit) => ask(`api/images?fit=${fit}`, { method: "POST", body: file });

/** @param {string} id */
export const imageUrl = (id) => `api/images/${id}.png`;

/** @param {Request_} request */
export const canvas = (request) => post("api/canvas", request);

/** @param {Request_ & {positive: number[][], negative: number[][]}} request @returns {Promise<{elements: number[]}>} */
export const objects = (request) => post("api/objects", request);

/** @param {Blob} file @returns {Promise<{script: object}>} */
export const readScript = (file) => ask("api/scripts", { method: "POST", body: file });

/** @param {Request_ & {variants: number}} request @returns {Promise<Job>} */
export const run = (request) => post("api/jobs", request);

/** @param {string} id */
export const cancel = (id) => ask(`api/jobs/${id}`, { method: "DELETE" });

/** A result's very bytes. @param {string} url */
export async function fetchBlob(url) {
  const response = await fetch(url.slice(1)); // the page may be below a path of its host
  if (!response.ok) throw new ApiError("The server has forgotten this result: run it again.", response.status);
  return response.blob();
}

/**
 * Follow a job until it ends. The stream is what keeps a job alive: the server cancels one that nobody follows.
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
      reject(new ApiError("The connection to the server was lost while it ran.", 0));
    };
  });
}

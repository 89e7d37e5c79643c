// The status line: progress, and the server's error messages. While waiting, it is also shown over the photograph.

const line = /** @type {HTMLElement} */ (document.querySelector("#status"));
const waiting = /** @type {HTMLElement} */ (document.querySelector("#waiting"));

/** @param {string} text */
export function say(text) {
  line.classList.remove("error");
  line.textContent = line.title = waiting.textContent = text;
}

/** @param {unknown} error */
export function fail(error) {
  line.classList.add("error");
  line.textContent = line.title = error instanceof Error ? error.message : String(error);
}

/** While waiting for an answer, show the last message over the photograph, too. @param {boolean} busy */
export function wait(busy) {
  waiting.hidden = !busy;
}

/** Run something that may fail; show the error and return undefined if it does. @template T @param {() => Promise<T>} work */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    fail(error);
  }
}

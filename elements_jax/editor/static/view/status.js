// The status line: what happens, and errors in the server's own words. And, where one looks, what is waited for.

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

/** Whether an answer is waited for: then the last sentence is shown over the picture, too. @param {boolean} busy */
export function wait(busy) {
  waiting.hidden = !busy;
}

/** Do something that may be refused; then the reason is shown, and undefined comes back. @template T @param {() => Promise<T>} work */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    fail(error);
  }
}

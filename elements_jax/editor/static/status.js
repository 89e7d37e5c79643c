// The status line: what happens, and errors in the server's own words.

const line = /** @type {HTMLElement} */ (document.querySelector("#status"));

/** @param {string} text */
export function say(text) {
  line.classList.remove("error");
  line.textContent = line.title = text;
}

/** @param {unknown} error */
export function fail(error) {
  line.classList.add("error");
  line.textContent = line.title = error instanceof Error ? error.message : String(error);
}

/** Do something that may be refused; then the reason is shown, and undefined comes back. @template T @param {() => Promise<T>} work */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    fail(error);
  }
}

// Input files by button, drop and paste; output files by download.

const holds = (/** @type {DragEvent} */ event) => event.dataTransfer.types.includes("Files");

/**
 * @param {HTMLElement} place where files may be dropped
 * @param {(file: File) => void} take
 */
export function acceptDrops(place, take) {
  place.addEventListener("dragover", (event) => {
    if (!holds(event)) return;
    event.preventDefault();
    place.classList.add("dropping");
  });
  place.addEventListener("dragleave", () => place.classList.remove("dropping"));
  place.addEventListener("drop", (event) => {
    place.classList.remove("dropping");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
}

/** Elsewhere, the browser would leave the page and open the file. */
export function refuseOtherDrops() {
  for (const kind of ["dragover", "drop"]) {
    document.addEventListener(kind, (/** @type {DragEvent} */ event) => holds(event) && event.preventDefault());
  }
}

/**
 * Paste image files of other programs, or copy and paste within the page.
 * @param {(file: File) => void} take @param {{copy: () => boolean, paste: () => void}} own `copy` says whether it copied
 */
export function acceptPaste(take, own) {
  const typing = (/** @type {Event} */ { target }) => /** @type {Element} */ (target).closest?.("textarea, input, dialog");
  document.addEventListener("copy", (event) => {
    if (!typing(event) && getSelection().isCollapsed && own.copy()) event.preventDefault();
  });
  document.addEventListener("paste", (event) => {
    const file = event.clipboardData.files[0];
    if (!file && typing(event)) return;
    event.preventDefault();
    if (file) take(file);
    else own.paste();
  });
}

/** A button that asks for a file. @param {HTMLButtonElement} button @param {HTMLInputElement} input @param {(file: File) => void} take */
export function acceptFile(button, input, take) {
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const file = input.files[0];
    input.value = ""; // so that the same file may be chosen again
    if (file) take(file);
  });
}

/** @param {string} url @param {string} name */
export function download(url, name) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}

/** @param {string} text @param {string} name */
export function downloadText(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  download(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// Keyboard shortcuts: one table for both the handlers and the list under "?".

/** @typedef {{keys: string[], shown: string, what: string, act: (event: KeyboardEvent) => unknown}} Shortcut */

const TEXT = "textarea, select, input:not([type=checkbox], [type=range])";
const ALWAYS = ["Ctrl+Enter"]; // active even while typing text

/** Format as "Ctrl+Shift+Z"; Shift is included only for letters and named keys. @param {KeyboardEvent} event */
function chord({ key, ctrlKey, metaKey, shiftKey }) {
  const name = key.length === 1 ? key.toUpperCase() : key;
  const shift = shiftKey && (key.length > 1 || /[a-z]/i.test(key));
  return `${ctrlKey || metaKey ? "Ctrl+" : ""}${shift ? "Shift+" : ""}${name}`;
}

/** @param {Shortcut[]} shortcuts */
export function bindKeys(shortcuts) {
  const table = new Map(shortcuts.flatMap(({ keys, act }) => keys.map((key) => [key, act])));
  document.addEventListener("keydown", (event) => {
    const target = /** @type {Element} */ (event.target);
    const pressed = chord(event);
    const act = table.get(pressed);
    if (!act || target.closest("dialog")) return;
    if (target.matches(TEXT) && !ALWAYS.includes(pressed)) return;
    if (target.matches("[type=range]") && event.key.startsWith("Arrow")) return;
    event.preventDefault();
    act(event);
  });
}

/** @param {HTMLElement} list @param {{shown: string, what: string}[]} shortcuts */
export function listKeys(list, shortcuts) {
  list.replaceChildren(
    ...shortcuts.flatMap(({ shown, what }) => {
      const [term, description] = [document.createElement("dt"), document.createElement("dd")];
      for (const [i, key] of shown.split(" ").entries()) {
        if (i) term.append(" ");
        const cap = document.createElement("kbd");
        cap.textContent = key;
        term.append(cap);
      }
      description.textContent = what;
      return [term, description];
    }),
  );
}

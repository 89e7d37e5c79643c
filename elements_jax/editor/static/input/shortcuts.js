// The table of keyboard shortcuts, and the gestures listed with them.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * @param {{act: Record<string, () => Promise<any>>, attempt: (work: () => Promise<any>) => any,
 *          choose: (tool: string) => void, nudge: (dx: number, dy: number) => void,
 *          view: import("../view/viewport.js").Viewport, brush: HTMLInputElement}} page
 * @returns {import("./keys.js").Shortcut[]}
 */
export function shortcutsFor({ act, attempt, choose, nudge, view, brush }) {
  const doing = (/** @type {string} */ name) => () => attempt(act[name]);
  const brushBy = (/** @type {number} */ factor) => () => (brush.valueAsNumber *= factor);
  const arrow = (/** @type {KeyboardEvent} */ { key, shiftKey }) => {
    const [dx, dy] = ARROWS[key].map((/** @type {number} */ v) => v * (shiftKey ? 10 : 1));
    nudge(dx, dy);
  };
  return [
    { keys: ["V"], shown: "V", what: "Click objects; drag the selection", act: () => choose("select") },
    { keys: ["P"], shown: "P", what: "Click pieces of the photo", act: () => choose("pieces") },
    { keys: ["B"], shown: "B", what: "Box around an object", act: () => choose("box") },
    { keys: ["L"], shown: "L", what: "Lasso", act: () => choose("lasso") },
    { keys: ["R"], shown: "R", what: "Brush", act: () => choose("brush") },
    { keys: ["["], shown: "[", what: "Smaller brush", act: brushBy(0.8) },
    { keys: ["]"], shown: "]", what: "Larger brush", act: brushBy(1.25) },
    { keys: ["H"], shown: "H", what: "Hand: drag to pan (or hold Space)", act: () => choose("hand") },
    { keys: ["+", "="], shown: "+", what: "Zoom in (also the wheel, or two fingers)", act: () => view.zoom(1.5) },
    { keys: ["-"], shown: "-", what: "Zoom out", act: () => view.zoom(1 / 1.5) },
    { keys: ["0"], shown: "0", what: "Fit the photo", act: () => view.fit() },
    { keys: ["Escape"], shown: "Esc", what: "Deselect; cancel a drag; leave a result", act: doing("clear") },
    {
      keys: Object.keys(ARROWS).flatMap((key) => [key, `Shift+${key}`]),
      shown: "Arrows Shift+Arrows",
      what: "Nudge by 1 or 10 pixels",
      act: arrow,
    },
    { keys: ["Delete", "Backspace"], shown: "Delete", what: "Delete the selection", act: doing("delete") },
    { keys: ["Ctrl+D"], shown: "Ctrl+D", what: "Duplicate the selection", act: doing("duplicate") },
    { keys: ["I"], shown: "I", what: "Insert the selection of the second photo", act: doing("insert") },
    { keys: ["Ctrl+Z"], shown: "Ctrl+Z", what: "Undo", act: doing("undo") },
    { keys: ["Ctrl+Shift+Z", "Ctrl+Y"], shown: "Ctrl+Y", what: "Redo (also Ctrl+Shift+Z)", act: doing("redo") },
    { keys: ["Ctrl+Enter"], shown: "Ctrl+Enter", what: "Run", act: doing("run") },
    { keys: ["?"], shown: "?", what: "This list", act: doing("help") },
  ];
}

export const GESTURES = [
  { shown: "Ctrl+C Ctrl+V", what: "Copy and paste the selection" },
  { shown: "Shift+click", what: "Add to the selection, also with box, lasso and brush" },
  { shown: "Alt+click", what: "Subtract from the selection, likewise" },
  { shown: "Shift+drag", what: "Move the selection along one axis" },
  { shown: "Alt+drag", what: "Move a copy of the selection" },
];

// What is drawn over a picture: the paper's dots (Figures 4 and 8), outlines, hatching and handles.
// Contexts are scaled by `k`, screen pixels per picture pixel, and `unit` is the size of a CSS pixel in picture pixels.

export const COLOURS = {
  boundary: "rgb(255 255 255 / 0.55)",
  casing: "rgb(0 0 0 / 0.6)",
  selection: "#ffeb3c",
  source: "#e61e1e",
  target: "#1ebe3c",
  deleted: "#285aff",
  doomed: "#ff2a2a",
};

/** @typedef {[number, number]} Point in pixels of the picture */

/** @param {CanvasRenderingContext2D} context @param {Point[]} points @param {string} colour @param {number} unit */
export function dots(context, points, colour, unit, radius = 4.5) {
  context.fillStyle = colour;
  context.strokeStyle = "white";
  context.lineWidth = 1.25 * unit;
  for (const [x, y] of points) {
    context.beginPath();
    context.arc(x, y, radius * unit, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  }
}

/** @param {CanvasRenderingContext2D} context @param {Point[]} points @param {string} colour @param {number} unit */
export function crosses(context, points, colour, unit) {
  const r = 3.5 * unit;
  const path = new Path2D();
  for (const [x, y] of points) {
    path.moveTo(x - r, y - r);
    path.lineTo(x + r, y + r);
    path.moveTo(x - r, y + r);
    path.lineTo(x + r, y - r);
  }
  cased(context, path, colour, unit, 2, "white");
}

/** A positive or a negative point of an object. @param {CanvasRenderingContext2D} context @param {Point} at */
export function sign(context, [x, y], positive, unit) {
  dots(context, [[x, y]], positive ? COLOURS.target : COLOURS.source, unit, 7);
  const r = 3.5 * unit;
  context.strokeStyle = "white";
  context.lineWidth = 1.75 * unit;
  context.beginPath();
  context.moveTo(x - r, y);
  context.lineTo(x + r, y);
  if (positive) {
    context.moveTo(x, y - r);
    context.lineTo(x, y + r);
  }
  context.stroke();
}

/** A line that is seen on any picture. @param {CanvasRenderingContext2D} context @param {Path2D} path */
export function cased(context, path, colour, unit, width = 1.5, casing = COLOURS.casing) {
  context.lineJoin = "round";
  context.lineCap = "round";
  context.strokeStyle = casing;
  context.lineWidth = (width + 1.5) * unit;
  context.stroke(path);
  context.strokeStyle = colour;
  context.lineWidth = width * unit;
  context.stroke(path);
}

/** @param {CanvasRenderingContext2D} context @param {Point[]} points */
export function squares(context, points, unit) {
  const side = 9 * unit;
  context.fillStyle = "white";
  context.strokeStyle = "rgb(0 0 0 / 0.75)";
  context.lineWidth = unit;
  for (const [x, y] of points) {
    context.fillRect(x - side / 2, y - side / 2, side, side);
    context.strokeRect(x - side / 2, y - side / 2, side, side);
  }
}

/** A copy of screen size in which the pixels of a mask are hatched. @param {OffscreenCanvas} mask @param {number} side */
export function hatched(mask, side, ratio) {
  const layer = new OffscreenCanvas(side, side);
  const context = layer.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(mask, 0, 0, side, side);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = context.createPattern(stripes(ratio), "repeat");
  context.fillRect(0, 0, side, side);
  return layer;
}

const tiles = new Map();

function stripes(/** @type {number} */ ratio) {
  if (!tiles.has(ratio)) {
    const side = Math.round(8 * ratio);
    const tile = new OffscreenCanvas(side, side);
    const context = tile.getContext("2d");
    context.fillStyle = "rgb(255 42 42 / 0.28)";
    context.fillRect(0, 0, side, side);
    context.strokeStyle = COLOURS.doomed;
    context.lineWidth = side / 4;
    for (const shift of [-side, 0, side]) {
      context.moveTo(shift - side, side * 2);
      context.lineTo(shift + side * 2, -side);
    }
    context.stroke();
    tiles.set(ratio, tile);
  }
  return tiles.get(ratio);
}

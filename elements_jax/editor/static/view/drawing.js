// Drawing over an image: outlines, hatching and handles.
// Contexts are scaled to the image's pixels, and `unit` is the size of a CSS pixel in them.

export const COLOURS = { casing: "rgb(0 0 0 / 0.6)", selection: "#ffeb3c", on: "#1ebe3c" };

/** @typedef {[number, number]} Point in pixels of the image */

/** A line that is visible on any image. @param {CanvasRenderingContext2D} context @param {Path2D} path */
export function cased(context, path, colour, unit, width = 1.5) {
  context.lineJoin = "round";
  context.lineCap = "round";
  context.strokeStyle = COLOURS.casing;
  context.lineWidth = (width + 1.5) * unit;
  context.stroke(path);
  context.strokeStyle = colour;
  context.lineWidth = width * unit;
  context.stroke(path);
}

/** @param {CanvasRenderingContext2D} context @param {Point[]} points */
export function squares(context, points, unit) {
  const side = 10 * unit;
  context.fillStyle = "white";
  context.strokeStyle = "rgb(0 0 0 / 0.75)";
  context.lineWidth = unit;
  for (const [x, y] of points) {
    context.fillRect(x - side / 2, y - side / 2, side, side);
    context.strokeRect(x - side / 2, y - side / 2, side, side);
  }
}

/** Marks the place of a search. @param {CanvasRenderingContext2D} context @param {Point} at */
export function ring(context, [x, y], unit) {
  const path = new Path2D();
  path.arc(x, y, 9 * unit, 0, 2 * Math.PI);
  cased(context, path, COLOURS.on, unit, 2.5);
}

/** Red stripes on the screen's own grid. @param {number} ratio screen pixels per CSS pixel */
export function stripes(ratio) {
  const side = Math.round(8 * ratio);
  const tile = new OffscreenCanvas(side, side);
  const context = tile.getContext("2d");
  context.fillStyle = "rgb(255 42 42 / 0.16)";
  context.fillRect(0, 0, side, side);
  context.strokeStyle = "rgb(255 42 42 / 0.7)";
  context.lineWidth = side / 6;
  for (const shift of [-side, 0, side]) {
    context.beginPath();
    context.moveTo(shift, side);
    context.lineTo(shift + side, 0);
    context.stroke();
  }
  return tile;
}

/** The eight handles of a box, clockwise from the top left. @param {import("../model/mask.js").Box} box @returns {Point[]} */
export function handlePoints({ left, top, right, bottom }) {
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  return [
    [left, top],
    [x, top],
    [right, top],
    [right, y],
    [right, bottom],
    [x, bottom],
    [left, bottom],
    [left, y],
  ];
}

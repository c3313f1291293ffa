// A queue has a colour and a pattern: one of them is enough to know it by.

import { store } from "./store.js";

const COLOURS = 8;
const PATTERNS = 6;
let known = "";
let places = new Map();

/** Classes that give an element the queue's colour and pattern. */
export function queueClass(name) {
  const place = placeOf(name);
  return place < 0 ? "q-none p0" : `q${place % COLOURS} p${place % PATTERNS}`;
}

export function placeOf(name) {
  const names = [...store.queues.keys()].filter((one) => one !== "root").join("\n");
  if (names !== known) {
    known = names;
    places = new Map(names.split("\n").map((one, place) => [one, place]));
  }
  return places.get(name) ?? -1;
}

/** For a canvas: the colour as text, and the number of the pattern. */
export function queueColour(name, style) {
  const place = placeOf(name);
  return [style.getPropertyValue(place < 0 ? "--none" : `--c${place % COLOURS}`).trim(), place < 0 ? 0 : place % PATTERNS];
}

const patterns = new Map();
/** A canvas pattern of a colour, of the kinds that style.css has for elements. */
export function canvasPattern(context, colour, kind) {
  const key = `${colour}${kind}`;
  if (!patterns.has(key)) patterns.set(key, context.createPattern(tile(colour, kind), "repeat"));
  return patterns.get(key);
}

function tile(colour, kind) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 8;
  const pen = canvas.getContext("2d");
  pen.globalAlpha = 0.62;
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 8, 8);
  pen.globalAlpha = 1;
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 2;
  const lines = { 1: [[-2, 10, 10, -2], [-2, 2, 2, -2], [6, 10, 10, 6]], 2: [[-2, -2, 10, 10], [6, -2, 10, 2], [-2, 6, 2, 10]], 4: [[0, 2, 8, 2], [0, 6, 8, 6]], 5: [[2, 0, 2, 8], [6, 0, 6, 8]] };
  for (const [a, b, c, d] of lines[kind] ?? []) {
    pen.beginPath();
    pen.moveTo(a, b);
    pen.lineTo(c, d);
    pen.stroke();
  }
  if (kind === 3) for (const at of [2, 6]) pen.fillRect(at - 1, at - 1, 3, 3);
  return canvas;
}

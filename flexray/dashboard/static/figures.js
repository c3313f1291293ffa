// The pool in a few figures with their curves, and the larger curves of the timeline.

import { byId, el } from "./dom.js";
import { amount, clock, count, percent, seconds, words } from "./format.js";
import { now, store } from "./store.js";

const SPARK_SECONDS = 300;
const tiles = new Map();
const curves = new Map();

const TILES = [
  ["devices", "Devices", () => count(store.devices.size), away, null],
  ["booked", "Booked", () => percent(total("booked"), store.devices.size), () => `${amount(total("booked"))} devices`, (one) => one.booked],
  ["used", "In use", () => (latest()?.used === null || !latest() ? "-" : percent(latest().used, store.devices.size)), useText, (one) => one.used],
  ["running", "Running", () => count(sum("running")), () => `on ${count(store.slices.size)} slices`, (one) => one.running],
  ["waiting", "Waiting", () => count(sum("waiting")), waitText, (one) => one.waiting],
];

const latest = () => store.samples[store.samples.length - 1];
const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function sum(field) {
  let all = 0;
  for (const queue of store.queues.values()) all += queue[field];
  return all;
}

function total() {
  let all = 0;
  for (const device of store.devices.values()) all += device.share_held;
  return all;
}

function away() {
  let not = 0;
  for (const device of store.devices.values()) not += device.state !== "ready";
  return not ? `${count(not)} take no work` : `on ${count(store.nodes.size)} node${store.nodes.size === 1 ? "" : "s"}, all ready`;
}

function useText() {
  const used = latest()?.used;
  return used === null || used === undefined ? "not measured here" : `${amount(used)} of ${amount(total())} booked`;
}

function waitText() {
  const oldest = Math.min(...store.classes.map((one) => one.submitted));
  return Number.isFinite(oldest) ? `up to ${seconds(now() - oldest)}, ${words(store.classes[0].wait_reason)}` : "nothing in line";
}

export function start() {
  byId("figures").append(...TILES.map(([name, title, , , read]) => {
    const parts = { value: el("b", { class: "value", text: "-" }), note: el("span", { class: "muted ellipsis" }), spark: read ? el("div", { class: "spark", "aria-hidden": "true" }) : "" };
    tiles.set(name, parts);
    return el("div", { class: "tile", id: `figure-${name}` }, el("div", { class: "words" }, el("span", { class: "muted", text: title }), parts.value, parts.note), parts.spark);
  }));
}

export function draw() {
  for (const [name, , value, note, read] of TILES) {
    const parts = tiles.get(name);
    parts.value.textContent = value();
    parts.note.textContent = note();
    if (read) spark(name, parts.spark, read);
  }
  if (!byId("panel-timeline").hidden) drawCurves();
}

function spark(name, place, read) {
  const shown = store.samples.filter((one) => one.at >= store.now - SPARK_SECONDS);
  if (shown.length < 2) return;
  const since = shown[0].at;
  const data = [shown.map((one) => one.at), shown.map(read)];
  const made = curves.get(name);
  if (made) {
    made.setData(data, false);
    made.setScale("x", { min: since, max: store.now });
    return;
  }
  const hide = { show: false };
  const stroke = colour(name === "waiting" ? "--warn" : "--accent");
  const options = { width: place.clientWidth || 110, height: 40, cursor: hide, legend: hide, axes: [hide, hide], padding: [2, 0, 2, 0], scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(high || 1, 0.001) * 1.15] } }, series: [{}, { stroke, width: 1.5, fill: colour(name === "waiting" ? "--warn-pale" : "--accent-pale"), points: hide }] };
  curves.set(name, new uPlot(options, data, place));
}

export let span = 300;
export function setSpan(chosen) {
  span = chosen;
}

const CURVES = {
  "curve-use": [["booked", "--accent", (one) => one.booked], ["in use", "--good", (one) => one.used], ["devices", "--line-strong", (one) => one.devices]],
  "curve-requests": [["running", "--accent", (one) => one.running], ["waiting", "--warn", (one) => one.waiting]],
};

function drawCurves() {
  const since = now() - span;
  let first = store.samples.findIndex((one) => one.at >= since);
  first = first < 0 ? store.samples.length : Math.max(0, first - 1);
  const shown = thin(store.samples.slice(first));
  for (const [id, series] of Object.entries(CURVES)) {
    const place = byId(id);
    const data = [shown.map((one) => one.at), ...series.map(([, , read]) => shown.map(read))];
    if (!curves.has(id)) curves.set(id, curve(place, series, data));
    const made = curves.get(id);
    if (place.clientWidth && made.width !== place.clientWidth) made.setSize({ width: place.clientWidth, height: 150 });
    made.setData(data, false);
    made.setScale("x", { min: since, max: now() });
  }
}

/** No more points than a curve has pixels. */
function thin(samples) {
  const step = Math.ceil(samples.length / 1200);
  return step > 1 ? samples.filter((_, i) => i % step === 0) : samples;
}

function curve(place, series, data) {
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const lines = series.map(([label, name], i) => ({ label, stroke: colour(name), width: 1.75, dash: name === "--line-strong" ? [4, 4] : i ? [7, 3] : undefined, points: { show: false }, value: (_, v) => (v === null || v === undefined ? "-" : amount(v)) }));
  const options = { width: place.clientWidth || 500, height: 150, axes: [{ ...axis, size: 26, values: (_, at) => at.map((one) => (span <= 300 ? clock(one) : clock(one).slice(0, 5))), space: 70 }, { ...axis, size: 44 }], cursor: { sync: { key: "pool" }, points: { size: 6 } }, legend: { live: true }, scales: { y: { range: (_, low, high) => [0, Math.max(high || 1, 1) * 1.1] } }, series: [{ label: "at", value: (_, v) => (v ? clock(v) : "-") }, ...lines] };
  return new uPlot(options, data, place);
}

/** Other colours: curves are drawn in those of the page. */
export function recolour() {
  for (const made of curves.values()) made.redraw(false, true);
}

export function resize() {
  for (const [name, parts] of tiles) if (parts.spark && curves.has(name) && parts.spark.clientWidth) curves.get(name).setSize({ width: parts.spark.clientWidth, height: 40 });
}

// Who held what: a row per device, a block per lease, as high as its share.

import { byId, el, press, say } from "./dom.js";
import { fitsDevice } from "./filter.js";
import { clock, count, device as short, plural, seconds, task, words } from "./format.js";
import { setSpan, span } from "./figures.js";
import { inPlace } from "./devices.js";
import { canvasPattern, queueColour } from "./palette.js";
import { draw as drawAll, holder, loadPast, now, store } from "./store.js";

const ROW = 30;
const LABEL = 150;
const AXIS = 22;
let opened = () => {};
let loaded = 0;
let blocks = [];
let hint = null;
let devices = [];
let marked = -1;

export function start(open) {
  opened = open;
  const spans = [...byId("spans").children];
  for (const button of spans)
    button.addEventListener("click", () => {
      setSpan(Number(button.dataset.span));
      press(spans, button);
      shown();
      drawAll();
    });
  const place = byId("timeline");
  place.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  place.addEventListener("pointermove", over);
  place.addEventListener("pointerleave", () => hint?.remove());
  place.addEventListener("click", (event) => {
    const hit = blockAt(event);
    if (hit) opened("request", hit.request);
  });
  new ResizeObserver(() => draw()).observe(place);
}

/** The view was opened, or looks further back: what was before this page was opened is asked for once. */
export function shown() {
  if (loaded && loaded <= store.now - span) return;
  loaded = store.now - span;
  loadPast(loaded).catch(() => { loaded = 0; });
}

/** Leases of each device, those that are over and those that last. */
function leases(since) {
  const found = new Map();
  const add = (device, one) => (found.get(device) ?? found.set(device, []).get(device)).push(one);
  for (const one of store.ended) {
    if (one.end < since) continue;
    for (const device of one.devices) add(device, { request: one.lease[0], queue: one.queue, task: one.task_class, share: one.share, start: one.start, end: one.end, ended: one.ended });
  }
  for (const slice of store.slices.values()) {
    const request = slice.request && holder(slice);
    if (!request || slice.state !== "held") continue;
    for (const device of slice.devices) add(device, { request: request.id, queue: request.queue, task: request.task_class, share: slice.share, start: slice.since, end: null, ended: "" });
  }
  return found;
}

export function draw() {
  if (byId("panel-timeline").hidden) return;
  const place = byId("timeline");
  const canvas = place.querySelector("canvas");
  const [width, height] = [place.clientWidth, place.clientHeight];
  const until = now();
  const since = until - span;
  const held = leases(since);
  devices = inPlace().filter(fitsDevice);
  place.querySelector(".spacer").style.height = `${devices.length * ROW + AXIS}px`;
  const scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const x = (at) => LABEL + ((at - since) / span) * (width - LABEL - 8);
  blocks = [];
  grid(pen, style, x, since, until, height);
  const first = Math.floor(place.scrollTop / ROW);
  for (let i = first; i < Math.min(devices.length, first + Math.ceil(height / ROW) + 1); i++)
    row(pen, style, x, { device: devices[i], top: AXIS + i * ROW - place.scrollTop, leases: held.get(devices[i].id) ?? [], since, until, marked: i === marked, width });
  pen.clearRect(0, 0, width, AXIS);
  axis(pen, style, x, since, until);
  let all = 0;
  for (const one of held.values()) all += one.length;
  byId("timeline-count").textContent = `${plural(all, "lease")} on ${plural(devices.length, "device")}`;
  canvas.setAttribute("aria-label", `${plural(all, "lease")} in the last ${seconds(span)}; j and k go from device to device`);
}

function ticks(since, until) {
  const step = [10, 30, 60, 300, 600, 1800, 3600, 7200].find((one) => span / one <= 9) ?? 14400;
  const found = [];
  for (let at = Math.ceil(since / step) * step; at < until; at += step) found.push(at);
  return found;
}

function grid(pen, style, x, since, until, height) {
  pen.strokeStyle = style.getPropertyValue("--line");
  for (const at of ticks(since, until)) {
    pen.beginPath();
    pen.moveTo(Math.round(x(at)) + 0.5, AXIS);
    pen.lineTo(Math.round(x(at)) + 0.5, height);
    pen.stroke();
  }
}

function axis(pen, style, x, since, until) {
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = style.getPropertyValue("--muted");
  pen.textAlign = "center";
  for (const at of ticks(since, until)) pen.fillText(span <= 1800 ? clock(at) : clock(at).slice(0, 5), x(at), 14);
}

function row(pen, style, x, one) {
  const { device, top, leases, since, until, width } = one;
  const inner = ROW - 6;
  if (one.marked) {
    pen.fillStyle = style.getPropertyValue("--hover");
    pen.fillRect(0, top, width, ROW);
  }
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "left";
  pen.fillStyle = style.getPropertyValue(device.state === "ready" ? "--ink" : "--bad");
  pen.fillText(short(device.id, store.nodes), 12, top + ROW / 2 + 4, LABEL - 20);
  pen.fillStyle = style.getPropertyValue("--track");
  pen.fillRect(LABEL, top + 3, width - LABEL - 8, inner);
  const standing = [];
  for (const lease of leases.sort((a, b) => a.start - b.start)) {
    const offset = lowest(standing, lease);
    const left = x(Math.max(since, lease.start));
    const right = Math.max(left + 1, x(lease.end ?? until) - 0.5);
    const high = Math.max(2, lease.share * inner - 1);
    const y = top + 3 + inner - (offset + lease.share) * inner;
    const [colour, kind] = queueColour(lease.queue, style);
    pen.fillStyle = canvasPattern(pen, colour, kind);
    pen.fillRect(left, y, right - left, high);
    if (high > 11 && right - left > 46) {
      pen.fillStyle = style.getPropertyValue("--on-block");
      pen.font = "11px system-ui, sans-serif";
      pen.fillText(task(lease.task), left + 5, y + high / 2 + 4, right - left - 10);
    }
    if (!["", "released", "session_closed"].includes(lease.ended)) {
      pen.fillStyle = style.getPropertyValue("--bad");
      pen.fillRect(right - 2, y, 2, high);
    }
    blocks.push({ ...lease, device: device.id, left, right, top: y, bottom: y + high });
  }
}

/** Where in the height of a device a lease has room beside those that go on. */
function lowest(standing, lease) {
  const going = standing.filter((one) => (one.end ?? Infinity) > lease.start + 0.001).sort((a, b) => a.offset - b.offset);
  standing.length = 0;
  standing.push(...going);
  let offset = 0;
  for (const one of going) {
    if (offset + lease.share <= one.offset + 0.0005) break;
    offset = Math.max(offset, one.offset + one.share);
  }
  offset = Math.max(0, Math.min(offset, 1 - lease.share));
  standing.push({ ...lease, offset });
  return offset;
}

function blockAt(event) {
  const box = byId("timeline").querySelector("canvas").getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  return blocks.find((one) => x >= one.left - 1 && x <= one.right + 1 && y >= one.top && y <= one.bottom);
}

function over(event) {
  const hit = blockAt(event);
  hint?.remove();
  byId("timeline").style.cursor = hit ? "pointer" : "";
  if (!hit) return;
  const lasted = seconds((hit.end ?? now()) - hit.start);
  hint = el("div", { class: "hint" }, el("b", { text: task(hit.task) }), el("div", { class: "muted", text: `${hit.request} of queue ${hit.queue}` }), el("div", { text: `${clock(hit.start)}, ${lasted}${hit.end ? "" : " so far"}; ${Math.round(hit.share * 100)}% of ${short(hit.device, store.nodes)}` }), hit.ended ? el("div", { class: "muted", text: words(hit.ended) }) : "");
  hint.style.left = `${Math.min(event.clientX + 14, innerWidth - 280)}px`;
  hint.style.top = `${Math.min(event.clientY + 14, innerHeight - 110)}px`;
  document.body.append(hint);
}

export function move(step) {
  if (!devices.length) return;
  marked = Math.max(0, Math.min(devices.length - 1, marked < 0 ? 0 : marked + step));
  const place = byId("timeline");
  const top = marked * ROW;
  if (top < place.scrollTop) place.scrollTop = top;
  else if (top + ROW + AXIS > place.scrollTop + place.clientHeight) place.scrollTop = top + ROW + AXIS - place.clientHeight;
  draw();
  const here = blocks.filter((one) => one.device === devices[marked].id);
  say(`${short(devices[marked].id, store.nodes)}: ${here.map((one) => `${task(one.task)} of queue ${one.queue} for ${seconds((one.end ?? now()) - one.start)}`).join(", ") || "nothing"}`);
}

export function enter() {
  if (devices[marked]) opened("device", devices[marked].id);
}

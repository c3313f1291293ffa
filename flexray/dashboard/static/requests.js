// Requests that wait, in the order in which they are placed, and those that run.

import { byId, el, press, say } from "./dom.js";
import { fitsRequest } from "./filter.js";
import { count, device as short, plural, seconds, task, words } from "./format.js";
import { Lines } from "./lines.js";
import { queueClass } from "./palette.js";
import { now, store } from "./store.js";

const HEIGHT = 36;
let kind = "all";
let lines = null;
let order = [];
let marked = "";
let opened = () => {};

export function start(open) {
  opened = open;
  lines = new Lines(byId("requests"), (line, index) => (line.request ? row(line, index) : summary(line)));
  const kinds = [...byId("kinds").children];
  for (const button of kinds)
    button.addEventListener("click", () => {
      kind = button.dataset.kind;
      press(kinds, button);
      draw();
    });
  byId("requests").addEventListener("click", (event) => {
    const hit = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-request]");
    if (hit) mark(hit.dataset.request, true);
  });
  new ResizeObserver(() => lines.show(false)).observe(byId("requests"));
}

export function draw() {
  if (byId("panel-requests").hidden) return;
  const held = heldBy();
  const waiting = kind === "running" ? [] : pick(store.waiting, held);
  const running = kind === "waiting" ? [] : pick(store.running, held);
  const made = [...waiting, ...running].map((request) => ({ key: request.id, request, slice: held.get(request.id), height: HEIGHT }));
  order = made.map((line) => line.key);
  const unlisted = unlistedCount();
  if (unlisted && kind !== "running") made.splice(waiting.length, 0, { key: "more", unlisted, height: HEIGHT });
  if (!made.length) made.push({ key: "none", height: 60 });
  byId("requests-count").textContent = `${count(waiting.length + (kind === "running" ? 0 : unlisted))} wait, ${count(running.length)} run`;
  lines.set(made);
  const bar = byId("requests").offsetWidth - byId("requests").clientWidth; // the scroll bar takes room that the heads do not have
  byId("requests").previousElementSibling.style.paddingRight = `${20 + bar}px`;
  byId("requests").setAttribute("aria-activedescendant", marked ? `r-${marked}` : "");
}

/** Request -> its slice. */
function heldBy() {
  const found = new Map();
  for (const slice of store.slices.values()) if (slice.request) found.set(slice.request, slice);
  return found;
}

function pick(table, held) {
  const found = [];
  for (const request of table.values()) {
    const devices = held.get(request.id)?.devices ?? [];
    if (fitsRequest(request, devices, devices.length ? (store.devices.get(devices[0])?.type ?? "") : "")) found.push(request);
  }
  return found;
}

/** Of a very long line only the first are listed; queues count all. */
export function unlistedCount() {
  let all = 0;
  for (const queue of store.queues.values()) all += queue.waiting;
  return Math.max(0, all - store.waiting.size);
}

function summary(line) {
  if (!line.unlisted) return el("div", { class: "nothing", text: store.waiting.size + store.running.size ? "No request fits the filter." : "Nothing waits, nothing runs." });
  const kinds = store.classes.slice(0, 4).map((one) => `${count(one.waiting)} × ${one.task} (${one.queue})`).join(", ");
  return el("div", { class: "more muted", text: `and ${plural(line.unlisted, "request")} more in line: ${kinds}` });
}

function row({ request, slice }, index) {
  const waits = request.wait_reason !== "";
  const where = slice && !waits ? slice.devices.map((id) => short(id, store.nodes)).join(", ") : "";
  const start = store.starts[request.id];
  const since = waits ? request.submitted : (slice?.since ?? request.submitted);
  return el("div", { class: `request${waits ? " waits" : ""}`, role: "option", id: `r-${request.id}`, "data-request": request.id, "aria-selected": String(request.id === marked), "aria-posinset": index + 1, "aria-label": describe(request, where) },
    el("span", { class: "mono ellipsis", text: request.id, title: request.id }),
    el("span", { class: "ellipsis", text: task(request.task_class), title: request.task_class }),
    el("span", { class: "ellipsis" }, el("i", { class: `swatch ${queueClass(request.queue)}` }), request.queue, request.priority ? el("small", { class: "muted", text: ` ${request.priority > 0 ? "+" : ""}${request.priority}`, title: "priority" }) : ""),
    el("span", { class: "ellipsis muted", text: request.asked, title: request.asked }),
    waits
      ? el("span", { class: "ellipsis" }, el("em", { class: `reason ${request.wait_reason}`, text: words(request.wait_reason) }), request.position ? el("small", { class: "muted", text: ` #${request.position}` }) : "")
      : el("span", { class: "ellipsis", text: where || request.state, title: where }),
    el("span", { class: "figure", text: seconds(now() - since) }),
    el("span", { class: "figure muted", text: waits ? startText(start) : "", title: start?.text }));
}

/** `in 3 min`; `?` where it cannot be told, and nothing where nobody has asked yet. */
export function startText(start) {
  if (!start) return "";
  return start.at === null ? "?" : `in ${seconds(start.at - now())}`;
}

function describe(request, where) {
  const start = startText(store.starts[request.id]);
  const state = request.wait_reason ? `waits for ${words(request.wait_reason)}${start && start !== "?" ? `, starts ${start}` : ""}` : `${request.state} on ${where}`;
  return `${request.id}, ${task(request.task_class)} of queue ${request.queue}, ${request.asked}, ${state}`;
}

function mark(id, open) {
  marked = id;
  draw();
  if (open) opened("request", id);
}

export function move(step) {
  if (!order.length) return;
  const at = order.indexOf(marked);
  marked = order[Math.max(0, Math.min(order.length - 1, at < 0 ? 0 : at + step))];
  draw();
  lines.reveal(lines.lines.findIndex((line) => line.key === marked));
  say(byId(`r-${marked}`)?.getAttribute("aria-label") ?? marked);
}

export function enter() {
  if (marked) opened("request", marked);
}

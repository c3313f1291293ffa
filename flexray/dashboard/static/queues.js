// Queues: what each holds beside what it was promised, and what waits for what.

import { byId, el } from "./dom.js";
import { fitsQueue } from "./filter.js";
import { amount, count, plural, seconds, words } from "./format.js";
import { queueClass } from "./palette.js";
import { now, store } from "./store.js";

let filtered = () => {};

export function start(filter) {
  filtered = filter;
  for (const id of ["legend", "why", "queues"])
    byId(id).addEventListener("click", (event) => {
      const hit = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-filter]");
      if (hit) filtered(hit.dataset.filter);
    });
}

export function draw() {
  const queues = withDepth();
  const scale = Math.max(0.001, ...queues.filter(({ queue }) => queue.name !== "root").map(({ queue }) => Math.max(heldOf(queue), queue.compute_entitled, queue.compute_guaranteed)));
  if (!byId("panel-devices").hidden) {
    refill(byId("legend"), queues.map((one) => legend(one, scale)));
    drawWhy();
  }
  if (!byId("panel-queues").hidden) refill(byId("queues"), [table(queues, scale)]);
}

/** Put other children in, and leave the focus where it was. */
function refill(parent, children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.filter : null;
  parent.replaceChildren(...children);
  if (focused) [...parent.querySelectorAll("[data-filter]")].find((one) => one.dataset.filter === focused)?.focus();
}

function withDepth() {
  const depth = new Map();
  const found = [];
  for (const queue of store.queues.values()) {
    if (queue.name === "root") continue;
    const deep = depth.has(queue.parent) ? depth.get(queue.parent) + 1 : 0;
    depth.set(queue.name, deep);
    found.push({ queue, deep });
  }
  return found;
}

/** In compute where the pool has rules for queues, else in devices. */
const ruled = () => [...store.queues.values()].some((queue) => queue.compute_entitled > 0 || queue.quota || queue.limit);
const heldOf = (queue) => (ruled() ? queue.compute_held : queue.devices_held);

function legend({ queue, deep }, scale) {
  const made = el("button", { class: `queue-line${fitsQueue(queue.name) ? " chosen" : ""}`, "data-filter": `queue:${queue.name}`, "aria-pressed": String(fitsQueue(queue.name)), title: `Show only what ${queue.name} has` },
    el("span", { class: "queue-name" }, el("i", { class: `swatch ${queueClass(queue.name)}` }), el("b", { text: queue.name }), el("span", { class: "muted figure", text: `${amount(queue.devices_held)} held · ${count(queue.running)} run · ${count(queue.waiting)} wait` })),
    meter(queue, scale));
  made.style.paddingLeft = `${10 + deep * 14}px`;
  return made;
}

/** A bar: what is held within the quota, what is borrowed, and where quota and fair share are. */
function meter(queue, scale) {
  const held = heldOf(queue);
  const own = held - Math.min(held, queue.compute_borrowed);
  const part = (value) => `${Math.min(100, (100 * value) / scale)}%`;
  const made = el("span", { class: `meter ${queueClass(queue.name)}`, role: "img", "aria-label": `${amount(held)} held, ${amount(queue.compute_borrowed)} of it borrowed; quota ${queue.quota || "none"}, fair share ${amount(queue.compute_entitled)}` },
    el("i", { class: "own", width: part(own) }), el("i", { class: "borrowed", width: part(held - own) }));
  if (queue.compute_guaranteed) made.append(el("i", { class: "mark quota", left: part(queue.compute_guaranteed) }));
  if (queue.compute_entitled) made.append(el("i", { class: "mark entitled", left: part(queue.compute_entitled) }));
  return made;
}

const COLUMNS = ["Queue", "Held against quota", "Devices", "Compute", "Borrowed", "Fair share", "Quota", "Limit", "Weight", "Run", "Wait"];

function table(queues, scale) {
  const head = el("thead", {}, el("tr", {}, ...COLUMNS.map((name) => el("th", { scope: "col", text: name }))));
  const rows = queues.map(({ queue, deep }) => {
    const name = el("th", { scope: "row" }, el("i", { class: `swatch ${queueClass(queue.name)}` }), el("button", { class: "link", "data-filter": `queue:${queue.name}`, text: queue.name }));
    name.style.paddingLeft = `${12 + deep * 18}px`;
    const figures = [amount(queue.devices_held), amount(queue.compute_held), amount(queue.compute_borrowed), amount(queue.compute_entitled), queue.quota || "-", queue.limit || "-", amount(queue.weight), count(queue.running), count(queue.waiting)];
    return el("tr", { "data-queue": queue.name }, name, el("td", { class: "wide" }, meter(queue, scale)), ...figures.map((text) => el("td", { class: "figure", text })));
  });
  return el("table", { class: "queues" }, head, el("tbody", {}, ...rows));
}

/** What waits, by task and reason: also what is not listed one by one. */
function drawWhy() {
  let all = 0;
  for (const queue of store.queues.values()) all += queue.waiting;
  byId("why-count").textContent = count(all);
  const rows = store.classes.slice(0, 12).map((one) =>
    el("button", { class: "why-line", "data-filter": `task:${one.task}`, title: one.asked },
      el("span", { class: "why-name" }, el("i", { class: `swatch ${queueClass(one.queue)}` }), el("b", { class: "ellipsis", text: one.task }), el("span", { class: "figure", text: count(one.waiting) })),
      el("span", { class: "why-name" }, el("em", { class: `reason ${one.wait_reason}`, text: words(one.wait_reason) }), el("span", { class: "muted figure", text: `up to ${seconds(now() - one.submitted)}` }))));
  const placed = [...store.waiting.values()].filter((one) => !one.position).length;
  if (placed) rows.push(el("p", { class: "muted small", text: `${plural(placed, "request")} with a place chosen or a slice starting` }));
  refill(byId("why"), rows.length ? rows : [el("p", { class: "muted small", text: "Nothing waits." })]);
}

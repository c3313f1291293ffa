// Preemptions, faults of devices, who uses them without asking, and what the operator should know.

import { byId, el } from "./dom.js";
import { amount, clock, count, device as short, memory, plural, seconds, words } from "./format.js";
import { now, store } from "./store.js";

const MOST = 200;
let opened = () => {};

export function start(open) {
  opened = open;
  byId("events").addEventListener("click", (event) => {
    const hit = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-open]");
    if (hit) opened(...hit.dataset.open.split(" "));
  });
}

export function draw() {
  const away = [...store.devices.values()].filter((one) => one.state !== "ready");
  const badge = byId("events-count");
  badge.hidden = !away.length;
  badge.textContent = count(away.length);
  badge.setAttribute("aria-label", `${plural(away.length, "device")} without work`);
  if (byId("panel-events").hidden) return;
  const focused = byId("events").contains(document.activeElement) ? document.activeElement.dataset.open : null;
  byId("events").replaceChildren(
    part("Devices that take no work", away.map((one) => line(one.state, link("device", one.id, short(one.id, store.nodes)), `${one.type}. ${one.reason}`))),
    part("Preemptions", [...store.preemptions].reverse().map(preemption)),
    part("Seen on devices", notes()),
    part("Processes that belong to no slice", foreign()),
    part("Plain Ray work that waits for accelerators", store.ray_demand.map((one) => line(`${one.count} times`, JSON.stringify(one.resources), "the pool may be holding what it waits for"))),
    part("The scheduler", store.notes.map((text) => line("note", text, ""))),
    part("What found no devices", reports()),
  );
  if (focused) byId("events").querySelector(`[data-open="${CSS.escape(focused)}"]`)?.focus();
}

function part(title, lines) {
  const shown = lines.slice(0, MOST);
  const more = lines.length > MOST ? el("p", { class: "muted small", text: `and ${count(lines.length - MOST)} more` }) : "";
  return el("section", { class: "part" }, el("h3", {}, title, el("span", { class: "muted", text: ` ${count(lines.length)}` })), ...(shown.length ? shown : [el("p", { class: "muted small", text: "None." })]), more);
}

function line(tag, what, text) {
  return el("div", { class: "happening" }, el("span", { class: `state ${tag}`, text: words(tag) }), el("span", {}, what), el("span", { class: "muted", text }));
}

const link = (kind, id, text) => el("button", { class: "link", "data-open": `${kind} ${id}`, text });

function preemption(one) {
  const [request, attempt] = one.victim;
  const whom = one.winner ? [" gave way to ", link("request", one.winner, one.winner), one.winner_queue ? ` of ${one.winner_queue}` : ""] : [" was moved to go on better elsewhere"];
  const what = el("span", {}, link("request", request, `${request}#${attempt}`), ` of ${one.victim_queue}`, ...whom);
  return line(one.reason, what, `${clock(one.at)}, ${seconds(now() - one.at)} ago, on ${one.devices.map((id) => short(id, store.nodes)).join(", ")}; at most ${amount(one.lost)} device-seconds of work lost`);
}

function notes() {
  const found = [...store.devices.values()].flatMap((device) => device.notes.map((note) => [device, note]));
  return found.sort(([, a], [, b]) => b.at - a.at).map(([device, note]) => line("seen", link("device", device.id, short(device.id, store.nodes)), `${note.what}, ${seconds(now() - note.at)} ago`));
}

function foreign() {
  const found = [...store.devices.values()].flatMap((device) => device.foreign.map((one) => [device, one]));
  return found.map(([device, one]) => line(`pid ${one.pid}`, link("device", device.id, short(device.id, store.nodes)), `${one.memory === null ? "" : `${memory(one.memory)}, `}since ${seconds(now() - one.since)}`));
}

function reports() {
  const empty = new Set([...store.devices.values()].map((one) => one.node));
  const found = [...store.nodes.values()].filter((one) => !empty.has(one.id)).slice(0, MOST);
  return found.flatMap((node) => node.reports.filter(([, number]) => !number).map(([backend, , reason]) => line(backend, node.name, reason)));
}

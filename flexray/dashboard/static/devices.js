// Every device as a bar of its slices: as wide as their shares, in the colour and pattern of their queue.

import { byId, el, press, say } from "./dom.js";
import { fitsDevice } from "./filter.js";
import { amount, count, device as short, memory, node as nodeName, percent, task, type } from "./format.js";
import { Lines } from "./lines.js";
import { queueClass } from "./palette.js";
import { queueOf, store } from "./store.js";

const DENSE_FROM = 96; // devices; fewer are cards unless somebody chooses
const CARD = { width: 310, height: 92 };
const DENSE = { width: 92, height: 24, label: 118 };
let chosen = null;
let lines = null;
let order = [];
let marked = "";
let opened = () => {};

export function start(open) {
  opened = open;
  lines = new Lines(byId("devices"), (line) => RENDER[line.kind](line));
  const sizes = { large: byId("size-large"), small: byId("size-small") };
  for (const [name, button] of Object.entries(sizes))
    button.addEventListener("click", () => {
      chosen = name;
      draw();
    });
  byId("devices").addEventListener("click", (event) => {
    // what was pressed may have been drawn anew since: what is there now counts
    const hit = document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-device]");
    if (hit) mark(hit.dataset.device, true);
  });
  new ResizeObserver(() => draw()).observe(byId("devices"));
}

export function draw() {
  if (byId("panel-devices").hidden) return;
  const found = inPlace().filter(fitsDevice);
  const dense = chosen ? chosen === "small" : store.devices.size > DENSE_FROM;
  press([byId("size-large"), byId("size-small")], byId(dense ? "size-small" : "size-large"));
  order = found.map((one) => one.id);
  const all = found.length === store.devices.size;
  byId("devices-count").textContent = all ? count(found.length) : `${count(found.length)} of ${count(store.devices.size)}`;
  const room = byId("devices").clientWidth - 24;
  lines.set(found.length ? (dense ? denseLines(found, room) : cardLines(found, room)) : [nothing()]);
  byId("devices").setAttribute("aria-activedescendant", marked ? `d-${marked}` : "");
}

const nothing = () => ({ key: "nothing", kind: "nothing", height: 60 });

const { compare } = new Intl.Collator("en", { numeric: true });
let sorted = { shape: -1, devices: [] };

/** All devices, node by node; sorted again only when some have come or gone. */
export function inPlace() {
  if (sorted.shape === store.shape) return sorted.devices;
  const nodes = [...store.nodes.values()].sort((a, b) => compare(a.name, b.name) || compare(a.id, b.id));
  const rank = new Map(nodes.map((one, place) => [one.id, place]));
  const devices = [...store.devices.values()];
  devices.sort((a, b) => (rank.get(a.node) ?? 0) - (rank.get(b.node) ?? 0) || compare(a.id, b.id));
  sorted = { shape: store.shape, devices };
  return devices;
}

function* byNode(devices) {
  for (let begin = 0; begin < devices.length; ) {
    let end = begin;
    while (end < devices.length && devices[end].node === devices[begin].node) end++;
    yield devices.slice(begin, end);
    begin = end;
  }
}

function* rows(devices, most) {
  for (let i = 0; i < devices.length; i += most) yield devices.slice(i, i + most);
}

function cardLines(devices, room) {
  const columns = Math.max(1, Math.floor(room / CARD.width));
  const made = [];
  for (const here of byNode(devices)) {
    made.push({ key: `n${here[0].node}`, kind: "node", node: here[0].node, devices: here, height: 34 });
    for (const row of rows(here, columns)) made.push({ key: row[0].id, kind: "cards", devices: row, columns, height: CARD.height });
  }
  return made;
}

function denseLines(devices, room) {
  const columns = Math.max(1, Math.floor((room - DENSE.label) / DENSE.width));
  const most = Math.min(columns, 16);
  const made = [];
  for (const here of byNode(devices))
    for (const row of rows(here, most))
      made.push({ key: row[0].id, kind: "dense", devices: row, columns: Math.min(most, 8) > here.length ? 8 : most, label: row[0] === here[0], height: DENSE.height });
  return made;
}

const RENDER = {
  nothing: () => el("div", { class: "nothing", text: store.devices.size ? "No device fits the filter." : "No devices. The Events view says what the nodes have found." }),
  node: (line) => {
    const node = store.nodes.get(line.node);
    const booked = line.devices.reduce((sum, one) => sum + one.share_held, 0);
    return el("div", { class: "node-head", role: "presentation" },
      el("strong", { text: nodeName(line.node, store.nodes) }),
      el("span", { class: "muted", text: `${line.node.slice(0, 6)} · ${amount(booked)} of ${line.devices.length} booked${node ? ` · ${amount(node.cpus_free)} of ${amount(node.cpus)} cores free` : ""}` }));
  },
  cards: (line) => {
    const row = el("div", { class: "cards", role: "presentation" }, ...line.devices.map(card));
    row.style.gridTemplateColumns = `repeat(${line.columns}, minmax(0, 1fr))`;
    return row;
  },
  dense: (line) => {
    const label = el("span", { class: "dense-node", text: line.label ? nodeName(line.devices[0].node, store.nodes) : "", title: line.devices[0].type });
    const cells = line.devices.map((one) => option(one, "cell", bar(one, false)));
    const row = el("div", { class: "dense", role: "presentation" }, label, ...cells);
    row.style.gridTemplateColumns = `${DENSE.label}px repeat(${line.columns}, minmax(0, 1fr))`;
    return row;
  },
};

function option(device, kind, ...children) {
  const well = device.state === "ready";
  return el("div", { class: `${kind}${well ? "" : " away"}`, role: "option", id: `d-${device.id}`, "data-device": device.id, "data-state": device.state, "aria-selected": String(device.id === marked), "aria-label": describe(device) }, ...children);
}

function card(device) {
  const used = usedOf(device);
  const state = device.state === "ready" ? "" : el("span", { class: `state ${device.state}`, text: device.state, title: device.reason });
  return option(device, "device",
    el("div", { class: "device-head" }, el("strong", { text: device.id.slice(device.id.lastIndexOf("/") + 1) }), el("span", { class: "muted ellipsis", text: type(device.type) }), state,
      el("span", { class: "figure", text: `${percent(device.share_held, 1)}${used === null ? "" : ` · ${percent(used, 1)} in use`}` })),
    bar(device, true),
    el("div", { class: "memory", title: "memory" }, el("i", { width: `${(100 * device.memory_held) / device.memory}%` })),
    el("div", { class: "device-foot muted" }, el("span", { text: `${memory(device.memory_held)} of ${memory(device.memory)}` }), el("span", { text: device.isolation === "none" ? "no isolation" : device.isolation })));
}

/** The slices of a device; those that nobody holds are paler. */
export function bar(device, labelled) {
  const made = el("div", { class: "bar-of-slices" });
  for (const id of device.slices) {
    const slice = store.slices.get(id);
    if (slice) made.append(segment(slice, labelled));
  }
  return made;
}

function segment(slice, labelled) {
  const queue = queueOf(slice);
  const inUse = slice.busy === null ? null : Math.min(1, slice.busy / slice.share);
  const idle = slice.request ? "" : " idle";
  const label = slice.request ? `${task(slice.task_class)}` : slice.state;
  const use = slice.busy === null ? "" : `, ${percent(slice.busy, 1)} in use`;
  return el("span", { class: `slice ${queueClass(queue)}${idle} s-${slice.state}`, width: `${slice.share * 100}%`, "data-slice": slice.id, "data-queue": queue, title: `${label}${queue ? ` (${queue})` : ""}: ${percent(slice.share, 1)} booked${use}, ${memory(slice.memory)}` },
    labelled ? el("b", { text: label }) : "",
    inUse === null ? "" : el("i", { class: "use", width: `${inUse * 100}%` }));
}

function usedOf(device) {
  const measured = device.slices.map((id) => store.slices.get(id)?.busy).filter((busy) => busy !== null && busy !== undefined);
  return measured.length ? measured.reduce((sum, busy) => sum + busy, 0) : device.slices.length ? null : 0;
}

function describe(device) {
  const held = device.slices.map((id) => store.slices.get(id)).filter(Boolean)
    .map((one) => `${one.request ? `${task(one.task_class)} of queue ${queueOf(one)}` : one.state} ${percent(one.share, 1)}`);
  const state = device.state === "ready" ? "" : `, ${device.state}${device.reason ? `: ${device.reason}` : ""}`;
  return `${short(device.id, store.nodes)}, ${device.type}${state}, ${percent(device.share_held, 1)} booked. ${held.join(", ") || "nothing on it"}`;
}

function mark(id, open) {
  marked = id;
  draw();
  if (open) opened("device", id);
}

/** Keyboard: the next or previous device. */
export function move(step) {
  if (!order.length) return;
  const at = order.indexOf(marked);
  marked = order[Math.max(0, Math.min(order.length - 1, at < 0 ? 0 : at + step))];
  draw();
  const index = lines.lines.findIndex((line) => line.devices?.some((one) => one.id === marked) && line.kind !== "node");
  if (index >= 0) lines.reveal(index);
  say(describe(store.devices.get(marked)));
}

export function enter() {
  if (marked && store.devices.has(marked)) opened("device", marked);
}

// One device, or one request's story from submit to result.

import { bar } from "./devices.js";
import { byId, el, say } from "./dom.js";
import { amount, clock, device as short, memory, percent, plural, seconds, task, words } from "./format.js";
import { queueClass } from "./palette.js";
import { startText } from "./requests.js";
import { ask, holder, now, store } from "./store.js";

const AGAIN_MS = 3000;
let open = null; // {kind, id, story, asked}
let before = null;

export function show(kind, id) {
  if (!open) before = document.activeElement;
  open = { kind, id, story: null, asked: -Infinity, error: "" };
  byId("detail").hidden = false;
  byId("detail").dataset.kind = kind;
  draw();
  byId("detail").focus();
}

export function close() {
  if (!open) return false;
  open = null;
  byId("detail").hidden = true;
  before?.focus?.();
  return true;
}

export function draw() {
  if (!open) return;
  const inside = byId("detail");
  const focused = inside.contains(document.activeElement) ? document.activeElement.dataset.keep : null;
  const scrolled = inside.scrollTop;
  const parts = open.kind === "device" ? aboutDevice(store.devices.get(open.id)) : aboutRequest();
  inside.replaceChildren(el("button", { class: "close", "aria-label": "Close", "data-keep": "close", text: "×", onclick: close }), ...parts.filter(Boolean));
  inside.scrollTop = scrolled;
  if (focused) inside.querySelector(`[data-keep="${CSS.escape(focused)}"]`)?.focus();
}

function facts(pairs) {
  return el("dl", { class: "facts" }, ...pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined).map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", {}, value))));
}

const part = (title, ...children) => el("section", {}, el("h3", { text: title }), ...children);
const link = (kind, id, text = id) => el("button", { class: "link", "data-keep": `${kind}-${id}`, text, onclick: () => show(kind, id) });

// -- a device ------------------------------------------------------------------------------------

function aboutDevice(device) {
  if (!device) return [el("h2", { text: open.id }), el("p", { text: "This device is not in the pool now." })];
  const slices = device.slices.map((id) => store.slices.get(id)).filter(Boolean);
  return [
    el("h2", { text: short(device.id, store.nodes) }),
    el("p", { class: "muted", text: `${device.type} · ${store.nodes.get(device.node)?.name ?? device.node}` }),
    device.state === "ready" ? null : el("p", { class: "warning" }, el("span", { class: `state ${device.state}`, text: device.state }), ` ${device.reason}`),
    bar(device, true),
    facts([["Booked", percent(device.share_held, 1)], ["Memory", `${memory(device.memory_held)} of ${memory(device.memory)}`], ["Held by", device.isolation], ["That means", device.guarantee], ["Found by", device.backend], ["Id", el("code", { text: device.id })]]),
    part(plural(slices.length, "slice"), ...(slices.length ? slices.map(aboutSlice) : [el("p", { class: "muted", text: "Nothing is on it." })])),
    device.notes.length ? part("Seen on it", ...device.notes.map((note) => el("p", { text: `${note.what}, ${seconds(now() - note.at)} ago` }))) : null,
    device.foreign.length ? part("Processes that belong to no slice", ...device.foreign.map((one) => el("p", { text: `pid ${one.pid}${one.memory === null ? "" : `, ${memory(one.memory)}`}, since ${seconds(now() - one.since)}` }))) : null,
    store.changes ? cordons(device) : null,
  ];
}

function aboutSlice(slice) {
  const request = holder(slice);
  const idle = slice.idle_seconds > 60 ? `idle for ${seconds(slice.idle_seconds)}` : "";
  const use = slice.busy === null ? "not measured" : `${percent(slice.busy, 1)} of the device`;
  return el("div", { class: "about-slice" },
    el("div", { class: "queue-name" }, el("i", { class: `swatch ${queueClass(request?.queue ?? "")}` }), el("b", { text: slice.request ? task(slice.task_class) : `${slice.state}, kept warm for ${task(slice.task_class)}` }), el("span", { class: "muted figure", text: seconds(now() - slice.since) })),
    facts([["Share", `${percent(slice.share, 1)}${slice.burst > slice.share ? `, up to ${percent(slice.burst, 1)} while others are idle` : ""}`], ["In use", [use, idle].filter(Boolean).join(", ")], ["Memory", slice.memory_used === null ? memory(slice.memory) : `${memory(slice.memory_used)} of ${memory(slice.memory)}`], ["Queue", request?.queue], ["Request", slice.request ? link("request", slice.request) : ""], ["Slice", el("code", { text: slice.id })]]));
}

function cordons(device) {
  const away = ["cordoned", "draining", "drained"].includes(device.state);
  const told = el("p", { class: "small", role: "status", text: open.error });
  const tell = async (verb) => {
    try {
      await ask(`/api/${verb}`, { device: device.id, reason: verb === "uncordon" ? "" : "from the dashboard" });
      open.error = "";
      say(`${verb}: done`);
    } catch (error) {
      open.error = error.message;
      draw();
    }
  };
  const button = (verb, text) => el("button", { class: "chip", "data-keep": verb, text, onclick: () => tell(verb) });
  return part("Operate", el("div", { class: "chips" }, ...(away ? [button("uncordon", "Uncordon")] : [button("cordon", "Cordon"), button("drain", "Drain")])), told);
}

// -- a request -----------------------------------------------------------------------------------

function aboutRequest() {
  const story = open.story;
  if (performance.now() - open.asked > AGAIN_MS && !open.error && !(story && over(story.explanation))) read(open);
  if (open.error) return [el("h2", { text: open.id }), el("p", { class: "warning", text: open.error })];
  if (!story) return [el("h2", { text: open.id }), el("p", { class: "muted", text: "Asking the scheduler…" })];
  const { explanation, request } = story;
  const now_ = store.waiting.get(open.id) ?? store.running.get(open.id) ?? request;
  const queue = explanation.queue || now_?.queue;
  return [
    el("h2", { text: open.id }),
    el("p", {}, el("span", { class: `state ${explanation.state}`, text: words(explanation.state) }), explanation.wait_reason ? el("em", { class: `reason ${explanation.wait_reason}`, text: words(explanation.wait_reason) }) : ""),
    facts([["Task", now_ && task(now_.task_class)], ["Queue", queue && el("span", {}, el("i", { class: `swatch ${queueClass(queue)}` }), queue)], ["Asked", now_?.asked], ["Priority", now_?.priority || ""], ["Session", now_?.session], ["Place in line", explanation.position ? `${explanation.position}, ${explanation.queue_position} in its queue` : ""]]),
    part("Story", el("ol", { class: "story" }, ...steps(story, now_))),
    explanation.needs ? part("What would let it start", ...explanation.needs.split("; ").map((text) => el("p", { text }))) : null,
    counts("Devices that cannot take it now", explanation.busy),
    counts("Devices that never fit", explanation.removed),
    explanation.scores.length ? part("Why this place", scores(explanation.scores)) : null,
    limit(explanation.limit),
  ];
}

const over = (explanation) => ["done", "cancelled", "failed"].includes(explanation.state);

async function read(asked) {
  asked.asked = performance.now();
  try {
    asked.story = await ask(`/api/request/${encodeURIComponent(asked.id)}`);
  } catch (error) {
    if (!asked.story) asked.error = error.message;
  }
  if (open === asked) draw();
}

/** What happened to it, in order: [when, what, how it looks]. */
function steps(story, request) {
  const { explanation, holdings } = story;
  const found = [];
  if (request) found.push([request.submitted, "submitted", "", ""]);
  for (const one of holdings) {
    found.push([one.start, `started on ${places(one.devices)}`, `attempt ${one.lease[1]}, ${percent(one.share, 1)} of each`, ""]);
    const good = ["released", "session_closed"].includes(one.ended);
    found.push([one.end, good ? `done there after ${seconds(one.end - one.start)}` : `ended there: ${words(one.ended)}`, "", good ? "good" : "bad"]);
  }
  for (const one of explanation.preemptions) {
    const lost = `${words(one.reason)}; at most ${amount(one.lost)} device-seconds lost`;
    if (one.victim[0] === open.id) found.push([one.at, `gave way${one.winner ? ` to ${one.winner} of ${one.winner_queue}` : ", to go on elsewhere"}`, lost, "bad"]);
    else found.push([one.at, `took the room of ${one.victim[0]} of ${one.victim_queue}`, lost, ""]);
  }
  const slice = [...store.slices.values()].find((one) => one.request === open.id);
  if (slice && explanation.lease) found.push([slice.since, `runs on ${places(slice.devices)}`, `attempt ${explanation.lease[1]}, ${percent(slice.share, 1)}; for ${seconds(now() - slice.since)}`, "now"]);
  found.sort(([a], [b]) => a - b);
  const start = explanation.estimated_start;
  if (explanation.wait_reason) found.push([null, `waits: ${words(explanation.wait_reason)}`, request ? `for ${seconds(now() - request.submitted)}` : "", "now"]);
  if (start) found.push([null, start.seconds === null ? "start cannot be estimated" : `starts ${startText({ at: story.now + start.seconds })}`, start.seconds === null ? start.why : `${places(start.devices)}${places(start.devices) ? "; " : ""}by ${start.basis === "room" ? "the room there is" : `run times: ${start.basis}`}`, "later"]);
  if (over(explanation)) found.push([null, explanation.state, explanation.message, explanation.state === "done" ? "good" : "bad"]);
  return found.map(([at, what, more, kind]) => el("li", { class: kind }, el("time", { text: at === null ? "" : clock(at) }), el("span", {}, el("b", { text: what }), more ? el("small", { class: "muted", text: more }) : "")));
}

const places = (devices) => devices.map((id) => short(id, store.nodes)).join(", ");

function counts(title, rows) {
  if (!rows.length) return null;
  const most = Math.max(...rows.map(([, number]) => number));
  return part(title, el("div", { class: "bars" }, ...rows.flatMap(([reason, number]) => [el("span", { text: words(reason) }), el("span", { class: "track" }, el("i", { width: `${(100 * number) / most}%` })), el("span", { class: "figure", text: number.toLocaleString("en") })])));
}

function scores(rows) {
  return el("div", { class: "bars", id: "scores" }, ...rows.flatMap(([name, value]) => [el("span", { text: words(name) }), el("span", { class: "track" }, el("i", { width: `${Math.max(0, Math.min(1, value)) * 100}%` })), el("span", { class: "figure", text: value.toFixed(3) })]));
}

function limit(one) {
  if (!one) return null;
  return part(`Limit of ${one.queue}`, el("p", { text: `${amount(one.used)} of ${amount(one.limit)} ${one.measure} used, ${amount(one.asked)} more asked` }), ...one.holders.map((holder) => el("p", { class: "muted", text: `${amount(holder.devices)} devices: ${task(holder.task_class)} of ${holder.queue}, ${plural(holder.requests, "request")}` })));
}

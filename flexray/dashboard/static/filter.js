// What the filter means: words that all have to be in a thing's text, and `queue:` and the like for one field of it.

import { holder, queueOf, store } from "./store.js";
import { node } from "./format.js";

let words = [];
export let text = "";

export function setFilter(asked) {
  text = asked.trim();
  words = text.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const found = word.match(/^(queue|type|node|state|task|why):(.+)$/);
    return found ? [found[1], found[2]] : ["", word];
  });
}

function fits(fields) {
  return words.every(([field, word]) =>
    field ? (fields[field] ?? "").toLowerCase().includes(word) : Object.values(fields).some((one) => one.toLowerCase().includes(word)),
  );
}

export function fitsDevice(device) {
  if (!words.length) return true;
  const held = device.slices.map((id) => store.slices.get(id)).filter(Boolean);
  return fits({
    id: device.id,
    node: `${device.node} ${node(device.node, store.nodes)} ${store.nodes.get(device.node)?.name ?? ""}`,
    type: device.type,
    state: device.state,
    why: device.reason,
    queue: held.map(queueOf).join(" "),
    task: held.map((one) => one.task_class.split("/")[0]).join(" "),
    requests: held.map((one) => `${one.request} ${holder(one)?.session ?? ""}`).join(" "),
  });
}

export function fitsRequest(request, devices, type) {
  if (!words.length) return true;
  return fits({
    id: request.id,
    node: devices.join(" "),
    type,
    state: request.state,
    why: request.wait_reason,
    queue: request.queue,
    task: request.task_class.split("/")[0],
    session: `${request.session} ${request.asked}`,
  });
}

export function fitsQueue(name) {
  const asked = words.filter(([field]) => field === "queue");
  return asked.length > 0 && asked.some(([, word]) => name.toLowerCase() === word);
}

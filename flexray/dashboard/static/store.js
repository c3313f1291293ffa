// What the page knows of the pool. One stream of events fills it; views read it when they draw.

const MOST_SAMPLES = 7200;
const MOST_ENDED = 20000;

export const store = {
  version: 0,
  shape: 0, // counts up when devices or nodes have come or gone
  now: 0,
  received: 0,
  changes: false, // whether this dashboard may cordon
  connected: false,
  columns: {},
  nodes: new Map(),
  devices: new Map(),
  slices: new Map(),
  queues: new Map(),
  waiting: new Map(),
  running: new Map(),
  notes: [],
  preemptions: [],
  classes: [],
  ray_demand: [],
  starts: {},
  trouble: "",
  samples: [],
  ended: [],
};
const listeners = new Set();
let scheduled = false;
let stream = null;

export const onChange = (listener) => listeners.add(listener);

/** The pool's clock, which goes on between two looks. */
export const now = () => store.now + (performance.now() - store.received) / 1000;

/** The request that holds a slice, or has it being started. */
export const holder = (slice) => store.running.get(slice.request) ?? store.waiting.get(slice.request);
export const queueOf = (slice) => (slice.request ? (holder(slice)?.queue ?? "") : "");

export function connect() {
  stream?.close();
  stream = new EventSource("/api/events");
  stream.addEventListener("hello", (event) => {
    store.changes = JSON.parse(event.data).changes;
  });
  stream.addEventListener("state", (event) => take(JSON.parse(event.data), fill));
  stream.addEventListener("change", (event) => take(JSON.parse(event.data), change));
  stream.onerror = () => {
    store.connected = false;
    draw();
  };
}

// Who does not look costs the pool nothing: its scheduler is asked only while somebody watches.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stream?.close();
    stream = null;
  } else if (stream === null) connect();
});

function take(message, how) {
  how(message);
  for (const name of ["now", "epoch", "notes", "preemptions", "classes", "ray_demand", "starts", "trouble"])
    if (name in message) store[name] = message[name];
  if ("now" in message) store.received = performance.now();
  store.version = message.version;
  store.connected = true;
  draw();
}

function fill(message) {
  store.shape++;
  Object.assign(store.columns, message.columns);
  for (const [table, rows] of Object.entries(message.rows)) {
    store[table] = new Map(rows.map((row) => [row[0], record(table, row)]));
  }
}

function change(message) {
  for (const [table, part] of Object.entries(message.tables ?? {})) {
    const rows = store[table];
    if ((table === "devices" || table === "nodes") && (part.new || part.gone)) store.shape++;
    for (const key of part.gone ?? []) rows.delete(key);
    for (const row of part.new ?? []) rows.set(row[0], record(table, row));
    for (const [key, ...cells] of part.set ?? []) {
      const row = rows.get(key);
      for (let i = 0; i < cells.length; i += 2) row[store.columns[table][cells[i]]] = cells[i + 1];
    }
  }
  if (message.sample) keep(store.samples, [message.sample], MOST_SAMPLES);
  if (message.ended) keep(store.ended, message.ended, MOST_ENDED);
}

function record(table, row) {
  const made = {};
  const columns = store.columns[table];
  for (let i = 0; i < columns.length; i++) made[columns[i]] = row[i];
  return made;
}

function keep(list, more, most) {
  list.push(...more);
  if (list.length > most) list.splice(0, list.length - most);
}

/** Leases that are over, and the curves, from before this page was opened. */
export async function loadPast(since) {
  const past = await ask(`/api/history?since=${since}`);
  const seen = new Set(store.ended.map((one) => `${one.lease}${one.slice}`));
  store.ended = [...past.holdings.filter((one) => !seen.has(`${one.lease}${one.slice}`)), ...store.ended];
  const first = store.samples[0]?.at ?? Infinity;
  store.samples = [...past.samples.filter((one) => one.at < first), ...store.samples];
  draw();
}

/** An answer of the API; raises its message. */
export async function ask(path, body) {
  const sent = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, sent || {});
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

/** Draw soon, once for all that happened. */
export function draw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    for (const listener of listeners) listener();
  });
}

// Amounts and times for people.

export function seconds(value) {
  const s = Math.max(0, value);
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${(s / 3600).toFixed(1)} h`;
  return `${Math.round(s / 86400)} d`;
}

export function memory(mib) {
  return mib < 1024 ? `${mib} MiB` : `${(mib / 1024).toFixed(mib < 102400 ? 1 : 0)} GiB`;
}

/** A share or an amount: at most two digits after the point, and none that say nothing. */
export function amount(value) {
  return value >= 1000 ? Math.round(value).toLocaleString("en") : String(Math.round(value * 100) / 100);
}

export const count = (value) => value.toLocaleString("en");
export const percent = (part, whole) => (whole ? `${Math.round((100 * part) / whole)}%` : "-");

/** `394abc/gpu0`, as `flexray status` shows it; or the node's name instead, where it is short. */
export function device(id, nodes) {
  const at = id.lastIndexOf("/");
  return `${node(id.slice(0, at), nodes)}/${id.slice(at + 1)}`;
}

export function node(id, nodes) {
  const name = nodes?.get(id)?.name ?? "";
  return name && name.length <= 14 && !unclear(nodes).has(name) ? name : id.slice(0, 6);
}

const known = new WeakMap();
/** Names that several nodes have: they say nothing. */
function unclear(nodes) {
  const found = known.get(nodes);
  if (found && found.size === nodes.size) return found.names;
  const all = [...nodes.values()].map((one) => one.name);
  const names = new Set(all.length > new Set(all).size ? all.filter((name, i) => all.indexOf(name) !== i) : []);
  known.set(nodes, { size: nodes.size, names });
  return names;
}

export const task = (name) => name.split("/")[0];
export const type = (name) => name.slice(name.indexOf("/") + 1);
export const words = (reason) => reason.replaceAll("_", " ");
export const plural = (number, one) => `${count(number)} ${one}${number === 1 ? "" : "s"}`;

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

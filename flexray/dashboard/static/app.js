// The page: views, filter, keyboard, theme.

import * as detail from "./detail.js";
import * as devices from "./devices.js";
import { byId, say } from "./dom.js";
import * as figures from "./figures.js";
import { setFilter, text as filterText } from "./filter.js";
import * as happenings from "./happenings.js";
import * as queues from "./queues.js";
import * as requests from "./requests.js";
import { connect, draw, onChange, store } from "./store.js";
import * as timeline from "./timeline.js";

const VIEWS = ["devices", "requests", "queues", "timeline", "events"];
const LISTS = { devices, requests, timeline };
let view = "devices";

function start() {
  devices.start(detail.show);
  requests.start(detail.show);
  timeline.start(detail.show);
  happenings.start(detail.show);
  queues.start(toggleFilter);
  figures.start();
  for (const tab of byId("tabs").children) tab.addEventListener("click", () => choose(tab.dataset.view));
  byId("search").addEventListener("input", () => filter(byId("search").value, false));
  byId("theme").addEventListener("click", changeTheme);
  byId("keys").addEventListener("click", () => byId("help").showModal());
  document.addEventListener("keydown", pressed);
  window.addEventListener("hashchange", () => choose(asked()));
  window.addEventListener("resize", figures.resize);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  onChange(drawAll);
  choose(asked());
  connect();
  setInterval(draw, 1000); // times go on also while nothing changes
}

const asked = () => (VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "devices");

function drawAll() {
  if (store.version || store.trouble) {
    for (const part of [figures, queues, devices, requests, timeline, happenings, detail]) part.draw();
    if (!document.body.dataset.drawn) {
      document.body.dataset.drawn = "yes";
      performance.mark("flexray-drawn");
    }
  }
  const live = byId("live");
  const state = !store.connected ? "lost" : store.trouble ? "trouble" : "live";
  if (store.version || state === "trouble") {
    live.dataset.state = state;
    live.textContent = { lost: "connecting again", trouble: "pool away", live: "live" }[state];
  }
  const trouble = byId("trouble");
  trouble.hidden = !store.trouble;
  if (trouble.textContent !== store.trouble) trouble.textContent = store.trouble;
}

function choose(name) {
  view = name;
  for (const one of VIEWS) {
    const tab = byId(`tab-${one}`);
    tab.setAttribute("aria-selected", String(one === name));
    tab.tabIndex = one === name ? 0 : -1;
    byId(`panel-${one}`).hidden = one !== name;
  }
  if (location.hash.slice(1) !== name) history.replaceState(null, "", name === "devices" ? "/" : `#${name}`);
  if (name === "timeline" && store.version) timeline.shown();
  draw();
}

function filter(text, write = true) {
  setFilter(text);
  if (write) byId("search").value = text;
  draw();
}

function toggleFilter(word) {
  filter(filterText === word ? "" : word);
  if (view === "queues") choose("devices");
}

// -- theme -----------------------------------------------------------------------------------------

function changeTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("flexray-theme", root.dataset.theme);
  say(`${root.dataset.theme} colours`);
  recolour();
}

function recolour() {
  figures.recolour();
  draw();
}

// -- keyboard --------------------------------------------------------------------------------------

const KEYS = {
  "/": () => byId("search").focus(),
  j: () => LISTS[view]?.move(1),
  k: () => LISTS[view]?.move(-1),
  "?": () => byId("help").showModal(),
  t: changeTheme,
  ...Object.fromEntries(VIEWS.map((name, place) => [String(place + 1), () => choose(name)])),
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const focus = document.activeElement;
  if (event.key === "Escape") return escape(event);
  if (focus?.getAttribute("role") === "tab" && ["ArrowLeft", "ArrowRight"].includes(event.key)) return nextTab(event);
  if (focus === byId("search")) {
    if (event.key === "Enter") byId(view)?.focus();
    return;
  }
  if (focus?.getAttribute("role") === "listbox" && ["ArrowDown", "ArrowUp"].includes(event.key)) {
    event.preventDefault();
    return LISTS[view]?.move(event.key === "ArrowDown" ? 1 : -1);
  }
  if (event.key === "Enter" && !["BUTTON", "INPUT", "A"].includes(focus?.tagName)) return LISTS[view]?.enter();
  if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
}

function escape(event) {
  if (detail.close()) return event.preventDefault();
  if (filterText || document.activeElement === byId("search")) {
    filter("");
    byId("search").blur();
  }
}

function nextTab(event) {
  const step = event.key === "ArrowRight" ? 1 : VIEWS.length - 1;
  choose(VIEWS[(VIEWS.indexOf(view) + step) % VIEWS.length]);
  byId(`tab-${view}`).focus();
}

start();

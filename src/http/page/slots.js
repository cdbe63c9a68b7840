// The slots: phase, file, progress, and the last beats as a strip. The kinds of beat differ in
// shape as well as in colour: a bar is acked, a ring is vouched, a cross is missed, a dashed line
// is where the worker was replaced.

import { attribute, byId, drawing, element, keyed, say, show } from "./dom.js";
import { count, phase, several, size } from "./words.js";

// Beats that the service keeps of a slot; each has a step of the strip.
const BEATS = 30;
const STEP = 8;
const HIGH = 20;

const KINDS = {
  a: { name: "acked", draw: (x) => `M${x} 5v10` },
  v: { name: "vouched", draw: (x) => `M${x - 2.3} 10a2.3 2.3 0 1 1 4.6 0a2.3 2.3 0 1 1-4.6 0` },
  m: { name: "missed", draw: (x) => `M${x - 2.4} 6.5l4.8 7m0-7l-4.8 7` },
  x: { name: "replaced", draw: (x) => `M${x} 0v3m0 2.67v3m0 2.67v3m0 2.66v3` },
};

function strip() {
  const paths = {};
  for (const [letter, { name }] of Object.entries(KINDS)) {
    paths[letter] = drawing("path", { class: `beat ${name}` });
  }
  const width = BEATS * STEP;
  const line = drawing("path", { class: "beat base", d: `M0 ${HIGH - 1}H${width}` });
  const node = drawing("svg", { class: "strip", role: "img", viewBox: `0 0 ${width} ${HIGH}` },
    line, ...Object.values(paths));
  return { node, paths, letters: null };
}

function drawStrip(strip, letters) {
  if (strip.letters === letters) return;
  strip.letters = letters;
  const shown = [...letters].slice(-BEATS);
  // The newest one stands at the right end.
  const from = (BEATS - shown.length) * STEP + STEP / 2;
  const told = [];
  for (const [letter, { name, draw }] of Object.entries(KINDS)) {
    const at = shown.flatMap((l, i) => (l === letter ? [from + i * STEP] : []));
    attribute(strip.paths[letter], "d", at.map(draw).join("") || null);
    if (at.length > 0) told.push(letter === "x" ? several(at.length, "replacement") : `${at.length} ${name}`);
  }
  const newest = KINDS[shown.at(-1)]?.name;
  const label = newest ? `Last beats: ${told.join(", ")}; newest ${newest}` : "No beat yet";
  attribute(strip.node, "aria-label", label);
}

/** What the shapes mean, once. */
export function drawLegend() {
  const words = { a: "acked", v: "vouched", m: "missed", x: "worker replaced" };
  const parts = Object.entries(words).map(([letter, text]) => {
    const { name, draw } = KINDS[letter];
    const path = drawing("path", { class: `beat ${name}`, d: draw(6) });
    const mark = drawing("svg", { class: "key", viewBox: `0 0 12 ${HIGH}`, "aria-hidden": "true" }, path);
    return element("span", { class: "item" }, mark, text);
  });
  byId("legend").replaceChildren(...parts, element("span", { class: "item" }, "newest right"));
}

function make() {
  const name = element("span", { class: "name" });
  const under = element("span", { class: "under" });
  const step = element("td", { role: "cell", "data-label": "Phase" });
  const file = element("span", { class: "file" });
  const bar = element("progress", { max: "1" });
  const sent = element("span", { class: "under" });
  const work = element("div", { class: "work" }, bar, sent);
  const cell = element("td", { role: "cell", class: "files", "data-label": "File" }, file, work);
  const beats = strip();
  const missed = element("td", { role: "cell", class: "number", "data-label": "Missed" });
  const head = element("th", { role: "rowheader", scope: "row" }, name, under);
  const strips = element("td", { role: "cell", class: "beats", "data-label": "Last beats" }, beats.node);
  const node = element("tr", { role: "row" }, head, step, cell, strips, missed);
  return { node, name, under, step, file, bar, sent, work, beats, missed };
}

function update(parts, { route, slot }) {
  const idle = !slot.file && slot.phase === "idle";
  attribute(parts.node, "class", slot.failures > 0 ? "silent" : idle ? "idle" : null);
  say(parts.name, `${route} ${slot.slot}`);
  say(parts.under, `epoch ${count(slot.epoch)}`);
  say(parts.step, slot.phase === "none" ? "starting" : phase(slot.phase));
  say(parts.file, slot.file ?? "–");
  attribute(parts.file, "class", slot.file ? "file" : "file nothing");
  attribute(parts.file, "title", slot.file);
  show(parts.work, Boolean(slot.file));
  if (slot.file) drawWork(parts, slot);
  drawStrip(parts.beats, slot.beats ?? "");
  say(parts.missed, count(slot.failures));
  attribute(parts.missed, "class", slot.failures > 0 ? "number" : "number zero");
  attribute(parts.missed, "data-tone", slot.failures > 0 ? "bad" : "quiet");
}

function drawWork({ bar, sent }, slot) {
  const known = slot.file_bytes > 0;
  const share = known ? Math.min(1, slot.bytes_sent / slot.file_bytes) : 0;
  show(bar, known);
  const value = share.toFixed(3);
  if (bar.getAttribute("value") !== value) bar.value = value;
  attribute(bar, "aria-label", `Moved of ${slot.file}`);
  const moved = size(slot.bytes_sent);
  const of = known ? ` of ${size(slot.file_bytes)}, ${Math.floor(share * 100)} %` : "";
  say(sent, moved + of);
}

/** Brings the table up to date. */
export function drawSlots(routes) {
  const slots = routes.flatMap((r) => r.slots.map((slot) => ({ route: r.name, slot })));
  const working = slots.filter(({ slot }) => slot.file).length;
  say(byId("slots-count"), slots.length === 0 ? "" : `${working} of ${slots.length} in work`);
  show(byId("slots-none"), slots.length === 0);
  show(byId("slots"), slots.length > 0);
  keyed(byId("slot-rows"), slots, ({ route, slot }) => `${route} ${slot.slot}`, make, update);
  return working;
}

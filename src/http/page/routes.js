// The routes with their backlog, and how fast they move. Rates come from the answers of the last
// seconds: the service counts, this page divides.

import { attribute, byId, element, keyed, say, show } from "./dom.js";
import { count, size } from "./words.js";

// Long enough to be calm, short enough to be true.
const WINDOW_MS = 10_000;

const COLUMNS = [
  ["Settling", (route) => route.settling],
  ["Waiting", (route) => route.waiting],
  ["Backing off", (route) => route.backing_off],
  ["Dead letters", (route) => route.dead_letters],
  ["Delivered", (route) => route.delivered],
];

const TROUBLES = [
  ["suspended", "bad", "Suspended"],
  ["spool_problem", "bad", "Spool"],
  ["destination_problem", "bad", "Destination"],
  ["last_failure", "watch", "Failed last"],
];

/** Rates by route, from one answer to the next. */
export class Rates {
  #routes = new Map();

  /** Forgets all: the service counts from zero again. */
  clear() {
    this.#routes.clear();
  }

  /** Takes an answer that came at `now` (ms). */
  take(routes, now) {
    const before = this.#routes;
    this.#routes = new Map(routes.map((r) => [r.name, next(before.get(r.name), r, now)]));
  }

  /** Files and bytes a second, or null until there are two answers. */
  of(name) {
    const samples = this.#routes.get(name)?.samples ?? [];
    const [first, last] = [samples[0], samples.at(-1)];
    const seconds = last ? (last.at - first.at) / 1000 : 0;
    if (seconds < 0.5) return null;
    return {
      files: (last.files - first.files) / seconds,
      bytes: (last.bytes - first.bytes) / seconds,
    };
  }
}

/** Bytes of files in work count as they go; an attempt that fails takes none back. */
function next(before, route, now) {
  const inWork = route.slots.reduce((sum, slot) => sum + (slot.file ? slot.bytes_sent : 0), 0);
  const [files, bytes] = [route.delivered, route.delivered_bytes + inWork];
  if (!before) return { files, bytes, samples: [{ at: now, files: 0, bytes: 0 }] };
  const last = before.samples.at(-1);
  const sample = {
    at: now,
    files: last.files + Math.max(0, files - before.files),
    bytes: last.bytes + Math.max(0, bytes - before.bytes),
  };
  const samples = [...before.samples, sample];
  while (samples.length > 2 && samples[1].at <= now - WINDOW_MS) samples.shift();
  return { files, bytes, samples };
}

/** Files a second in words. */
export const filesRate = (rate) => (rate === null ? "–" : fixed(rate.files));
/** Bytes a second in words. */
export const bytesRate = (rate) => (rate === null ? "–" : `${size(rate.bytes)}/s`);

const fixed = (value) => (value === 0 ? "0" : value < 99.95 ? value.toFixed(1) : count(Math.round(value)));

function make() {
  const name = element("span", { class: "name" });
  const direction = element("span", { class: "direction" });
  const destination = element("span", { class: "under" });
  const head = element("th", { role: "rowheader", scope: "row" },
    element("span", { class: "line" }, name, direction), destination);
  const cell = (label) => element("td", { role: "cell", class: "number", "data-label": label });
  const cells = COLUMNS.map(([label]) => cell(label));
  const [files, bytes] = [cell("Files/s"), cell("Speed")];
  const row = element("tr", { role: "row" }, head, ...cells, files, bytes);
  const list = element("ul", { class: "troubles" });
  const told = element("td", { role: "cell", colspan: String(COLUMNS.length + 3) }, list);
  const second = element("tr", { role: "row", class: "told" }, told);
  const node = element("tbody", { role: "rowgroup" }, row, second);
  return { node, name, direction, destination, cells, files, bytes, second, list };
}

function trouble() {
  const [what, why] = [element("b"), element("span")];
  return { node: element("li", {}, what, " ", why), what, why };
}

function update(parts, route, rates) {
  say(parts.name, route.name);
  say(parts.direction, route.direction === "get" ? "↓ download" : "↑ upload");
  say(parts.destination, route.destination);
  COLUMNS.forEach(([label, of], at) => {
    const value = of(route) ?? 0;
    say(parts.cells[at], count(value));
    const tone = value === 0 ? "quiet" : label === "Dead letters" ? "watch" : null;
    attribute(parts.cells[at], "data-tone", tone);
  });
  const rate = rates.of(route.name);
  for (const [cell, text, value] of [
    [parts.files, filesRate(rate), rate?.files],
    [parts.bytes, bytesRate(rate), rate?.bytes],
  ]) {
    say(cell, text);
    attribute(cell, "data-tone", value ? null : "quiet");
  }
  const troubles = TROUBLES.filter(([key]) => route[key]);
  show(parts.second, troubles.length > 0);
  attribute(parts.node, "class", troubles.length > 0 ? "troubled" : null);
  keyed(parts.list, troubles, ([key]) => key, trouble, (line, [key, tone, what]) => {
    attribute(line.node, "data-tone", tone);
    say(line.what, `${what}:`);
    say(line.why, route[key]);
  });
}

/** Brings the table up to date. */
export function drawRoutes(routes, rates) {
  show(byId("routes-none"), routes.length === 0);
  show(byId("routes"), routes.length > 0);
  keyed(byId("routes"), routes, (r) => r.name, make, (parts, r) => update(parts, r, rates));
}

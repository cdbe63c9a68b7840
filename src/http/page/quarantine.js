// The quarantine as a ring of places, and the same as a list for whoever does not see it. Filled
// places are thick, free ones thin. So many places that they would melt into each other are drawn
// as one arc.

import { attribute, byId, drawing, element, keyed, say, show } from "./dom.js";
import { count, several, size, whole } from "./words.js";

const CENTRE = 100;
const RADIUS = 78;
// Beyond that a place is too small to be seen or pointed at.
const APART = 96;
// Lines of the list.
const LISTED = 24;

const ring = { shape: null, places: [], title: null, figure: null, words: null };

/** An arc from one share of the circle to another, clockwise from the top. */
function arc(from, to) {
  const point = (share) => {
    const angle = 2 * Math.PI * share - Math.PI / 2;
    return `${(CENTRE + RADIUS * Math.cos(angle)).toFixed(2)} ${(CENTRE + RADIUS * Math.sin(angle)).toFixed(2)}`;
  };
  const large = to - from > 0.5 ? 1 : 0;
  return `M${point(from)}A${RADIUS} ${RADIUS} 0 ${large} 1 ${point(to)}`;
}

function place(d) {
  const title = drawing("title");
  return { node: drawing("path", { class: "place", d }, title), title };
}

/** Draws the places anew where their number is another one. */
function shape(capacity) {
  const apart = capacity <= APART;
  const number = apart ? capacity : 2;
  if (ring.shape === capacity) return apart;
  ring.shape = capacity;
  ring.places = Array.from({ length: number }, (_, index) => {
    if (!apart) return place(index === 0 ? arc(0, 0.9999) : "");
    const gap = capacity === 1 ? 0.0001 : Math.min(0.012, 0.2 / capacity);
    return place(arc(index / capacity + gap / 2, (index + 1) / capacity - gap / 2));
  });
  ring.figure = drawing("text", { class: "figure", x: CENTRE, y: CENTRE + 4 });
  ring.words = drawing("text", { class: "words", x: CENTRE, y: CENTRE + 26 });
  byId("ring").replaceChildren(...ring.places.map((p) => p.node), ring.figure, ring.words);
  return apart;
}

function tell(pair, now) {
  return `Incident ${pair.incident}, route ${pair.route}, held for ${whole(now - pair.entered)}`;
}

function fill({ node, title }, text) {
  attribute(node, "data-filled", text !== null);
  say(title, text ?? "free");
}

function drawRing({ capacity, pairs }, now) {
  const apart = shape(capacity);
  if (apart) {
    ring.places.forEach((at, index) => fill(at, pairs[index] ? tell(pairs[index], now) : null));
  } else {
    const share = Math.min(0.9999, pairs.length / capacity);
    attribute(ring.places[1].node, "d", share > 0 ? arc(0, Math.max(share, 0.008)) : null);
    fill(ring.places[0], null);
    fill(ring.places[1], `${several(pairs.length, "pair")} held`);
  }
  say(ring.figure, count(pairs.length));
  say(ring.words, `of ${several(capacity, "place")}`);
  attribute(byId("ring"), "aria-label", `${count(pairs.length)} of ${several(capacity, "place")} filled`);
}

function line() {
  const [head, under] = [element("span", { class: "name" }), element("span", { class: "under" })];
  return { node: element("li", {}, head, under), head, under };
}

/** Brings ring and list up to date; `now` is the service's time. */
export function drawQuarantine(quarantine, now) {
  drawRing(quarantine, now);
  const { pairs } = quarantine;
  show(byId("quarantine-none"), pairs.length === 0);
  show(byId("pairs"), pairs.length > 0);
  keyed(byId("pairs"), pairs.slice(0, LISTED), (p) => p.incident, line, (parts, pair) => {
    say(parts.head, `Incident ${pair.incident}`);
    const unsent = pair.send_bytes > 0 ? `, ${size(pair.send_bytes)} unsent` : "";
    say(parts.under, `${pair.route}, for ${whole(now - pair.entered)}${unsent}`);
  });
  const more = pairs.length - LISTED;
  show(byId("pairs-more"), more > 0);
  say(byId("pairs-more"), more > 0 ? `and ${several(more, "younger pair")}` : "");
}

// The incidents, newest first, each with its story in details that stay open. A story is drawn
// anew only when the incident is another one than before; its age each second.

import { attribute, byId, element, keyed, say, show } from "./dom.js";
import { ago, cause, clock, phase, release, size, span, stamp, count, several } from "./words.js";

// Shown at first, and more with each press.
const PAGE = 50;

let shown = PAGE;
let all = [];

const time = (unix, text) => element("time", { datetime: stamp(unix) }, text);

/** A label with what belongs to it; children are elements or text. */
const fact = (label, ...children) =>
  element("div", {}, element("dt", {}, label), element("dd", {}, ...children));

function exactly(unix, more) {
  return [time(unix, `${clock(unix)} here, ${stamp(unix)}`), more ? `, ${more}` : ""];
}

function socket(label, of) {
  if (!of) return fact(label, "none");
  const ends = `${of.local ?? "unknown"} to ${of.peer ?? "unknown"}, ${of.state}`;
  const queues = `${size(of.unsent)} unsent, ${size(of.unacked)} unacknowledged, ` +
    `${several(of.retransmits, "retransmission")} and ${several(of.probes, "probe")} unanswered`;
  const last = `round trip ${(of.rtt * 1e3).toFixed(1)} ms, last data received ` +
    `${span(of.last_data_received_ago)} before the verdict`;
  return fact(label, ends, element("br"), queues, element("br"), last);
}

function thread(of) {
  if (!of) return fact("Thread", "not known");
  const call = of.syscall === null ? "in no system call" : `in system call ${of.syscall}`;
  const waits = ["", "0"].includes(of.wait_channel) ? "" : `, waits in ${of.wait_channel}`;
  return fact("Thread", `state ${of.state}, ${call}${waits}, CPU time ${span(of.cpu_seconds)}`);
}

function quarantine(of) {
  if (!of) return [fact("Quarantine", "nothing to hold: no connection was open")];
  const entered = exactly(of.entered);
  const left = of.released === null
    ? ["; still held"]
    : ["; released ", ...exactly(of.released, `after ${span(of.released - of.entered)}: ${release(of.reason)}`)];
  const stay = fact("Quarantine", "entered ", ...entered, ...left);
  return of.peer ? [stay, fact("Peer meanwhile", of.peer)] : [stay];
}

function story(incident) {
  const { last_sign_of_life: last, detected_at: found, recovered_at: back } = incident;
  const recovered = back === null
    ? ["not yet: the file is not delivered"]
    : exactly(back, `${span(back - found)} after that`);
  return [
    fact("File", incident.file ?? "none in work"),
    fact("Where", `route ${incident.route}, slot ${incident.slot}, epoch ${incident.epoch}`),
    fact("Phase", phase(incident.phase)),
    fact("Cause", element("code", {}, incident.cause), ` ${cause(incident.cause)}`),
    fact("Last sign of life", ...exactly(last)),
    fact("Found", ...exactly(found, `after ${span(found - last)} of silence`)),
    fact("Recovered", ...recovered),
    fact("Bytes", `${size(incident.bytes_sent)} given to the kernel, ` +
      `${size(incident.bytes_acked)} acknowledged by the peer`),
    socket("Control connection", incident.control),
    socket("Data connection", incident.data),
    thread(incident.thread),
    ...quarantine(incident.quarantine),
  ];
}

function make() {
  const parts = {
    number: element("span", { class: "id" }),
    why: element("span", { class: "why" }),
    where: element("span", { class: "under" }),
    age: element("span", { class: "age" }),
    end: element("span", { class: "end" }),
    story: element("dl", { class: "story" }),
    seen: null,
  };
  const left = element("span", { class: "what" }, parts.why, parts.where);
  const right = element("span", { class: "when" }, parts.age, parts.end);
  const summary = element("summary", {}, parts.number, left, right);
  parts.node = element("li", {}, element("details", {}, summary, parts.story));
  return parts;
}

function update(parts, incident) {
  const text = JSON.stringify(incident);
  if (parts.seen === text) return;
  parts.seen = text;
  parts.found = incident.detected_at;
  say(parts.number, `#${incident.id}`);
  say(parts.why, cause(incident.cause));
  say(parts.where, `${incident.route} ${incident.slot}, ${phase(incident.phase)}` +
    (incident.file ? `, ${incident.file}` : ""));
  const back = incident.recovered_at;
  attribute(parts.end, "data-tone", back === null ? "bad" : "ok");
  say(parts.end, back === null ? "▲ not yet recovered"
    : `✓ recovered after ${span(back - incident.detected_at)}`);
  parts.story.replaceChildren(...story(incident));
}

function draw() {
  keyed(byId("incidents"), all.slice(0, shown), (i) => i.id, make, update);
  const rest = all.length - shown;
  show(byId("older"), rest > 0);
  if (rest > 0) say(byId("older"), `Show older ones (${count(rest)} more)`);
}

/** Makes the button work. */
export function beginIncidents() {
  byId("older").addEventListener("click", () => {
    const first = shown;
    shown += PAGE;
    draw();
    // The button may be gone: whoever used the keyboard goes on at the first of the new ones.
    byId("incidents").children[first]?.querySelector("summary")?.focus();
  });
}

/** Takes a new list, newest first; gives back the incidents that were not known before. */
export function takeIncidents(incidents) {
  const known = all.length > 0 ? all[0].id : 0;
  all = incidents;
  const open = all.filter((i) => i.recovered_at === null).length;
  const told = open > 0 ? `${count(all.length)}, ${count(open)} not yet recovered` : count(all.length);
  say(byId("incidents-count"), all.length === 0 ? "" : told);
  show(byId("incidents-none"), all.length === 0);
  draw();
  return all.filter((i) => i.id > known);
}

/** Brings the ages up to date; `now` is the service's time. */
export function ageIncidents(now) {
  all.slice(0, shown).forEach((incident, index) => {
    const node = byId("incidents").children[index]?.querySelector(".age");
    if (node) say(node, ago(now - incident.detected_at));
  });
}

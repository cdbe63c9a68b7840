// The status page: asks the service each second and draws what it says; the parts draw themselves.
// It only reads. A service that does not answer is said with the time of the last data, which stays
// on the page, and asked again; nothing is guessed.

import { ask, hasToken, setToken } from "./ask.js";
import { attribute, byId, element, keyed, say, show } from "./dom.js";
import { ageIncidents, beginIncidents, takeIncidents } from "./incidents.js";
import { drawQuarantine } from "./quarantine.js";
import { Rates, bytesRate, drawRoutes, filesRate } from "./routes.js";
import { drawLegend, drawSlots } from "./slots.js";
import { cause, clock, count, several, stamp, whole } from "./words.js";

const PERIOD_MS = 1000;
// The list of incidents can be long: however often it changes, it is asked for at most so often.
const INCIDENTS_MS = 2000;

const rates = new Rates();
/** The last answer, when it came (ms), and why there is none now. */
const state = { status: null, came: 0, lost: null, door: false, said: "", version: null };
/** Which incidents are on the page, and when they were asked for. */
const seen = { version: null, asked: -Infinity, first: true };

const MARKS = { ok: "●", watch: "◐", bad: "▲", quiet: "○" };

/** Tells who listens instead of looking; the same words are told once. */
function announce(words) {
  if (state.said === words) return;
  state.said = words;
  say(byId("said"), words);
}

function condition() {
  if (state.door) return ["quiet", "Token needed"];
  if (state.lost) return ["bad", state.status && !state.lost.reached ? "Connection lost" : "No answer"];
  if (!state.status) return ["quiet", "Asking"];
  if (state.status.draining) return ["watch", "Draining"];
  if (state.status.not_ready.length > 0 || state.status.journal_problem) return ["bad", "Not ready"];
  return ["ok", "Running"];
}

function drawHead() {
  const [tone, words] = condition();
  attribute(byId("state"), "data-tone", tone);
  say(byId("state-mark"), MARKS[tone]);
  if (byId("state-words").textContent !== words) {
    say(byId("state-words"), words);
    if (words !== "Asking") announce(`${words}.`);
  }
  attribute(document.body, "class", state.lost ? "stale" : null);
  const { status } = state;
  show(byId("facts"), status !== null);
  show(byId("jump"), status !== null);
  document.title = words === "Running" ? "ftpulse" : `${words}: ftpulse`;
  if (!status) return;
  say(byId("version"), status.version);
  say(byId("uptime"), whole(status.at - status.started_at));
  say(byId("newest"), clock(status.at));
  attribute(byId("newest"), "datetime", stamp(status.at));
}

/** What needs attention beyond one route: [key, tone, title, words]. */
function notices() {
  const { status, lost, came } = state;
  const list = [];
  if (lost) {
    const since = status
      ? `The last data is of ${clock(status.at)}, ${whole((performance.now() - came) / 1000)} ago; it stands below. `
      : "";
    list.push(["lost", "bad", condition()[1], `${lost.why} ${since}It is asked again each second.`]);
  }
  if (!status) return list;
  if (status.version !== state.version) {
    const words = `The service is ${status.version} now, this page came with ${state.version}. Load it again.`;
    list.push(["version", "watch", "Updated", words]);
  }
  if (status.draining) {
    list.push(["draining", "watch", "Draining", "What is in work is finished, nothing new is begun."]);
  }
  if (status.journal_problem) {
    const words = `No new work is taken: the journal cannot be written (${status.journal_problem}).`;
    list.push(["journal", "bad", "Journal", words]);
  }
  const journal = (why) => status.journal_problem && why.startsWith("the journal");
  for (const why of status.not_ready.filter((w) => !journal(w))) {
    list.push([`ready ${why}`, "bad", "Not ready", why]);
  }
  if (status.stranded_workers > 0) {
    const words = `${several(status.stranded_workers, "worker")} could not be ended and waits outside any ` +
      "slot. Their number is bounded; at the bound the service restarts itself.";
    list.push(["stranded", "watch", "Stranded", words]);
  }
  return list;
}

function notice() {
  const [what, words] = [element("b"), element("span")];
  return { node: element("li", { class: "notice" }, what, " ", words), what, words };
}

function drawNotices() {
  const list = notices();
  show(byId("notices"), list.length > 0);
  keyed(byId("notices"), list, ([key]) => key, notice, (parts, [, tone, what, words]) => {
    attribute(parts.node, "data-tone", tone);
    say(parts.what, what);
    say(parts.words, words);
  });
}

function glance(working) {
  const { routes, quarantine } = state.status;
  const sum = (of) => routes.reduce((total, route) => total + (of(route) ?? 0), 0);
  const known = routes.map((route) => rates.of(route.name));
  const rate = known.length === 0 || known.includes(null) ? null : {
    files: known.reduce((total, r) => total + r.files, 0),
    bytes: known.reduce((total, r) => total + r.bytes, 0),
  };
  const waits = sum((r) => r.waiting);
  const dead = sum((r) => r.dead_letters);
  const back = sum((r) => r.backing_off);
  const more = [[sum((r) => r.settling), "settling"], [back, "backing off"]];
  const under = more.filter(([n]) => n > 0).map(([n, what]) => `${count(n)} ${what}`).join(", ");
  return [
    ["Waiting", count(waits), under || (waits === 0 ? "nothing waits" : "ready to go"), null],
    ["In work", count(working), `of ${several(sum((r) => r.slots.length), "slot")}`, null],
    ["Speed", bytesRate(rate), rate ? `${filesRate(rate)} files/s` : "measuring", null],
    ["Delivered", count(sum((r) => r.delivered)), "since the start", null],
    ["Dead letters", count(dead), dead === 0 ? "none" : "wait for a person", dead > 0 ? "watch" : null],
    ["Quarantine", count(quarantine.pairs.length), `of ${several(quarantine.capacity, "place")}`, null],
  ];
}

function tile() {
  const [name, value, under] = [element("dt"), element("dd", { class: "big" }), element("dd", { class: "under" })];
  return { node: element("div", {}, name, value, under), name, value, under };
}

function drawData() {
  const { status } = state;
  show(byId("data"), status !== null && !state.door);
  if (!status) return;
  drawRoutes(status.routes, rates);
  const working = drawSlots(status.routes);
  drawQuarantine(status.quarantine, status.at);
  ageIncidents(status.at);
  keyed(byId("glance"), glance(working), ([name]) => name, tile, (parts, [name, value, under, tone]) => {
    say(parts.name, name);
    say(parts.value, value);
    say(parts.under, under);
    attribute(parts.value, "data-tone", tone);
  });
}

/** Does it and leaves how long it took in the browser's own list of measures, under that name. */
function measured(name, work) {
  const start = performance.now();
  const result = work();
  performance.clearMeasures(name);
  performance.measure(name, { start, end: performance.now() });
  return result;
}

/** One refresh of the whole page. */
const draw = () => measured("refresh", () => {
  drawHead();
  drawNotices();
  show(byId("door"), state.door);
  show(byId("forget"), hasToken() && !state.door);
  drawData();
});

function takeStatus(status) {
  if (state.status && state.status.started_at !== status.started_at) {
    rates.clear();
    announce("The service was started anew.");
  }
  if (state.lost && state.status) announce("Connected again.");
  state.version ??= status.version;
  const now = performance.now();
  rates.take(status.routes, now);
  Object.assign(state, { status, came: now, lost: null, door: false });
}

/** The token is missing or wrong: whoever has the right one may type it in. */
function closeDoor() {
  const wrong = hasToken();
  setToken(null);
  // What stands here is not for everybody any more: a fresh page has none of it.
  if (state.status) return location.reload();
  say(byId("door-fault"), wrong ? "This is not the token of http.token." : "");
  Object.assign(state, { lost: null, door: true });
  draw();
  byId("token").focus();
}

async function askIncidents() {
  const { status } = state;
  const version = `${status.started_at} ${status.incident_changes}`;
  const now = performance.now();
  if (seen.version === version || now < seen.asked + INCIDENTS_MS) return;
  seen.asked = now;
  const answer = await ask("/api/incidents");
  const failed = answer.kind !== "data";
  show(byId("incidents-fault"), failed);
  say(byId("incidents-fault"), failed ? `The incidents are not known now. ${answer.why ?? ""}` : "");
  if (failed) return;
  const fresh = measured("incidents", () => {
    const list = takeIncidents(answer.value);
    ageIncidents(state.status?.at ?? status.at);
    return list;
  });
  if (!seen.first && fresh.length > 0) {
    const { id, route, cause: why } = fresh[0];
    announce(`Deadlock found: incident ${id}, route ${route}. ${cause(why)}.`);
  }
  Object.assign(seen, { version, first: false });
}

async function look() {
  const answer = await ask("/api/status");
  if (answer.kind === "data") takeStatus(answer.value);
  else if (answer.kind === "door") closeDoor();
  else state.lost = answer;
  draw();
  if (answer.kind === "data") await askIncidents();
}

let asking = false;

/** Looks each second; one look at a time. Behind a door it waits for the token. */
async function turn() {
  if (asking || state.door || document.hidden) return;
  asking = true;
  try {
    await look();
  } finally {
    asking = false;
  }
}

byId("door").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId("token");
  setToken(field.value.trim());
  // A header takes no other characters, so it cannot be the right one.
  const sendable = /^[ -~]+$/.test(field.value);
  field.value = "";
  if (!sendable) return closeDoor();
  state.door = false;
  turn();
});

byId("forget").addEventListener("click", closeDoor);

document.addEventListener("visibilitychange", turn);
drawLegend();
beginIncidents();
draw();
turn();
setInterval(turn, PERIOD_MS);

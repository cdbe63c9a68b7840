// Sizes, spans, times, phases and causes as people read them; pure. Whatever comes, words come out.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

const CAUSES = {
  path_dead: "The peer acknowledges nothing any more",
  zero_window: "The peer lives, but has stopped reading",
  silent_server: "The server owes a reply and sends none",
  no_data_connection: "The data connection does not come about",
  disk: "The local file or its disk does not answer",
  dns: "The name look-up does not answer",
  cpu_loop: "The worker computes without end",
  lock: "The worker waits for a lock",
  unknown: "The evidence does not tell",
};

const RELEASES = {
  full: "its place was needed",
  hold: "its time was over",
  seats: "the server had no seat left for us",
  memory: "it held too much memory",
  resume: "its file was about to be resumed",
  shutdown: "the service ended",
};

/** A count with its thousands apart. */
export const count = (value) => Number(value).toLocaleString("en").replaceAll(",", "\u202f");

/** A number of bytes. */
export function size(bytes) {
  let value = Math.max(0, Number(bytes) || 0);
  let unit = 0;
  while (value >= (unit === 0 ? 1024 : 1023.95) && unit + 1 < UNITS.length) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${Math.round(value)} B` : `${value.toFixed(1)} ${UNITS[unit]}`;
}

/** Seconds, in their two greatest units. */
export function span(seconds) {
  const value = Math.max(0, Number(seconds) || 0);
  if (value < 9.95) return `${value.toFixed(1)} s`;
  return whole(value);
}

/** The same without tenths: for what is told anew each second. */
export function whole(seconds) {
  const value = Math.round(Math.max(0, Number(seconds) || 0));
  const [days, hours] = [Math.floor(value / 86400), Math.floor(value / 3600) % 24];
  const [minutes, rest] = [Math.floor(value / 60) % 60, value % 60];
  if (value < 60) return `${rest} s`;
  if (value < 3600) return `${minutes} min ${rest} s`;
  if (value < 86400) return `${hours} h ${minutes} min`;
  return `${days} d ${hours} h`;
}

/** How long ago, coarse enough to be calm. */
export function ago(seconds) {
  const value = Math.max(0, Number(seconds) || 0);
  if (value < 10) return "just now";
  if (value < 60) return `${Math.floor(value / 10) * 10} s ago`;
  if (value < 3600) return `${Math.floor(value / 60)} min ago`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ago`;
  return `${Math.floor(value / 86400)} d ago`;
}

/** A Unix time as UTC in the form of the log, or nothing where there is no such time. */
export function stamp(unix) {
  const date = new Date(Number(unix) * 1000);
  return Number.isNaN(date.getTime()) ? "unknown" : date.toISOString();
}

/** The time of day where the reader is. */
export function clock(unix) {
  const date = new Date(Number(unix) * 1000);
  return Number.isNaN(date.getTime()) ? "unknown" : date.toLocaleTimeString("en-GB");
}

/** A phase's name without underscores. */
export const phase = (name) => String(name).replaceAll("_", " ");

/** A cause in words. */
export const cause = (name) => CAUSES[name] ?? String(name);

/** Why a pair was released, in words. */
export const release = (name) => RELEASES[name] ?? String(name ?? "unknown");

/** A number with its noun. */
export const several = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

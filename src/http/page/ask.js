// Questions to the service. Every one ends within a bound and gives data, or why there is none:
// "door" (the token is missing or wrong), "refused" (asking again does not help), "silent".
// The token lives in this tab's sessionStorage and goes out in a header alone, never in a URL.

const TOKEN = "ftpulse-token";
// A daemon that turns answers within 2 s, or the service says so itself.
const PATIENCE_MS = 5000;

let token = sessionStorage.getItem(TOKEN);

/** Whether there is a token that could be forgotten. */
export const hasToken = () => token !== null;

/** From now on it is this one, or none. */
export function setToken(text) {
  token = text;
  if (text === null) sessionStorage.removeItem(TOKEN);
  else sessionStorage.setItem(TOKEN, text);
}

/** Asks for a document: { kind: "data", value } or { kind, why, reached }. */
export async function ask(path) {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const response = await fetch(path, { headers, signal, cache: "no-store", redirect: "error" });
    const value = await response.json();
    if (response.ok) return { kind: "data", value };
    // By another name than an address or localhost the service answers 421 to who has no token.
    if (response.status === 401 || response.status === 421) return { kind: "door" };
    const silent = response.status >= 500;
    const why = silent ? value.error : `${value.error}; ${value.way_out}`;
    return { kind: silent ? "silent" : "refused", reached: true, why: `The service says: ${why}.` };
  } catch (error) {
    const late = error.name === "TimeoutError";
    const seconds = PATIENCE_MS / 1000;
    const why = late ? `The service did not answer within ${seconds} s.` : "The service cannot be reached.";
    return { kind: "silent", reached: false, why };
  }
}

// Sends requests to the gateway, and turns each failure into an error with a sentence.

/** A request that the gateway refused, or that did not reach it (status 0). */
export class Refused extends Error {
  constructor(status, answer) {
    super(answer.detail ?? `The gateway answered with status ${status}.`);
    this.status = status;
    this.code = answer.code ?? null;
    this.facts = answer.facts ?? {};
  }
}

/** Tells with the event "signedout" that a token is needed. */
export const access = new EventTarget();

const SECONDS = 30;

/** Return the path of something under `/api/`, with a query. Names are encoded, slashes in them, too. */
function path(parts, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `/api/${parts.map(encodeURIComponent).join("/")}${text && `?${text}`}`;
}

async function send(method, target, { body, version, key, signal } = {}) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (version) headers["If-Match"] = `"${version}"`;
  if (key) headers["Idempotency-Key"] = key;
  const late = AbortSignal.timeout(SECONDS * 1000);
  let answer, text;
  try {
    answer = await fetch(target, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "same-origin",
      signal: signal ? AbortSignal.any([signal, late]) : late,
    });
    text = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, { detail: "The gateway cannot be reached. Try again when it runs.", code: "unreachable" });
  }
  let found = {};
  try {
    found = text ? JSON.parse(text) : {};
  } catch {
    found = { detail: `The gateway answered with status ${answer.status}, and not in JSON.` };
    if (answer.ok) throw new Refused(502, found);
  }
  if (answer.ok) return found;
  if (answer.status === 401) access.dispatchEvent(new Event("signedout"));
  throw new Refused(answer.status, typeof found === "object" && found !== null ? found : {});
}

export const get = (parts, query, how) => send("GET", path(parts, query), how);
export const post = (parts, body = {}, how = {}) => send("POST", path(parts), { ...how, body });
export const patch = (parts, body, how = {}) => send("PATCH", path(parts), { ...how, body });
export const put = (parts, how = {}) => send("PUT", path(parts), { ...how, body: {} });
export const remove = (parts, how = {}) => send("DELETE", path(parts), how);

/** Undo the newest deletion of a block, and no other change; return the block, which another may have made meanwhile. */
export async function bringBack(label) {
  const [newest] = (await get(["versions", label], { limit: 1 })).items;
  return newest?.kind === "deleted" ? post(["undo", label], {}, { version: newest.version }) : get(["blocks", label]);
}

/** Return a key for a request that may be sent again. `randomUUID` is missing on pages without TLS from other hosts. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return all items of a list that comes in pages, with a call after each page. */
export async function pages(parts, query, { signal, each = () => {} } = {}) {
  const items = [];
  for (let after = null; ; ) {
    const page = await get(parts, { ...query, limit: 1000, after }, { signal });
    items.push(...page.items);
    each(items);
    if (!page.next || !page.items.length) return items;
    after = page.next;
  }
}

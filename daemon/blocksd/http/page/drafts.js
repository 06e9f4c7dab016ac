// Keeps texts that are typed and not saved yet in the browser, so that a reload, a crash or a failed save loses none.

import { newKey } from "./gateway.js";

const PREFIX = "blocksd:draft:";

const NAME = "blocksd:tab";

/**
 * A tab has drafts separate from those of other tabs; its name lasts for as long as the tab. It is stored only from when a page
 * of the tab is left to when the next one begins: a copy of the tab, which begins with what is stored, has another name.
 */
const TAB = (() => {
  try {
    return sessionStorage.getItem(NAME) ?? newKey().slice(0, 8);
  } catch {
    return newKey().slice(0, 8);
  }
})();

const memory = new Map();
const keyOf = (label, tab = TAB) => `${PREFIX}${tab}:${label}`;

/** Keep a draft: {text, base: the version it was made of, id: the block's}. Return false if the browser keeps it in this page only. */
export function keep(label, draft) {
  const kept = { ...draft, at: new Date().toISOString() };
  memory.set(label, kept);
  try {
    localStorage.setItem(keyOf(label), JSON.stringify(kept));
    return true;
  } catch {
    return false;
  }
}

/** Return this tab's draft of a block, or null. */
export function draftOf(label) {
  return memory.get(label) ?? read(keyOf(label));
}

/** Return the drafts of a block that other tabs have left: [{key, text, base, at}]. */
export function draftsOfOthers(label) {
  return keys()
    .filter((key) => key.endsWith(`:${label}`) && key !== keyOf(label) && key.slice(PREFIX.length + 9) === label)
    .map((key) => ({ key, ...read(key) }))
    .filter((draft) => typeof draft.text === "string");
}

/** Forget this tab's draft of a block, or the one with this key. */
export function forget(label, key = keyOf(label)) {
  if (key === keyOf(label)) memory.delete(label);
  try {
    localStorage.removeItem(key);
  } catch {
    // Nothing was kept there.
  }
}

/** Let a draft follow its block to another label. */
export function rename(from, to) {
  const draft = draftOf(from);
  if (!draft) return;
  setAside(to);
  keep(to, draft);
  forget(from);
}

/** Leave this tab's draft of a block, if there is one, as another tab would: another text is to take its place. */
export function setAside(label) {
  const draft = draftOf(label);
  if (!draft) return;
  try {
    localStorage.setItem(keyOf(label, newKey().slice(0, 8)), JSON.stringify(draft));
  } catch {
    // The browser keeps no drafts.
  }
}

/** Return true if some draft is in this page alone, which would be lost with it. */
const isOnlyHere = () => [...memory.keys()].some((label) => read(keyOf(label))?.text !== memory.get(label).text);

/** Return the labels of all drafts, those of other tabs among them. */
export function labels() {
  return new Set([...memory.keys(), ...keys().map((key) => key.slice(PREFIX.length + 9))]);
}

function keys() {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  } catch {
    return [];
  }
}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

function store(run) {
  try {
    run(sessionStorage);
  } catch {
    // The next page of this tab has another name, and is offered its drafts as those of another tab.
  }
}

store((stored) => stored.removeItem(NAME));
addEventListener("pagehide", () => store((stored) => stored.setItem(NAME, TAB)));
addEventListener("pageshow", () => store((stored) => stored.removeItem(NAME)));
addEventListener("beforeunload", (event) => {
  if (isOnlyHere()) event.preventDefault();
});

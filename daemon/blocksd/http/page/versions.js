// Shows the versions of a block, what differs between any two, and restores one.

import { attempt, notice } from "./dialogs.js";
import { unified } from "./differences.js";
import { button, el, fill } from "./dom.js";
import { get, post } from "./gateway.js";
import { address, go } from "./places.js";
import { ago, authorOf, number } from "./words.js";

const PAGE = 50;

/** Show them; return the function that takes a newer block. */
export function showVersions(element, app, block, query, signal) {
  const { label } = block;
  const body = el("tbody");
  const difference = el("section.difference", { "aria-label": "Differences between two versions" });
  const older = button("Older versions", () => attempt(() => read(next)), "button");
  const table = el(
    "table.versions",
    {},
    el("thead", {}, el("tr", {}, ["From", "To", "Version", "What", "Author", "When", "Size", ""].map((text) => el("th", { scope: "col" }, text || el("span.unseen", {}, "Actions"))))),
    body,
  );
  element.append(el("div.split", {}, el("div", {}, el("div.wide", { tabindex: "0", role: "region", "aria-label": "Versions" }, table), older), difference));
  let [items, next, newest] = [[], null, block.version];
  let [from, to] = [Number(query.from) || null, Number(query.to) || null];

  async function read(before = null) {
    const page = await get(["versions", label], { limit: PAGE, before }, { signal });
    items = before === null ? page.items : [...items, ...page.items];
    next = page.next;
    show();
  }

  function show() {
    to ??= items[0]?.version ?? null;
    from ??= items[1]?.version ?? 0;
    fill(body, items.map(row));
    older.hidden = next === null;
    compare();
  }

  function row(one) {
    const pick = (name, present, choose) =>
      el("input", { type: "radio", name, checked: one.version === present, "aria-label": `Compare ${name} version ${one.version}`, onchange: () => (choose(one.version), chosen()) });
    const actions = [
      one.size !== null && button("Text", () => attempt(() => showText(one)), "button.quiet", { "aria-label": `Text of version ${one.version}` }),
      app.mayWrite && one.size !== null && one.version !== newest && button("Restore", () => attempt(() => restore(one)), "button.quiet", { "aria-label": `Restore version ${one.version}` }),
    ];
    const what = one.kind === "updated" || one.kind === "created" ? [one.kind, one.fields.length > 0 && ` (${one.fields.join(", ")})`] : one.kind === "renamed" ? `renamed from ${one.from}` : one.kind;
    return el(
      "tr",
      {},
      el("td", {}, pick("from", from, (version) => (from = version))),
      el("td", {}, pick("to", to, (version) => (to = version))),
      el("td", {}, String(one.version)),
      el("td", {}, what, one.reverts.length > 0 && el("span.tag", { title: "It took away text that others had written." }, `takes back ${one.reverts.join(", ")}`)),
      el("td", {}, authorOf(one)),
      el("td", {}, ago(one.at)),
      el("td.amount", {}, one.size === null ? "–" : number(one.size)),
      el("td.row-actions", {}, actions),
    );
  }

  function chosen() {
    go(address("blocks", label, { part: "versions", from: from || "0", to }), true);
  }

  let asked = 0;

  async function compare() {
    if (to === null) return;
    const mine = (asked += 1);
    const title = el("h2", {}, from ? `From version ${from} to ${to}` : `Version ${to}`);
    try {
      const found = await get(["diff", label], { from, to }, { signal });
      if (mine === asked) fill(difference, title, unified(found.diff));
    } catch (error) {
      if (!signal.aborted && mine === asked) fill(difference, title, el("p.wrong", { role: "alert" }, error.message));
    }
  }

  async function showText(one) {
    asked += 1;
    const found = await get(["version", label], { version: one.version }, { signal });
    fill(difference, el("h2", {}, `Text of version ${one.version}`), el("pre.raw", { tabindex: "0", role: "region", "aria-label": "Text" }, found.block.value));
  }

  async function restore(one) {
    const made = await post(["restore", label], { version: one.version });
    // Not what came after it, which may be another's.
    const undo = () => attempt(() => post(["undo", label], {}, { version: made.version }));
    notice(`Version ${made.version} is what version ${one.version} was.`, { action: ["Undo", undo] });
  }

  attempt(read);
  return (newer) => {
    if (!newer || newer.version === newest) return;
    newest = newer.version;
    // What was chosen stays chosen; who compared with the newest sees the newest.
    if (to === items[0]?.version && from === (items[1]?.version ?? 0)) from = to = null;
    attempt(read);
  };
}

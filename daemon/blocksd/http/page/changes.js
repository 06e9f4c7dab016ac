// The view of changes: the live feed, with filters.

import { attempt } from "./dialogs.js";
import { el, field, fill, later } from "./dom.js";
import { Feed } from "./feed.js";
import { get } from "./gateway.js";
import { address, go } from "./places.js";
import { ago, authorOf } from "./words.js";

const MOST = 300;
const BEFORE = 30;

/** Show the view; return the function that takes other filters. */
export function showChanges(main, app, signal) {
  const block = el("input", { autocomplete: "off", spellcheck: "false" });
  const agent = el("input", { autocomplete: "off", spellcheck: "false" });
  const author = el("input", { autocomplete: "off", spellcheck: "false" });
  const list = el("ol.feed", { "aria-label": "Changes, newest first" });
  const words = el("p.found", { role: "status" });
  const before = el("section", { "aria-label": "Changed before" });
  let [changes, own] = [[], null];
  main.append(
    el(
      "div.one",
      {},
      el("h1", {}, "Changes"),
      el("form.filters", { role: "search", onsubmit: (event) => event.preventDefault() }, field("Block", block), field("Agent", agent), field("Author", author)),
      words,
      list,
      before,
    ),
  );

  const isLive = () => (own === null ? app.store.isLive : own.feed.isLive);

  function show() {
    const wanted = author.value.trim().toLowerCase();
    const fitting = changes.filter((one) => !wanted || `${one.author ?? ""} ${one.by ?? ""}`.toLowerCase().includes(wanted));
    fill(list, fitting.slice(0, MOST).map(row));
    list.hidden = !fitting.length;
    const waiting = isLive() ? "Waiting for changes; each one appears here at once." : "Not connected. The feed goes on where it was as soon as the gateway answers.";
    fill(words, fitting.length && isLive() ? "Live. The newest is first." : waiting);
  }

  const showSoon = later(50, show);

  /** Follow with filters of the gateway: by block and agent, which knows what an agent has. */
  function follow(query) {
    own?.end.abort();
    own = null;
    if (query.block || query.agent) {
      const end = new AbortController();
      signal.addEventListener("abort", () => end.abort(), { signal: end.signal });
      const feed = new Feed({ block: query.block, agent: query.agent }, end.signal);
      own = { feed, end };
      changes = app.store.changes.filter((one) => query.block && !query.agent && one.label === query.block);
      const take = ({ detail }) => {
        if (detail) changes.unshift(detail);
        changes.length = Math.min(changes.length, MOST);
        showSoon();
      };
      for (const kind of ["change", "reset"]) feed.addEventListener(kind, take);
      for (const kind of ["connected", "lost"]) feed.addEventListener(kind, showSoon);
    } else {
      changes = app.store.changes;
    }
    show();
  }

  async function showBefore() {
    const query = { order_by: "updated_at", order: "desc", limit: BEFORE, templates: true };
    const { items } = await get(["blocks"], query, { signal });
    const line = (one) =>
      el(
        "li",
        {},
        el("span.kind", {}, `version ${one.version}`),
        el("a.what", { href: address("blocks", one.label, { part: "versions" }) }, one.label),
        el("span.who", {}, one.author),
        ago(one.at),
      );
    fill(before, items.length > 0 && [el("h2", {}, "Changed before"), el("ol.feed", {}, items.map(line))]);
  }

  const filtered = later(400, () => go(address("changes", null, { block: block.value.trim(), agent: agent.value.trim() }), true));
  block.addEventListener("input", filtered);
  agent.addEventListener("input", filtered);
  author.addEventListener("input", show);
  for (const kind of ["change", "state"]) app.store.addEventListener(kind, () => own === null && showSoon(), { signal });
  attempt(showBefore);
  return (_, query) => {
    if (document.activeElement !== block) block.value = query.block ?? "";
    if (document.activeElement !== agent) agent.value = query.agent ?? "";
    follow(query);
  };
}

const link = (label) => el("a", { href: address("blocks", label) }, label);

function row(change) {
  const { kind, label, version } = change;
  const detail = {
    created: () => [link(label)],
    updated: () => [link(label), change.fields?.length > 0 && el("span.muted", {}, ` ${change.fields.join(", ")}`)],
    renamed: () => [change.from, " → ", link(label)],
    deleted: () => [link(label)],
    rejected: () => [change.subject, el("span.muted", {}, ` ${change.problem?.message ?? ""}`)],
    cleared: () => [change.subject, el("span.muted", {}, " is in order again")],
    reset: () => ["The mirror was rebuilt, or changes were missed: everything was read again."],
    repaired: () => ["The mirror showed these wrongly until now: ", (change.labels ?? []).join(", ")],
    source: () => [`The files of ${change.source} changed`],
    opened: () => [`${change.agent} opened ${change.file}`],
    closed: () => [`${change.agent} closed ${change.file}`],
  }[kind] ?? (() => [label ?? ""]);
  const agents = [change.attached?.length > 0 && `attached ${change.attached.join(", ")}`, change.detached?.length > 0 && `detached ${change.detached.join(", ")}`].filter(Boolean);
  return el(
    "li",
    {},
    change.problem?.warning ? el("span.kind", {}, "warning") : el(`span.kind.${kind}`, {}, kind),
    el("span.what", {}, detail(), agents.length > 0 && el("span.muted", {}, ` ${agents.join("; ")}`)),
    version && el("a.version", { href: address("blocks", label, { part: "versions", from: String(version - 1), to: version }), "aria-label": `Version ${version} of ${label}` }, `v${version}`),
    el("span.who", {}, change.author ? authorOf(change) : ""),
    ago(change.at),
  );
}

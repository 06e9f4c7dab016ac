// Starts the page: signs in, follows the changes, and shows the view that the address names.

import { showAgents } from "./agents.js";
import { showBlocks } from "./blocks.js";
import { showChanges } from "./changes.js";
import { notice } from "./dialogs.js";
import { el, fill } from "./dom.js";
import { Feed } from "./feed.js";
import { access } from "./gateway.js";
import { showHealth } from "./health.js";
import { address, go, place } from "./places.js";
import { readSession, signIn, signOut } from "./session.js";
import { Store } from "./store.js";
import { sentence } from "./words.js";

const VIEWS = { blocks: ["Blocks", showBlocks], agents: ["Agents", showAgents], changes: ["Changes", showChanges], health: ["Health", showHealth] };

const main = document.getElementById("main");
const app = { session: null, store: null, mayWrite: false, mayAll: false };
let shown = null;

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

function show() {
  if (app.store === null) return;
  const { view, name, query } = place(location.hash);
  if (!Object.hasOwn(VIEWS, view)) return go(address("blocks"), true);
  showViews(view);
  document.title = `${name ?? VIEWS[view][0]} · blocksd`;
  document.body.dataset.view = view;
  document.body.classList.toggle("has-name", name !== null);
  // A view that is shown already takes another name or part of itself.
  if (shown?.view === view) return shown.update(name, query);
  shown?.end.abort();
  const end = new AbortController();
  shown = { view, end, update: () => {} };
  const update = VIEWS[view][1](fill(main), app, end.signal);
  shown.update = update;
  update(name, query);
}

function showViews(present) {
  const problems = app.store.problems.filter((one) => !one.warning).length;
  const views = Object.entries(VIEWS).filter(([view]) => view !== "health" || app.session.role !== "agent");
  fill(
    document.getElementById("views"),
    views.map(([view, [title]]) =>
      el(
        "a",
        { href: address(view), "aria-current": view === present && "page" },
        title,
        view === "health" && problems > 0 && el("span.count", { "aria-label": `${problems} problems` }, String(problems)),
      ),
    ),
  );
}

function showState() {
  const { isLive } = app.store;
  const { name, agent, role, tokens } = app.session;
  const who = tokens && el("button.link", { type: "button", onclick: () => signOut() }, "Sign out");
  fill(
    document.getElementById("state"),
    el(`span.live${isLive ? "" : ".lost"}`, {}, isLive ? "Live" : "Connecting…"),
    tokens && el("span.who", { title: `Signed in as ${role}` }, name ?? agent ?? role),
    who,
  );
}

async function start() {
  app.session = await readSession();
  if (app.session === null) app.session = await signIn();
  app.mayAll = app.session.role === "operator";
  app.mayWrite = app.session.role !== "reader";
  app.store = new Store(new Feed());
  app.store.addEventListener("state", showState);
  app.store.addEventListener("problems", () => showViews(place(location.hash).view));
  let failed = null;
  app.store.addEventListener("failed", ({ detail }) => {
    if (detail.message !== failed && detail.status) notice(sentence(detail.message), { isError: true });
    failed = detail.message;
  });
  access.addEventListener("signedout", async () => {
    const session = await signIn();
    // Another caller may do other things: the page begins again. Texts that are typed are kept as drafts.
    if (JSON.stringify(session) !== JSON.stringify(app.session)) location.reload();
    else app.store.load();
  });
  showState();
  addEventListener("hashchange", show);
  show();
  await app.store.begin();
}

// Keys for all views: "/" goes to the search, "g" and a letter to a view.
let prefix = false;
addEventListener("keydown", (event) => {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, textarea, select, dialog")) return;
  const view = Object.keys(VIEWS).find((one) => one[0] === event.key);
  if (prefix && view) go(address(view));
  prefix = event.key === "g";
  if (event.key === "/") {
    const search = main.querySelector("input[type=search]");
    if (search) event.preventDefault();
    search?.focus();
  }
});

start();

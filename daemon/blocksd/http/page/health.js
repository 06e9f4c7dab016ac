// The view of health: the daemon's status, problems with remedies, and what the audit finds.

import { problemCard } from "./block.js";
import { ask, attempt, notice } from "./dialogs.js";
import { button, el, fill, later } from "./dom.js";
import { get, post } from "./gateway.js";
import { address } from "./places.js";
import { ago, count, duration, mirrorWord, number, sentence } from "./words.js";

const SECONDS = 5;

/** Show the view. */
export function showHealth(main, app, signal) {
  const status = el("section", { "aria-label": "Status" }, el("p.muted", {}, "Reading…"));
  const halted = el("div");
  const problems = el("section", { "aria-label": "Problems" });
  const audit = el("section", { "aria-label": "Audit" });
  main.append(el("div.one", {}, el("h1", {}, "Health"), halted, status, problems, audit));
  let last = "";

  async function read() {
    try {
      const found = await get(["status"], {}, { signal });
      if (signal.aborted) return;
      showStatus(found);
    } catch (error) {
      if (signal.aborted) return;
      last = "";
      fill(status, el("div.card.problem.bad", { role: "alert" }, el("p", {}, el("strong", {}, "The daemon does not answer: "), sentence(error.message))));
    }
  }

  function showStatus(found) {
    const { mirror, mirror_lag: lag, queue, watches, last_change: change } = found;
    const isGood = mirror === "level";
    // The request for the status is in the queue, too.
    const cards = [
      ["Daemon", found.ready ? "ready" : "starting", `blocksd ${found.version}, running for ${duration(found.uptime_seconds)}`, found.ready],
      ["Mirror", mirrorWord(mirror), isGood ? `${found.redis_server}, no lag` : `${count(lag ?? 0, "change")} behind${found.away_reason ? `: ${found.away_reason}` : ""}`, isGood],
      ["Blocks", number(found.blocks), `in ${found.folder}`, null],
      ["Agents", number(found.agents), `seq ${number(found.seq)}`, null],
      ["Waiting", number(queue.files + Math.max(0, queue.requests - 1)), "files and requests in the queue", null],
      ["Watches", number(watches.used), found.polling ? "the folder is polled" : watches.limit ? `of ${number(watches.limit)}` : "", null],
    ];
    const text = JSON.stringify([cards, change]);
    if (text !== last) {
      last = text;
      fill(
        status,
        el("div.cards", {}, cards.map(([title, value, more, good]) => el(`div.card.fact${good === null ? "" : good ? ".good" : ".bad"}`, {}, el("h2", {}, title), el("p.value", {}, value), el("p.muted", {}, more)))),
        change && el("p.muted", {}, "Last change: ", change.kind, " ", change.label ? el("a", { href: address("blocks", change.label) }, change.label) : "", " ", ago(change.at)),
      );
    }
    showHalted(found.problems.find((one) => one.code === "halted") ?? null);
  }

  function showHalted(problem) {
    const text = JSON.stringify(problem);
    if (halted.dataset.text === text) return;
    halted.dataset.text = text;
    if (!problem) return fill(halted);
    fill(
      halted,
      el(
        "div.card.problem.bad",
        { role: "alert" },
        el("p", {}, el("strong", {}, "Deletions are held back: "), sentence(problem.message)),
        problem.hint && el("p.muted", {}, sentence(problem.hint)),
        app.mayAll && button("Accept the deletions", accept, "button.danger"),
      ),
    );
  }

  async function accept() {
    const done = await ask({
      title: "Accept the deletions?",
      yes: "Accept",
      isDangerous: true,
      body: el("p", {}, "The blocks whose files are gone are deleted, and no agent sees them any more. Their histories stay."),
      accept: () => post(["resume"], { accept_deletions: true }),
    });
    if (!done) return;
    notice("The deletions are accepted.");
    await Promise.all([read(), attempt(showAudit)]);
  }

  function showProblems() {
    const found = app.store.problems;
    fill(
      problems,
      el("h2", {}, "Problems"),
      found.length ? found.map((one) => problemCard(one, one.label && app.store.blocks.has(one.label) && el("a", { href: address("blocks", one.label) }, "Go to the block"))) : el("p.empty", {}, "There is none. Every file is in force."),
    );
  }

  async function showAudit() {
    const found = await get(["audit"], {}, { signal });
    const line = ({ subject, message, advice }) => {
      const place = app.store.blocks.has(subject) ? address("blocks", subject) : address("agents", subject);
      return el("li", {}, el("a", { href: place }, subject), `: ${sentence(message)}`, el("div.muted", {}, sentence(advice)));
    };
    fill(audit, el("h2", {}, "Audit"), found.items.length ? el("ul.list.findings", {}, found.items.map(line)) : el("p.empty", {}, "Nothing needs care."));
  }

  const soon = later(300, read);
  const timer = setInterval(() => document.hidden || read(), SECONDS * 1000);
  signal.addEventListener("abort", () => clearInterval(timer));
  app.store.addEventListener("problems", () => (showProblems(), soon()), { signal });
  app.store.addEventListener("change", soon, { signal });
  showProblems();
  read();
  attempt(showAudit);
  return () => {};
}

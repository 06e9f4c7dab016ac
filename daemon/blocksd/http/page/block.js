// One block: its head with what can be done to it, and the part of it that is shown.

import { ask, attempt, notice } from "./dialogs.js";
import { button, el, field, fill, later } from "./dom.js";
import * as drafts from "./drafts.js";
import { showEditor } from "./editor.js";
import { showFields } from "./fields.js";
import { gauge } from "./gauge.js";
import { bringBack, get, post, remove } from "./gateway.js";
import { markdown } from "./markdown.js";
import { address, go } from "./places.js";
import { showSharing } from "./sharing.js";
import { showVersions } from "./versions.js";
import { ago, authorOf, sentence } from "./words.js";

const PARTS = { text: "Text", fields: "Fields", agents: "Agents", versions: "Versions" };
const RETRY_SECONDS = 2;
let isRaw = false;

/** Show a block in an element until the signal ends it. */
export function showBlock(element, app, label, query, signal) {
  const part = Object.hasOwn(PARTS, query.part ?? "") ? query.part : "text";
  const head = el("div.block-head");
  const body = el("div.block-body");
  const problems = el("div.problems");
  let [block, update, number] = [null, null, 0];
  element.append(el("a.back", { href: address("blocks") }, "‹ All blocks"), head, problems, body);
  const isEdited = part === "text" && app.mayWrite && query.edit === "1";

  async function read() {
    const mine = (number += 1);
    try {
      const found = await get(["blocks", label], {}, { signal });
      if (mine !== number) return;
      if (found.label !== label) return go(address("blocks", found.label, query), true);
      block = found;
      showHead();
      if (update) update(block);
      else showBody();
    } catch (error) {
      if (signal.aborted || mine !== number) return;
      if (error.status === 404) return miss(error);
      retry();
      if (block === null) fill(body, el("p.wrong", { role: "alert" }, error.message), button("Try again", read));
    }
  }

  const retry = later(RETRY_SECONDS * 1000, () => signal.aborted || read());

  /** A block that is not there under its label may have got another one meanwhile: its id tells. */
  async function miss(error) {
    const id = block?.id ?? drafts.draftOf(label)?.id;
    const found = id ? await get(["blocks", id], {}, { signal }).catch(() => null) : null;
    if (signal.aborted) return;
    if (found === null || found.label === label) return showAbsence(error);
    drafts.rename(label, found.label);
    go(address("blocks", found.label, query), true);
  }

  function showHead() {
    const names = block.label.split("/");
    const name = names.pop();
    const isPrivate = block.label.startsWith("agents/");
    const badges = [
      block.read_only && ["read-only", "Agents may not change it."],
      isPrivate && ["private", "Only its agent sees it."],
      block.hidden && ["hidden", "It is in no prompt and not in Letta's lists."],
      block.is_template && ["template", "It is in no prompt."],
    ].filter(Boolean);
    fill(
      head,
      el("h1", {}, names.map((one) => [el("span.above", {}, one), el("span.slash", {}, "/")]), name),
      el(
        "div.badges",
        {},
        badges.map(([text, title]) => el("span.badge", { title }, text)),
        block.tags.map((tag) => el("span.tag", {}, tag)),
      ),
      block.description && el("p.description", {}, block.description),
      el(
        "div.facts",
        {},
        gauge(block.size, block.limit),
        el("span", {}, `version ${block.version}`),
        el("span", {}, "by ", block.author, ", ", ago(block.at)),
      ),
      el(
        "nav.parts",
        { "aria-label": "Parts of the block" },
        Object.entries(PARTS).map(([one, title]) =>
          el("a", { href: address("blocks", label, { part: one === "text" ? "" : one }), "aria-current": one === part && "page" }, title, one === "agents" && el("span.count", {}, String(block.agents.length))),
        ),
        app.mayWrite && actions(),
      ),
    );
  }

  function actions() {
    return el(
      "div.doing",
      {},
      button("Undo", () => change("undo", "Undone.", block.version), "button.quiet", { title: "Undo the newest edit of this block" }),
      button("Redo", () => change("redo", "Done again.", block.version), "button.quiet"),
      (app.mayAll || label.startsWith("agents/")) && button("Rename", renameBlock, "button.quiet"),
      (app.mayAll || label.startsWith("agents/")) && button("Delete", deleteBlock, "button.quiet.danger"),
    );
  }

  function showProblems() {
    const rejected = app.store.problemsOf(label);
    const mergeBack = button("Bring the text back", () => change("merge", "The text is back."), "button");
    fill(problems, rejected.map((one) => problemCard(one, one.code === "reverted" && app.mayAll && mergeBack)));
  }

  function showBody() {
    fill(body);
    if (part === "fields") update = showFields(body, app, block, signal);
    else if (part === "agents") update = showSharing(body, app, block);
    else if (part === "versions") update = showVersions(body, app, block, query, signal);
    else if (isEdited) update = showEditor(body, app, block, signal, () => go(address("blocks", label)));
    else update = showText;
    if (update === showText) showText(block);
  }

  function showText(present) {
    const rendered = () => (present.value ? el("div.markdown", {}, markdown(present.value)) : el("p.muted", {}, "The text is empty."));
    const raw = () => el("pre.raw", { tabindex: "0", role: "region", "aria-label": "Raw text" }, present.value);
    const choice = (text, value) =>
      el("button", { type: "button", "aria-pressed": String(isRaw === value), onclick: () => ((isRaw = value), showText(present)) }, text);
    fill(
      body,
      el("h2.unseen", {}, "Text"),
      el(
        "div.bar-of-text",
        {},
        el("div.segmented", { role: "group", "aria-label": "How the text is shown" }, choice("Rendered", false), choice("Raw", true)),
        app.mayWrite && el("a.button.primary", { href: address("blocks", label, { edit: "1" }) }, "Edit"),
        el("button.quiet", { type: "button", onclick: () => copy(present.value) }, "Copy"),
      ),
      app.mayWrite && ownDraft(present),
      app.mayWrite && drafts.draftsOfOthers(label).map((draft) => otherDraft(draft, present)),
      isRaw ? raw() : rendered(),
    );
  }

  function ownDraft(present) {
    const draft = drafts.draftOf(label);
    if (draft === null) return null;
    const drop = () => {
      drafts.forget(label);
      dispatchEvent(new Event("blocksd-drafts"));
      showText(present);
    };
    return el("div.card.note", {}, el("p", {}, "You have a text of this block that is not saved, of ", ago(draft.at), "."), el("a.button", { href: address("blocks", label, { edit: "1" }) }, "Go on editing"), button("Discard it", drop, "button.quiet"));
  }

  function otherDraft(draft, present) {
    const take = () => {
      drafts.setAside(label);
      drafts.keep(label, { text: draft.text, base: draft.base, id: draft.id });
      drafts.forget(label, draft.key);
      go(address("blocks", label, { edit: "1" }));
    };
    const drop = () => (drafts.forget(label, draft.key), showText(present));
    return el("div.card.note", {}, el("p", {}, "Another tab has a text of this block that is not saved, of ", ago(draft.at), "."), button("Edit that text here", take), button("Discard it", drop, "button.quiet"));
  }

  async function copy(text) {
    await navigator.clipboard?.writeText(text).then(
      () => notice("Copied."),
      () => notice("The browser does not allow copying: mark the raw text and copy it.", { isError: true }),
    );
  }

  /** Change the block; with a version only what the page shows, so that what another wrote meanwhile stays. */
  async function change(op, text, version) {
    await attempt(async () => {
      const found = await post([op, label], {}, { version });
      if (!("value" in found)) return notice(`${text} The block is not there any more.`, { action: ["Bring it back", () => back(found.version)] });
      notice(text);
      if (found.label !== label) return go(address("blocks", found.label, query), true);
      take(found);
    });
  }

  function take(found) {
    block = found;
    number += 1;
    showHead();
    update?.(block);
  }

  /** Undo the deletion that made a version, unless another block is there now. */
  const back = (version) => attempt(async () => go(address("blocks", (await post(["undo", label], {}, { version })).label)));

  async function renameBlock() {
    const to = el("input", { required: true, value: label, spellcheck: "false", autocomplete: "off" });
    const done = await ask({
      title: "Rename the block",
      yes: "Rename",
      body: field("Label", to, "Its history and its agents stay with it; the file is moved."),
      accept: () => post(["rename", label], { label: to.value.trim() }, { version: block.version }),
    });
    if (!done) return;
    drafts.rename(label, done.label);
    go(address("blocks", done.label), true);
  }

  async function deleteBlock() {
    const shared = block.agents.length ? ` ${block.agents.length === 1 ? "One agent has" : `${block.agents.length} agents have`} it.` : "";
    const done = await ask({
      title: `Delete ${label}?`,
      yes: "Delete",
      isDangerous: true,
      body: el("p", {}, `The file is removed.${shared} The history stays: Undo brings the block back.`),
      accept: () => remove(["blocks", label], { version: block.version }),
    });
    if (!done) return;
    notice(`${label} is deleted.`, { action: ["Undo", () => back(done.version)] });
  }

  function showAbsence(error) {
    const draft = drafts.draftOf(label);
    if (update && isEdited && draft) return update(null);
    block = update = null;
    fill(head, el("h1", {}, label));
    fill(
      body,
      el("p.empty", {}, sentence(error.message)),
      app.mayWrite && el("p.empty", {}, "If it was deleted, its history is still there."),
      app.mayWrite && button("Bring it back", () => attempt(async () => go(address("blocks", (await bringBack(label)).label)))),
      draft && [el("h2", {}, "Your text that was not saved"), el("pre.raw", { tabindex: "0" }, draft.text)],
    );
  }

  app.store.addEventListener(
    "block",
    ({ detail }) => {
      const { change: made } = detail;
      if (detail.label !== null && detail.label !== label) return;
      if (made?.kind === "renamed" && made.from === label && made.label !== label) {
        notice(`${authorOf(made)} renamed the block.`);
        drafts.rename(label, made.label);
        return go(address("blocks", made.label, query), true);
      }
      read();
    },
    { signal },
  );
  app.store.addEventListener("problems", showProblems, { signal });
  app.store.addEventListener("state", () => app.store.isLive && read(), { signal });
  showProblems();
  read();
}

/** Return the card of a problem with its remedy. */
export function problemCard(problem, ...more) {
  return el(
    `div.card.problem${problem.warning ? "" : ".bad"}`,
    {},
    el("p", {}, el("strong", {}, problem.warning ? "Warning: " : "Problem: "), sentence(problem.message)),
    problem.hint && el("p.muted", {}, sentence(problem.hint)),
    el("p.where", {}, problem.line ? `${problem.subject}, line ${problem.line}` : problem.subject, problem.since && [" · since ", ago(problem.since)]),
    ...more,
  );
}

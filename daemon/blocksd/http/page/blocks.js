// The view of blocks: the searchable tree, and one block beside it.

import { showBlock } from "./block.js";
import { ask } from "./dialogs.js";
import { button, el, field, fill, later } from "./dom.js";
import * as drafts from "./drafts.js";
import { gauge } from "./gauge.js";
import { pages, post } from "./gateway.js";
import { address, go } from "./places.js";
import { rowsOf } from "./tree.js";
import { VirtualList } from "./virtual_list.js";
import { count, number } from "./words.js";

const FEW = 60;

/** Show the view; return the function that shows another block in it. */
export function showBlocks(main, app, signal) {
  const { store } = app;
  const open = new Set();
  let [present, inTexts, isOpened] = [null, new Set(), false];

  const search = el("input", { type: "search", placeholder: "Search", title: "In labels, tags and descriptions; tag:x finds a tag", "aria-label": "Search blocks", autocomplete: "off", spellcheck: "false" });
  const texts = el("input", { type: "checkbox" });
  const found = el("p.found", { role: "status" });
  const empty = el("div.empty");
  const lost = el("div.lost-texts");
  const tree = new VirtualList({ role: "tree", label: "Blocks", draw, choose, arrow });
  const detail = el("section.detail", { "aria-label": "Block" });
  const create = app.mayWrite && button("New block", () => createBlock(app, present), "button.primary");
  main.append(
    el(
      "div.two",
      {},
      el(
        "section.side",
        { "aria-label": "All blocks" },
        el("h1.unseen", {}, "Blocks"),
        el("div.head", {}, search, create),
        el("label.check", {}, texts, " Search in texts, too"),
        found,
        lost,
        tree.element,
        empty,
      ),
      detail,
    ),
  );

  function draw(row, isActive) {
    const properties = {
      role: "treeitem",
      "aria-level": row.depth + 1,
      "aria-posinset": row.position,
      "aria-setsize": row.size,
      "data-depth": Math.min(row.depth, 8),
    };
    if (row.kind === "folder") {
      const name = `div.row.folder${isActive ? ".active" : ""}`;
      const sign = el("span.sign", { "aria-hidden": "true" }, row.isOpen ? "▾" : "▸");
      const size = el("span.number", {}, number(row.count), unseen(row.count === 1 ? "block" : "blocks"));
      return el(name, { ...properties, "aria-expanded": String(row.isOpen) }, sign, el("span.name", {}, row.name), size);
    }
    const { block } = row;
    const problems = store.problemsOf(block.label);
    const isBad = problems.some((one) => !one.warning);
    return el(
      `div.row.block${isActive ? ".active" : ""}${block.label === present ? ".present" : ""}`,
      { ...properties, "aria-selected": String(block.label === present), title: block.label },
      el("span.name", {}, row.name),
      draftLabels.has(block.label) && el("span.draft", { title: "Not saved" }, el("span", { "aria-hidden": "true" }, "●"), unseen("not saved")),
      problems.length > 0 && el(`span.problem${isBad ? ".bad" : ""}`, { title: problems[0].message }, el("span", { "aria-hidden": "true" }, "!"), unseen(count(problems.length, "problem"))),
      el("span.tags", {}, block.read_only && el("span.tag", {}, "read-only"), block.tags.slice(0, 3).map((tag) => el("span.tag", {}, tag))),
      block.shared_by > 0 && el("span.number.shared", { title: `Shared by ${count(block.shared_by, "agent")}` }, number(block.shared_by), unseen(block.shared_by === 1 ? "agent" : "agents")),
      gauge(block.size, block.limit, { isSmall: true }),
    );
  }

  function choose(row) {
    if (row.kind === "block") return go(address("blocks", row.path));
    toggle(row.path, !row.isOpen);
  }

  function toggle(path, isOpen) {
    if (isOpen) open.add(path);
    else open.delete(path);
    showTree();
  }

  function arrow(row, step) {
    if (row.kind === "folder" && row.isOpen !== step > 0) {
      toggle(row.path, step > 0);
      return null;
    }
    const index = tree.rows.indexOf(row);
    if (step > 0) return row.kind === "folder" ? index + 1 : null;
    return tree.rows.findLastIndex((one, at) => at < index && one.depth < row.depth);
  }

  let draftLabels = drafts.labels();

  function showTree() {
    draftLabels = drafts.labels();
    if (!isOpened && store.isLoaded) {
      isOpened = true;
      // A small folder is shown whole.
      if (store.blocks.size <= FEW) for (const label of store.blocks.keys()) openAbove(label);
    }
    const { rows, count: fitting } = rowsOf(store.blocks.values(), open, search.value, inTexts);
    tree.show(rows, (row) => `${row.kind} ${row.path}`);
    const all = count(store.blocks.size, "block");
    fill(found, !store.isLoaded ? (store.blocks.size ? `${all} so far…` : "Reading…") : search.value ? `${number(fitting)} of ${all}` : all);
    tree.element.hidden = rows.length === 0;
    empty.hidden = rows.length > 0;
    const gone = store.isLoaded && app.mayWrite ? [...draftLabels].filter((label) => !store.blocks.has(label)) : [];
    fill(lost, gone.map((label) => el("p.card.note", {}, "Not saved, and its block is not there: ", el("a", { href: address("blocks", label) }, label))));
    if (!store.isLoaded) fill(empty);
    else if (store.blocks.size) fill(empty, "No block fits the search.");
    else fill(empty, "There is no block yet. A block is a Markdown file in the daemon's folder; make one here, or there with an editor.");
  }

  function openAbove(label) {
    const names = label.split("/");
    for (let depth = 1; depth < names.length; depth += 1) open.add(names.slice(0, depth).join("/"));
  }

  const searchTexts = later(300, async () => {
    const text = search.value.trim();
    inTexts = new Set();
    if (texts.checked && text) {
      const items = await pages(["blocks"], { text, templates: true }, { signal }).catch(() => []);
      if (text !== search.value.trim()) return;
      inTexts = new Set(items.map((one) => one.label));
    }
    showTree();
  });
  search.addEventListener("input", () => (showTree(), searchTexts()));
  texts.addEventListener("change", searchTexts);
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      tree.element.focus();
    }
  });
  for (const kind of ["blocks", "problems"]) store.addEventListener(kind, showTree, { signal });
  addEventListener("blocksd-drafts", later(100, showTree), { signal });

  let ending = null;
  showTree();
  return (name, query) => {
    const isOther = name !== present;
    present = name;
    if (name && isOther) openAbove(name);
    showTree();
    if (name && isOther) {
      const index = tree.rows.findIndex((row) => row.kind === "block" && row.path === name);
      tree.activate(index);
    }
    ending?.abort();
    ending = new AbortController();
    signal.addEventListener("abort", () => ending.abort(), { signal: ending.signal });
    if (name) showBlock(fill(detail), app, name, query, ending.signal);
    else fill(detail, el("div.empty.big", {}, "Choose a block."));
  };
}

/** Return words for those who listen to the page; a space parts them from what is before. */
const unseen = (text) => el("span.unseen", {}, ` ${text}`);

/** Ask for a new block, and go to it. */
async function createBlock(app, present) {
  const folder = present?.includes("/") ? present.slice(0, present.lastIndexOf("/") + 1) : "";
  const label = el("input", { name: "label", required: true, value: app.mayAll ? folder : "", spellcheck: "false", autocomplete: "off" });
  const description = el("input", { name: "description", autocomplete: "off" });
  const value = el("textarea", { name: "value", rows: "6" });
  const hint = app.mayAll ? "Folders are parted by /, as in policies/refunds." : "The block is private to the agent.";
  const made = await ask({
    title: "New block",
    yes: "Create",
    kept: "new block",
    inputs: { label, description, value },
    body: [field("Label", label, hint), field("Description", description, "Tells agents what the block is for."), field("Text", value)],
    accept: () =>
      post(["blocks"], {
        label: label.value.trim(),
        value: value.value,
        ...(description.value && { description: description.value }),
      }),
  });
  if (made) go(address("blocks", made.label));
}

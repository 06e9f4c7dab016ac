// The view of agents: a list of them, and one agent beside it.

import { showAgent } from "./agent.js";
import { ask, notice } from "./dialogs.js";
import { button, el, field, fill, later } from "./dom.js";
import { pages, post } from "./gateway.js";
import { address, go } from "./places.js";
import { VirtualList } from "./virtual_list.js";
import { count, number } from "./words.js";

/** Show the view; return the function that shows another agent in it. */
export function showAgents(main, app, signal) {
  let [agents, present, ending, isLoaded] = [[], null, null, false];
  const search = el("input", { type: "search", placeholder: "Search", "aria-label": "Search agents", autocomplete: "off", spellcheck: "false" });
  const found = el("p.found", { role: "status" }, "Reading…");
  const empty = el("div.empty");
  const list = new VirtualList({ role: "listbox", label: "Agents", draw, choose: (row) => go(address("agents", row.id)) });
  const detail = el("section.detail", { "aria-label": "Agent" });
  main.append(
    el(
      "div.two",
      {},
      el(
        "section.side",
        { "aria-label": "All agents" },
        el("h1.unseen", {}, "Agents"),
        el("div.head", {}, search, app.mayAll && button("New agent", createAgent, "button.primary")),
        found,
        list.element,
        empty,
      ),
      detail,
    ),
  );

  function draw(row, isActive) {
    const name = `div.row${isActive ? ".active" : ""}${row.id === present ? ".present" : ""}`;
    return el(
      name,
      { role: "option", "aria-selected": String(row.id === present), title: row.id },
      el("span.name", {}, row.name, row.name !== row.id && el("span.muted", {}, ` ${row.id}`)),
      el("span.tags", {}, row.tags.slice(0, 3).map((tag) => el("span.tag", {}, tag))),
      el("span.number", { title: count(row.blocks.length, "block") }, number(row.blocks.length), el("span.unseen", {}, row.blocks.length === 1 ? " block" : " blocks")),
    );
  }

  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fitting = agents.filter((one) => {
      const text = `${one.id}\n${one.name}\n${one.description ?? ""}\n${one.tags.join("\n")}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    list.show(fitting, (row) => row.id);
    list.element.hidden = !fitting.length;
    empty.hidden = fitting.length > 0;
    if (isLoaded) fill(found, words.length ? `${number(fitting.length)} of ${count(agents.length, "agent")}` : count(agents.length, "agent"));
    fill(empty, !isLoaded ? null : agents.length ? "No agent fits the search." : "There is no agent yet. An agent is known from the first block that is attached to it.");
  }

  const read = later(50, async () => {
    try {
      agents = await pages(["agents"], {}, { signal });
      isLoaded = true;
      show();
    } catch (error) {
      if (!signal.aborted) fill(found, error.message);
    }
  });

  async function createAgent() {
    const id = el("input", { required: true, autocomplete: "off", spellcheck: "false" });
    const name = el("input", { autocomplete: "off" });
    const description = el("input", { autocomplete: "off" });
    const attach = el("input", { autocomplete: "off", spellcheck: "false" });
    const made = await ask({
      title: "New agent",
      yes: "Create",
      kept: "new agent",
      inputs: { id, name, description, attach },
      body: [
        field("Id", id, "Letters, digits, and _ - . in it; the folder of its private blocks has this name."),
        field("Name", name),
        field("Description", description),
        field("Blocks to attach", attach, "Labels, with commas between them."),
      ],
      accept: () =>
        post(["agents"], {
          id: id.value.trim(),
          ...(name.value.trim() && { name: name.value.trim() }),
          ...(description.value.trim() && { description: description.value.trim() }),
          blocks: [],
          attach: attach.value.split(",").map((one) => one.trim()).filter(Boolean),
        }),
    });
    if (!made) return;
    notice(`The agent ${made.id} is there.`);
    read();
    go(address("agents", made.id));
  }

  search.addEventListener("input", show);
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      list.element.focus();
    }
  });
  app.store.addEventListener("agents", read, { signal });
  app.store.addEventListener("state", () => app.store.isLive && read(), { signal });
  read();
  return (name, query) => {
    present = name;
    show();
    ending?.abort();
    ending = new AbortController();
    signal.addEventListener("abort", () => ending.abort(), { signal: ending.signal });
    if (name) showAgent(fill(detail), app, name, query, ending.signal);
    else fill(detail, el("div.empty.big", {}, "Choose an agent."));
  };
}

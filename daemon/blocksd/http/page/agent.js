// One agent: its properties, its blocks, and the prompt as it sees it in each style.

import { ask, attempt, notice } from "./dialogs.js";
import { button, el, field, fill, later } from "./dom.js";
import { gauge } from "./gauge.js";
import { get, patch, put, remove } from "./gateway.js";
import { address, go } from "./places.js";
import { count, number, sentence, tagsOf, tagsText } from "./words.js";

const STYLES = new Map([["standard", "Standard"], ["line-numbered", "Line-numbered"], ["nested", "Nested"], ["directories", "Directories"]]);
const EMPTY = new Map([["directories", "This style shows file sources alone, and the agent has none."]]);
const STYLE_OF_TYPE = new Map([["sleeptime_agent", "line-numbered"], ["react_agent", "nested"], ["workflow_agent", "directories"]]);
const SUGGESTED = 30;

/** Show an agent in an element until the signal ends it. */
export function showAgent(element, app, id, query, signal) {
  const head = el("div.block-head");
  const blocks = el("section", { "aria-label": "Blocks of the agent" });
  const prompt = el("section", { "aria-label": "Prompt" });
  let [agent, sizes] = [null, new Map()];
  element.append(el("a.back", { href: address("agents") }, "‹ All agents"), head, blocks, prompt);

  async function read() {
    try {
      agent = await get(["agents", id], {}, { signal });
      showHead();
      showBlocks();
      await readPrompt();
    } catch (error) {
      if (signal.aborted) return;
      fill(head, el("h1", {}, id), el("p.empty", {}, sentence(error.message)));
      fill(blocks);
      fill(prompt);
    }
  }

  function showHead() {
    const { name, description, agent_type: type, tags } = agent;
    fill(
      head,
      el("h1", {}, name),
      el("div.badges", {}, name !== id && el("span.badge", { title: "The agent's id" }, id), type && el("span.badge", { title: "The agent's type" }, type), tags.map((tag) => el("span.tag", {}, tag))),
      description && el("p.description", {}, description),
      app.mayAll && el("div.doing", {}, button("Edit properties", editAgent, "button.quiet"), button("Delete", deleteAgent, "button.quiet.danger")),
    );
  }

  function showBlocks() {
    const largest = Math.max(1, ...sizes.values());
    const row = (label) => {
      const block = app.store.blocks.get(label);
      const isPrivate = label.startsWith(`agents/${id}/`);
      const bar = el("span.bar");
      bar.style.width = `${((sizes.get(label) ?? 0) / largest) * 100}%`;
      return el(
        "tr",
        {},
        el("td", {}, el("a", { href: address("blocks", label) }, label), isPrivate && el("span.tag", {}, "private"), block?.read_only && el("span.tag", {}, "read-only")),
        el("td", {}, block && gauge(block.size, block.limit, { isSmall: true })),
        el("td.amount", {}, sizes.has(label) ? number(sizes.get(label)) : "–"),
        el("td.share", {}, el("span.track", { "aria-hidden": "true" }, bar)),
        el("td.row-actions", {}, app.mayAll && !isPrivate && button("Detach", () => attempt(() => detach(label)), "button.quiet", { "aria-label": `Detach ${label}` })),
      );
    };
    const heads = ["Block", "Of its limit", "In the prompt", "", ""].map((text, index) => el("th", { scope: "col" }, text || el("span.unseen", {}, ["", "", "", "Share", "Actions"][index])));
    const table = el("table.blocks-of-agent", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, agent.blocks.map(row)));
    // A form in which something is being typed stays.
    const form = blocks.querySelector("form") ?? (app.mayAll ? attaching() : null);
    const body = agent.blocks.length ? el("div.wide", { tabindex: "0", role: "region", "aria-label": "Table of blocks" }, table) : el("p.empty", {}, "No block is attached.");
    const old = blocks.querySelector(".wide, .empty");
    if (old) old.replaceWith(body);
    else fill(blocks, el("h2", {}, "Blocks"), body, form);
  }

  function attaching() {
    const known = el("datalist", { id: "known-labels" });
    const label = el("input", { list: "known-labels", required: true, autocomplete: "off", spellcheck: "false" });
    const suggest = () => {
      const text = label.value.toLowerCase();
      const fits = [];
      for (const one of app.store.blocks.keys()) {
        if (!one.startsWith("agents/") && one.toLowerCase().includes(text) && fits.push(one) >= SUGGESTED) break;
      }
      fill(known, fits.map((one) => el("option", { value: one })));
    };
    label.addEventListener("input", suggest);
    label.addEventListener("focus", suggest);
    const attach = (event) => {
      event.preventDefault();
      attempt(async () => {
        await put(["agents", id, "blocks", label.value.trim()]);
        notice(`${id} sees ${label.value.trim()} now.`);
        label.value = "";
        await read();
      });
    };
    return el("form.inline", { onsubmit: attach }, field("Attach a block", label), known, el("button", { type: "submit" }, "Attach"));
  }

  async function detach(label) {
    await remove(["agents", id, "blocks", label]);
    const again = async () => {
      await put(["agents", id, "blocks", label]);
      await read();
    };
    notice(`${id} does not see ${label} any more.`, { action: ["Attach again", () => attempt(again)] });
    await read();
  }

  async function readPrompt() {
    const style = [query.style, STYLE_OF_TYPE.get(agent.agent_type)].find((one) => STYLES.has(one)) ?? "standard";
    const found = await get(["prompt", id], { style }, { signal });
    sizes = new Map(found.blocks.map((one) => [one.label, one.characters]));
    showBlocks();
    const choice = (name) =>
      el("a", { href: address("agents", id, { style: name }), "aria-current": name === style && "true" }, STYLES.get(name));
    fill(
      prompt,
      el("div.bar-of-text", {}, el("h2", {}, "Prompt"), el("nav.segmented", { "aria-label": "Style of the prompt" }, [...STYLES.keys()].map(choice)), el("span.muted", {}, count(found.characters, "character"))),
      el("pre.raw", { tabindex: "0", role: "region", "aria-label": `Prompt of ${id}` }, found.prompt || EMPTY.get(style) || "The prompt is empty."),
    );
  }

  async function editAgent() {
    const inputs = {
      name: el("input", { value: agent.name, autocomplete: "off" }),
      description: el("textarea", { rows: "2", value: agent.description ?? "" }),
      agent_type: el("input", { value: agent.agent_type ?? "", autocomplete: "off", spellcheck: "false" }),
      system: el("textarea", { rows: "4", value: agent.system ?? "" }),
      tags: el("input", { value: tagsText(agent.tags), autocomplete: "off" }),
    };
    const before = agent;
    await ask({
      title: `Properties of ${id}`,
      yes: "Save",
      kept: `agent:${id}`,
      inputs,
      body: [
        field("Name", inputs.name),
        field("Description", inputs.description),
        field("Type", inputs.agent_type, "It decides the style of the prompt: sleeptime_agent, react_agent, workflow_agent, or another."),
        field("System instructions", inputs.system),
        field("Tags", inputs.tags, "With commas between them."),
      ],
      accept: async () => {
        const others = ["name", "description", "agent_type", "system"].map((name) => [name, inputs[name].value.trim() || null]);
        const wanted = { ...Object.fromEntries(others), tags: tagsOf(inputs.tags.value) };
        const changed = Object.entries(wanted).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name] ?? null));
        if (changed.length) await patch(["agents", id], Object.fromEntries(changed));
        await read();
      },
    });
  }

  async function deleteAgent() {
    const own = agent.blocks.filter((label) => label.startsWith(`agents/${id}/`)).length;
    const done = await ask({
      title: `Delete the agent ${id}?`,
      yes: "Delete",
      isDangerous: true,
      body: el("p", {}, own ? `${own === 1 ? "Its private block is" : `Its ${own} private blocks are`} deleted with it; their histories stay. ` : "", "Shared blocks stay, and are detached from it."),
      accept: () => remove(["agents", id]),
    });
    if (!done) return;
    notice(`The agent ${id} is deleted.`);
    go(address("agents"), true);
  }

  const again = later(100, read);
  const onBlock = ({ detail }) => {
    if (detail.label === null || agent?.blocks.includes(detail.label)) again();
  };
  app.store.addEventListener("agents", again, { signal });
  app.store.addEventListener("block", onBlock, { signal });
  app.store.addEventListener("state", () => app.store.isLive && again(), { signal });
  read();
}

// Shows the agents that a block is attached to; attaches and detaches them.

import { attempt, notice } from "./dialogs.js";
import { button, el, field, fill } from "./dom.js";
import { get, put, remove } from "./gateway.js";
import { address } from "./places.js";
import { count } from "./words.js";

const MOST = 500;

/** Show them; return the function that takes a newer block. */
export function showSharing(element, app, block) {
  const { label } = block;
  const agents = el("ul.list");
  const words = el("p.muted");
  const isPrivate = label.startsWith("agents/");
  element.append(words, agents);
  if (app.mayAll && !isPrivate) element.append(attaching());
  show(block.agents);

  function show(ids) {
    fill(words, isPrivate ? "This block is private to its agent." : `${ids.length ? count(ids.length, "agent") : "No agent"} ${ids.length === 1 ? "sees" : "see"} this block in the prompt.`);
    const row = (id) =>
      el(
        "li",
        {},
        el("a", { href: address("agents", id) }, id),
        app.mayAll && !isPrivate && button("Detach", () => attempt(() => detach(id)), "button.quiet", { "aria-label": `Detach ${id}` }),
      );
    fill(agents, ids.slice(0, MOST).map(row), ids.length > MOST && el("li.muted", {}, `and ${ids.length - MOST} more`));
    agents.hidden = !ids.length;
  }

  function attaching() {
    const known = el("datalist", { id: "known-agents" });
    const agent = el("input", { list: "known-agents", required: true, autocomplete: "off", spellcheck: "false" });
    get(["agents"], { limit: 200 }).then(({ items }) => fill(known, items.map((one) => el("option", { value: one.id }))), () => {});
    const attach = async (event) => {
      event.preventDefault();
      await attempt(async () => {
        const done = await put(["agents", agent.value.trim(), "blocks", label]);
        notice(`${agent.value.trim()} sees ${label} now.`);
        agent.value = "";
        show(done.agents);
      });
    };
    return el("form.inline", { onsubmit: attach }, field("Attach an agent", agent), known, el("button", { type: "submit" }, "Attach"));
  }

  async function detach(id) {
    const done = await remove(["agents", id, "blocks", label]);
    notice(`${id} does not see ${label} any more.`, { action: ["Attach again", () => attempt(() => put(["agents", id, "blocks", label]))] });
    show(done.agents);
  }

  return (newer) => newer && show(newer.agents);
}

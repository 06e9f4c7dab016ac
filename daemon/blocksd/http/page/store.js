// Keeps the list of all blocks and problems current, from what the feed announces.

import { get, pages } from "./gateway.js";
import { later } from "./dom.js";

const MOST_SINGLE = 100;
const MOST_CHANGES = 1000;
const PROPERTIES = /^agents\/[^/]+\/agent\.yaml$/;

/**
 * Events: "blocks" (the list), "block" (detail: {label, change}; one block changed or is gone), "agents", "problems",
 * "change" (detail: the change), "state" (live or not), "failed" (detail: the error).
 */
export class Store extends EventTarget {
  blocks = new Map();
  problems = [];
  changes = [];
  isLoaded = false;
  isLive = false;
  #dirty = new Set();
  #busy = null;
  #again = false;

  constructor(feed) {
    super();
    feed.addEventListener("change", ({ detail }) => this.#take(detail));
    feed.addEventListener("reset", ({ detail }) => {
      if (detail) this.#keep(detail);
      this.load();
      this.#tell("block", { label: null });
      this.#tell("agents");
    });
    feed.addEventListener("connected", () => {
      this.isLive = true;
      this.#tell("state");
      this.readProblems();
    });
    feed.addEventListener("lost", () => {
      this.isLive = false;
      this.#tell("state");
    });
  }

  /** Read the whole list. What changes meanwhile is read again after it. */
  async load() {
    if (this.#busy) {
      this.#again = true;
      return this.#busy;
    }
    this.#busy = this.#load().finally(() => (this.#busy = null));
    return this.#busy;
  }

  async #load() {
    do {
      this.#again = false;
      try {
        const first = !this.isLoaded;
        const each = (items) => {
          if (!first) return;
          for (const one of items.slice(this.blocks.size)) this.blocks.set(one.label, one);
          this.#tell("blocks");
        };
        const items = await pages(["blocks"], { templates: true }, { each });
        this.blocks = new Map(items.map((one) => [one.label, one]));
        this.isLoaded = true;
        this.#tell("blocks");
      } catch (error) {
        this.#tell("failed", error);
        return;
      }
    } while (this.#again);
    this.#refresh();
  }

  readProblems = later(150, async () => {
    try {
      this.problems = (await get(["problems"])).items;
      this.#tell("problems");
    } catch (error) {
      this.#tell("failed", error);
    }
  });

  /** Return the problems of a block's file. */
  problemsOf(label) {
    return this.problems.filter((one) => one.label === label || one.subject === `${label}.md`);
  }

  #take(change) {
    this.#keep(change);
    const { kind, label } = change;
    if (kind === "rejected" || kind === "cleared") this.readProblems();
    if (kind === "repaired") {
      for (const one of change.labels ?? []) this.#dirty.add(one);
      this.#tell("agents");
    }
    if (label && PROPERTIES.test(label)) this.#tell("agents");
    else if (label && change.seq) {
      this.#dirty.add(label);
      if (change.from) {
        this.#dirty.add(change.from);
        this.#tell("block", { label: change.from, change });
      }
      this.#tell("block", { label, change });
      if (change.attached?.length || change.detached?.length) this.#tell("agents");
      if (change.reverts?.length) this.readProblems();
    }
    if (this.#dirty.size) this.#soon();
  }

  #keep(change) {
    this.changes.unshift(change);
    this.changes.length = Math.min(this.changes.length, MOST_CHANGES);
    this.#tell("change", change);
  }

  #soon = later(60, () => this.#refresh());

  async #refresh() {
    if (!this.#dirty.size || this.#busy) return;
    const labels = [...this.#dirty];
    this.#dirty.clear();
    if (labels.length > MOST_SINGLE) return this.load();
    await Promise.all(labels.map((label) => this.#read(label)));
    this.#tell("blocks");
  }

  async #read(label) {
    try {
      const { value: _, agents, ...block } = await get(["blocks", label]);
      if (block.label !== label) this.blocks.delete(label);
      else this.blocks.set(label, { ...block, shared_by: agents.length });
    } catch (error) {
      if (error.status === 404) this.blocks.delete(label);
      else this.#tell("failed", error);
    }
  }

  #tell(kind, detail = null) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

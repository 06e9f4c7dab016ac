// Keeps the list of all blocks and problems current, from what the feed announces.

import { get, pages } from "./gateway.js";
import { later } from "./dom.js";

const PATIENCE_SECONDS = 1;
const RETRY_SECONDS = 2;
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
  #refreshing = null;
  #again = false;
  #hasBegun = false;
  #wasLive = false;

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
      // What was read before the first change can be announced may be old.
      if (this.#hasBegun && !this.#wasLive) this.load();
      this.#wasLive = true;
      this.#tell("state");
      this.readProblems();
    });
    feed.addEventListener("lost", () => {
      this.isLive = false;
      this.#tell("state");
    });
  }

  /** Read the list once changes are announced, or without them if that takes long. */
  async begin() {
    const connected = new Promise((resolve) => this.addEventListener("state", resolve, { once: true }));
    const late = new Promise((resolve) => setTimeout(resolve, PATIENCE_SECONDS * 1000));
    if (!this.isLive) await Promise.race([connected, late]);
    this.#hasBegun = true;
    await this.load();
  }

  /** Read the whole list. What changes meanwhile is read again after it. */
  async load() {
    if (this.#busy) {
      this.#again = true;
      return this.#busy;
    }
    this.#busy = this.#load().finally(() => {
      this.#busy = null;
      this.#soon();
    });
    return this.#busy;
  }

  async #load() {
    do {
      this.#again = false;
      await this.#refreshing;
      try {
        const first = !this.isLoaded;
        const each = (items) => {
          if (!first) return;
          for (const one of items.slice(this.blocks.size)) this.blocks.set(one.label, one);
          this.#tell("blocks");
        };
        const items = await pages(["blocks"], { brief: true }, { each });
        this.blocks = new Map(items.map((one) => [one.label, one]));
        this.isLoaded = true;
        this.#tell("blocks");
      } catch (error) {
        this.#failed(error, this.#loadLater);
        return;
      }
    } while (this.#again);
  }

  readProblems = later(150, async () => {
    try {
      this.problems = (await get(["problems"])).items;
      this.#tell("problems");
    } catch (error) {
      this.#failed(error, this.#readProblemsLater);
    }
  });

  #loadLater = later(RETRY_SECONDS * 1000, () => this.load());
  #readProblemsLater = later(RETRY_SECONDS * 1000, () => this.readProblems());

  /** Try again after a failure. Where a token is needed, all is loaded again after signing in. */
  #failed(error, again) {
    this.#tell("failed", error);
    if (error.status !== 401) again();
  }

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

  /** Read again what changed: one round after the other, so that no older answer takes the place of a newer one. */
  #refresh() {
    if (!this.#dirty.size || this.#busy || this.#refreshing) return;
    const labels = [...this.#dirty];
    this.#dirty.clear();
    if (labels.length > MOST_SINGLE) {
      this.load();
      return;
    }
    this.#refreshing = Promise.all(labels.map((label) => this.#read(label))).then(() => {
      this.#refreshing = null;
      this.#tell("blocks");
      if (this.#dirty.size) this.#soon();
    });
  }

  async #read(label) {
    try {
      const { value: _, agents, ...block } = await get(["blocks", label]);
      if (block.label !== label) this.blocks.delete(label);
      else this.blocks.set(label, { ...block, shared_by: agents.length });
    } catch (error) {
      if (error.status === 404) this.blocks.delete(label);
      else this.#failed(error, () => setTimeout(() => (this.#dirty.add(label), this.#soon()), RETRY_SECONDS * 1000));
    }
  }

  #tell(kind, detail = null) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

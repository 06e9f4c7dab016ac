// Follows the changes as server-sent events, and resumes after a lost connection, a restart or sleep.

const TICK_SECONDS = 5;
const ASLEEP_SECONDS = 30;
const HIDDEN_SECONDS = 60;
const LONGEST_WAIT_SECONDS = 10;

/**
 * Events: "change" (detail: the change), "reset" (what was read before may be stale), "connected" and "lost".
 * A browser has few connections for each server, so that a page that nobody looks at closes its stream and resumes later.
 */
export class Feed extends EventTarget {
  #source = null;
  #last = null;
  #wait = 0;
  #timer = null;
  #ticked = Date.now();
  #hidden = null;
  #begun = false;
  #query;
  isLive = false;

  constructor(query = {}, signal = undefined) {
    super();
    this.#query = query;
    this.#open();
    const tick = setInterval(() => this.#tick(), TICK_SECONDS * 1000);
    const how = { signal };
    addEventListener("online", () => this.#again(), how);
    document.addEventListener("visibilitychange", () => this.#look(), how);
    signal?.addEventListener("abort", () => {
      clearInterval(tick);
      this.#close();
    });
  }

  #open() {
    this.#close();
    const text = new URLSearchParams(
      Object.entries({ ...this.#query, last_event_id: this.#last }).filter(([, value]) => value),
    ).toString();
    const source = new EventSource(`/api/changes${text && `?${text}`}`);
    this.#source = source;
    source.addEventListener("open", () => {
      this.#wait = 0;
      this.isLive = true;
      // Without an id there is no place to resume from: changes may have been missed.
      if (this.#begun && this.#last === null) this.#tell("reset");
      this.#begun = true;
      this.#tell("connected");
    });
    source.addEventListener("error", () => {
      this.#lost();
      if (source.readyState === EventSource.CLOSED) this.#retry();
    });
    for (const kind of ["change", "reset"]) {
      source.addEventListener(kind, (event) => {
        if (event.lastEventId) this.#last = event.lastEventId;
        this.#tell(kind, JSON.parse(event.data));
      });
    }
  }

  #close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #lost() {
    if (!this.isLive) return;
    this.isLive = false;
    this.#tell("lost");
  }

  /** A browser gives up on a stream that could not begin: try again, each time later. */
  #retry() {
    this.#close();
    this.#wait = Math.min(LONGEST_WAIT_SECONDS, this.#wait * 2 || 0.5);
    this.#timer = setTimeout(() => this.#open(), this.#wait * 1000);
  }

  #again() {
    if (document.hidden && this.#source === null) return;
    this.#lost();
    this.#open();
  }

  /** A tick that comes late shows that the machine slept; the connection may be dead without a sign. */
  #tick() {
    const late = (Date.now() - this.#ticked) / 1000 - TICK_SECONDS;
    this.#ticked = Date.now();
    if (document.hidden) {
      if (this.#hidden !== null && Date.now() - this.#hidden > HIDDEN_SECONDS * 1000) {
        this.#lost();
        this.#close();
      }
    } else if (late > ASLEEP_SECONDS) {
      this.#again();
    }
  }

  #look() {
    this.#hidden = document.hidden ? Date.now() : null;
    if (!document.hidden && this.#source === null) this.#open();
  }

  #tell(kind, detail = null) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}

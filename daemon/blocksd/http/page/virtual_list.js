// Shows a long list of rows of one height, with only the visible ones in the document.

import { el } from "./dom.js";

const BEYOND = 8;

/**
 * A list in a scrolling element. `draw(row, index, isActive)` returns a row's element; `choose(row)` is called for Enter and clicks;
 * `arrow(row, step)` for left (-1) and right (1), and returns the index to go to or null.
 */
export class VirtualList {
  #rows = [];
  #active = 0;
  #height;
  #drawn = "";

  constructor({ role, label, draw, choose, arrow = () => null }) {
    this.draw = draw;
    this.choose = choose;
    this.arrow = arrow;
    this.inner = el("div.rows", { role: "presentation" });
    this.element = el("div.virtual", { role, "aria-label": label, tabindex: "0" }, this.inner);
    this.element.addEventListener("scroll", () => this.#paint(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("click", (event) => {
      const row = event.target.closest("[data-index]");
      if (row) this.#go(Number(row.dataset.index), true);
    });
    new ResizeObserver(() => this.#paint()).observe(this.element);
  }

  get rows() {
    return this.#rows;
  }

  /** Show these rows. `key(row)` names a row, so that the active one stays active. */
  show(rows, key) {
    const active = this.#rows[this.#active];
    this.#rows = rows;
    const index = active ? rows.findIndex((row) => key(row) === key(active)) : 0;
    this.#active = index < 0 ? Math.min(this.#active, Math.max(0, rows.length - 1)) : index;
    this.#drawn = "";
    this.#paint();
  }

  /** Make the row at this index active, and scroll to it. */
  activate(index) {
    if (index < 0 || index >= this.#rows.length) return;
    this.#active = index;
    const [top, height] = [index * this.#rowHeight(), this.#rowHeight()];
    const box = this.element;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight;
    this.#drawn = "";
    this.#paint();
  }

  #rowHeight() {
    this.#height ??= parseFloat(getComputedStyle(this.element).getPropertyValue("--row")) || 34;
    return this.#height;
  }

  #paint() {
    const height = this.#rowHeight();
    const first = Math.max(0, Math.floor(this.element.scrollTop / height) - BEYOND);
    const last = Math.min(
      this.#rows.length,
      Math.ceil((this.element.scrollTop + this.element.clientHeight) / height) + BEYOND,
    );
    const drawn = `${first}-${last}`;
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    this.inner.style.height = `${this.#rows.length * height}px`;
    const items = [];
    for (let index = first; index < last; index += 1) {
      const item = this.draw(this.#rows[index], index === this.#active);
      item.dataset.index = index;
      item.id = `${this.element.getAttribute("role")}-row-${index}`;
      item.style.top = `${index * height}px`;
      items.push(item);
    }
    this.inner.replaceChildren(...items);
    const shown = this.#active >= first && this.#active < last;
    if (shown) this.element.setAttribute("aria-activedescendant", `${this.element.getAttribute("role")}-row-${this.#active}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  #go(index, isChosen) {
    this.activate(index);
    if (isChosen && this.#rows[index]) this.choose(this.#rows[index]);
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.#rowHeight()) - 1);
    const last = this.#rows.length - 1;
    const row = this.#rows[this.#active];
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -last, End: last };
    if (event.key in steps) this.#go(Math.min(last, Math.max(0, this.#active + steps[event.key])), false);
    else if (event.key === "Enter" || event.key === " ") this.#go(this.#active, true);
    else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && row) {
      const index = this.arrow(row, event.key === "ArrowRight" ? 1 : -1);
      if (index !== null && index >= 0) this.activate(index);
    } else return;
    event.preventDefault();
  }
}

// Shows what differs: lines of a unified diff, and the lines of a text that another text does not have.

import { el } from "./dom.js";

const MOST_CELLS = 4_000_000;

/** Return the element that shows a unified diff. */
export function unified(text) {
  const lines = text.replace(/\n$/, "").split("\n");
  if (!text.trim()) return el("p.muted", {}, "The texts are equal.");
  const kinds = { "+": "added", "-": "removed", "@": "place" };
  const rows = lines
    .filter((line) => !/^(---|\+\+\+) ?/.test(line) || !lines.slice(0, 2).includes(line))
    .map((line) => {
      const kind = kinds[line[0]];
      if (kind === "place") return el("div.place", {}, line);
      const name = { added: "ins", removed: "del" }[kind] ?? "div";
      return el(`${name}.line${kind ? `.${kind}` : ""}`, {}, el("span.sign", { "aria-hidden": "true" }, line[0] ?? " "), line.slice(1) || " ");
    });
  return el("div.diff", { tabindex: "0", role: "region", "aria-label": "Differences" }, rows);
}

/** Return the indexes of the lines of `text` that are not in `other`, by the longest common subsequence of lines. */
function changedLines(text, other) {
  const [mine, theirs] = [text.split("\n"), other.split("\n")];
  let start = 0;
  while (start < mine.length && start < theirs.length && mine[start] === theirs[start]) start += 1;
  let [mineEnd, theirsEnd] = [mine.length, theirs.length];
  while (mineEnd > start && theirsEnd > start && mine[mineEnd - 1] === theirs[theirsEnd - 1]) {
    mineEnd -= 1;
    theirsEnd -= 1;
  }
  const changed = new Set();
  const [rows, columns] = [mineEnd - start, theirsEnd - start];
  if ((rows + 1) * (columns + 1) > MOST_CELLS) {
    for (let line = start; line < mineEnd; line += 1) changed.add(line);
    return changed;
  }
  const width = columns + 1;
  const common = new Uint32Array((rows + 1) * width);
  for (let row = rows - 1; row >= 0; row -= 1) {
    for (let column = columns - 1; column >= 0; column -= 1) {
      common[row * width + column] =
        mine[start + row] === theirs[start + column]
          ? common[(row + 1) * width + column + 1] + 1
          : Math.max(common[(row + 1) * width + column], common[row * width + column + 1]);
    }
  }
  let [row, column] = [0, 0];
  while (row < rows) {
    if (column < columns && mine[start + row] === theirs[start + column]) {
      row += 1;
      column += 1;
    } else if (column < columns && common[row * width + column + 1] >= common[(row + 1) * width + column]) column += 1;
    else {
      changed.add(start + row);
      row += 1;
    }
  }
  return changed;
}

/** Return a text with the lines marked that another text does not have. */
export function marked(text, other, label) {
  const changed = changedLines(text, other);
  const lines = text.split("\n").map((line, index) =>
    changed.has(index) ? el("mark.line", {}, line || " ") : el("div.line", {}, line || " "),
  );
  return el("div.diff", { tabindex: "0", role: "region", "aria-label": label }, lines);
}

// Makes the rows of a tree out of labels: a pure function of blocks, open folders and a search.

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Return true if a block fits all words of a search, in its label, description or tags. `tag:x` wants the tag x. */
function fits(block, words) {
  const text = `${block.label}\n${block.description ?? ""}\n${block.tags.join("\n")}`.toLowerCase();
  return words.every((word) =>
    word.startsWith("tag:") ? block.tags.some((tag) => tag.toLowerCase() === word.slice(4)) : text.includes(word),
  );
}

/**
 * Return rows: {kind: "folder", path, name, depth, count, isOpen} and {kind: "block", path, name, depth, block}. Folders come before blocks.
 * With a search all folders that hold a found block are open. `also` are labels that fit for another reason.
 */
export function rowsOf(blocks, open, search = "", also = new Set()) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const root = { folders: new Map(), blocks: [], count: 0 };
  for (const block of blocks) {
    if (words.length && !fits(block, words) && !also.has(block.label)) continue;
    let place = root;
    const names = block.label.split("/");
    const name = names.pop();
    root.count += 1;
    for (const part of names) {
      if (!place.folders.has(part)) place.folders.set(part, { folders: new Map(), blocks: [], count: 0 });
      place = place.folders.get(part);
      place.count += 1;
    }
    place.blocks.push([name, block]);
  }
  const rows = [];
  const walk = (place, prefix, depth) => {
    const size = place.folders.size + place.blocks.length;
    let position = 0;
    for (const [name, folder] of [...place.folders].sort(([a], [b]) => collator.compare(a, b))) {
      const path = prefix + name;
      const isOpen = words.length > 0 || open.has(path);
      position += 1;
      rows.push({ kind: "folder", path, name, depth, count: folder.count, isOpen, position, size });
      if (isOpen) walk(folder, `${path}/`, depth + 1);
    }
    for (const [name, block] of place.blocks.sort(([a], [b]) => collator.compare(a, b))) {
      position += 1;
      rows.push({ kind: "block", path: block.label, name, depth, block, position, size });
    }
  };
  walk(root, "", 0);
  return { rows, count: root.count };
}

// Renders Markdown as elements: texts become text nodes, HTML stays text, and nothing is loaded from elsewhere.

import { el } from "./dom.js";

const DEEPEST = 12;
const LONGEST = 200_000;
// A text may be made to take long. No expression here has two parts that could share the same characters.
const FENCE = /^ {0,3}(`{3,}(?=[^`]*$)|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})(?: +|$)/;
const RULE = /^ {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?: +|$)/;
const QUOTE = /^ {0,3}> ?(.*)$/s;
const DASHES = /^:?-+:?$/;
const SCHEME = /^(?:https?:\/\/|mailto:)/i;

/** Return the elements of a text. One that is too long to be worth it is shown as it is. */
export function markdown(text) {
  if (text.length > LONGEST) return [el("pre.long", {}, text)];
  const made = blocks(text.replaceAll("\t", "    ").split("\n"), 0);
  // Those who listen to the page go by the levels of headings: a text that leaves one out is heard without a gap.
  const headings = made.flatMap((one) => [one, ...one.querySelectorAll("*")]).filter((one) => /^H\d$/.test(one.tagName));
  let last = 2;
  for (const one of headings) {
    const level = Number(one.tagName[1]);
    last = Math.min(level, last + 1);
    if (last !== level) one.setAttribute("aria-level", last);
  }
  return made;
}

const isBlank = (line) => line.trim() === "";
const opensBlock = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);

function blocks(lines, depth) {
  if (depth > DEEPEST) return [el("p", {}, lines.join("\n"))];
  const made = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (isBlank(line)) {
      at += 1;
      continue;
    }
    const reader = [fence, heading, rule, quote, list, table, indented].find((one) => one.fits(lines, at));
    const [element, next] = (reader ?? paragraph).read(lines, at, depth);
    made.push(element);
    at = next;
  }
  return made;
}

const fence = {
  fits: (lines, at) => FENCE.test(lines[at]),
  read(lines, at) {
    const [, mark] = FENCE.exec(lines[at]);
    let end = at + 1;
    const closes = (line) => line.trim().startsWith(mark) && /^(`+|~+)$/.test(line.trim());
    while (end < lines.length && !closes(lines[end])) end += 1;
    return [code(lines.slice(at + 1, end).join("\n")), end + 1];
  },
};

const code = (text) => el("pre", { tabindex: "0", role: "region", "aria-label": "Code" }, el("code", {}, text));

const heading = {
  fits: (lines, at) => HEADING.test(lines[at]),
  read(lines, at) {
    const [begin, marks] = HEADING.exec(lines[at]);
    const text = lines[at].slice(begin.length).trim();
    let end = text.length;
    while (text[end - 1] === "#") end -= 1;
    const isClosed = end === 0 || text[end - 1] === " ";
    // The page has h1 and h2; those of a text follow.
    return [el(`h${Math.min(6, marks.length + 2)}`, { class: `level-${marks.length}` }, inline(isClosed ? text.slice(0, end).trim() : text)), at + 1];
  },
};

const rule = { fits: (lines, at) => RULE.test(lines[at]), read: (_, at) => [el("hr"), at + 1] };

const quote = {
  fits: (lines, at) => QUOTE.test(lines[at]),
  read(lines, at, depth) {
    const inside = [];
    let end = at;
    for (; end < lines.length && !isBlank(lines[end]); end += 1) {
      const found = QUOTE.exec(lines[end]);
      if (!found && opensBlock(lines[end])) break;
      inside.push(found ? found[1] : lines[end]);
    }
    return [el("blockquote", {}, blocks(inside, depth + 1)), end];
  },
};

const list = {
  fits: (lines, at) => ITEM.test(lines[at]) && !RULE.test(lines[at]),
  read(lines, at, depth) {
    const isOrdered = /\d/.test(ITEM.exec(lines[at])[2]);
    const items = [];
    let [end, isLoose] = [at, false];
    while (end < lines.length) {
      const found = ITEM.exec(lines[end]);
      if (!found || RULE.test(lines[end]) || /\d/.test(found[2]) !== isOrdered) break;
      const indent = found[1].length + found[2].length + 1;
      const inside = [lines[end].slice(found[0].length)];
      end += 1;
      for (; end < lines.length; end += 1) {
        const spaces = lines[end].length - lines[end].trimStart().length;
        if (isBlank(lines[end])) {
          let after = end + 1;
          while (after < lines.length && isBlank(lines[after])) after += 1;
          const next = lines[after];
          if (next === undefined || next.length - next.trimStart().length < Math.min(indent, 2)) break;
          inside.push("");
        } else if (spaces >= Math.min(indent, 2)) inside.push(lines[end].slice(Math.min(spaces, indent)));
        else if (opensBlock(lines[end])) break;
        else inside.push(lines[end]);
      }
      items.push(item(inside, depth));
      let next = end;
      while (next < lines.length && isBlank(lines[next])) next += 1;
      if (next > end && next < lines.length && ITEM.test(lines[next])) {
        isLoose = true;
        end = next;
      }
    }
    const start = isOrdered ? Number.parseInt(ITEM.exec(lines[at])[2], 10) : 1;
    return [el(isOrdered ? "ol" : "ul", { class: isLoose && "loose", start: start !== 1 && start }, items), end];
  },
};

function item(lines, depth) {
  const task = /^\[([ xX])\] (.*)$/s.exec(lines[0]);
  if (task) lines[0] = task[2];
  const inside = blocks(lines, depth + 1);
  // A paragraph at the start of an item is part of its line.
  if (inside[0]?.tagName === "P") inside.splice(0, 1, ...inside[0].childNodes);
  const box = task && el("span.box", { role: "img", "aria-label": task[1] === " " ? "to do" : "done" }, task[1] === " " ? "☐ " : "☑ ");
  return el(task ? "li.task" : "li", {}, box, inside);
}

const cells = (line) =>
  line
    .trim()
    .replace(/^\||(?<!\\)\|$/g, "")
    .split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));

const table = {
  fits(lines, at) {
    if (!lines[at].includes("|") || !lines[at + 1]?.includes("-")) return false;
    const divider = cells(lines[at + 1]);
    return divider.every((cell) => DASHES.test(cell)) && cells(lines[at]).length === divider.length;
  },
  read(lines, at) {
    const head = cells(lines[at]);
    let end = at + 2;
    const rows = [];
    for (; end < lines.length && lines[end].includes("|"); end += 1) rows.push(cells(lines[end]).slice(0, head.length));
    const row = (tag, texts) => el("tr", {}, texts.map((text) => el(tag, {}, inline(text))));
    const made = el("table", {}, el("thead", {}, row("th", head)), el("tbody", {}, rows.map((one) => row("td", one))));
    return [el("div.wide", { tabindex: "0", role: "region", "aria-label": "Table" }, made), end];
  },
};

const indented = {
  fits: (lines, at) => /^ {4}/.test(lines[at]),
  read(lines, at) {
    let end = at;
    while (end < lines.length && (/^ {4}/.test(lines[end]) || isBlank(lines[end]))) end += 1;
    return [code(lines.slice(at, end).map((line) => line.slice(4)).join("\n").trimEnd()), end];
  },
};

const paragraph = {
  read(lines, at) {
    let end = at + 1;
    while (end < lines.length && !isBlank(lines[end]) && !opensBlock(lines[end])) end += 1;
    return [el("p", {}, inline(lines.slice(at, end).map((line) => line.trimStart()).join("\n"))), end];
  },
};

// One alternative for each form, tried at each place in this order. None of them can backtrack far: each excludes its own end,
// and what repeats one character begins where no such character is before.
const INLINE = new RegExp(
  [
    "\\\\(?<escaped>[\\\\`*_{}\\[\\]()#+\\-.!|~<>])",
    "(?<!`)(?<ticks>`+)(?!`)(?<code>[^`]+)\\k<ticks>(?!`)",
    "!?\\[(?<text>[^\\[\\]\\n]*)\\]\\((?<target>[^\\s()]+)(?: +\"[^\"\\n]*\")?\\)",
    "<(?<angle>(?:https?://|mailto:)[^\\s<>]+)>",
    "(?<bare>https?://[^\\s<>()\\[\\]\"'`*]*[^\\s<>()\\[\\]\"'`*.,;:!?])",
    "\\*\\*(?<strong>[^\\s*](?:[^*\\n]|\\*(?!\\*))*)\\*\\*",
    "__(?<strong2>[^\\s_](?:[^_\\n]|_(?!_))*)__(?!\\w)",
    "\\*(?<emphasis>[^\\s*][^*\\n]*)\\*",
    "(?<![\\w])_(?<emphasis2>[^\\s_][^_\\n]*)_(?!\\w)",
    "~~(?<deleted>[^~\\n]+)~~",
    "(?<broken>(?<! ) {2,}\\n|\\\\\\n)",
  ].join("|"),
  "gu",
);

function inline(text, depth = 0) {
  if (depth > 4) return [text];
  const made = [];
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > at) made.push(text.slice(at, found.index));
    made.push(...formed(found, depth + 1));
    at = found.index + found[0].length;
  }
  if (at < text.length) made.push(text.slice(at));
  return made;
}

function formed(found, depth) {
  const { groups } = found;
  if (groups.escaped !== undefined) return [groups.escaped];
  if (groups.code !== undefined) return [el("code", {}, groups.code.trim())];
  if (groups.target !== undefined) return [link(groups.target, groups.text || groups.target, found[0], depth)];
  if (groups.angle !== undefined) return [link(groups.angle, groups.angle, found[0], depth)];
  if (groups.bare !== undefined) return [link(groups.bare, groups.bare, found[0], 9)];
  const strong = groups.strong ?? groups.strong2;
  if (strong !== undefined) return [el("strong", {}, inline(strong, depth))];
  const emphasis = groups.emphasis ?? groups.emphasis2;
  if (emphasis !== undefined) return [el("em", {}, inline(emphasis, depth))];
  if (groups.deleted !== undefined) return [el("del", {}, inline(groups.deleted, depth))];
  return [el("br")];
}

/** Return a link to another site, which opens in another tab; a target of another kind stays text. Pictures become links. */
function link(target, text, raw, depth) {
  if (!SCHEME.test(target)) return raw;
  const words = depth > 4 ? [text] : inline(text, 4);
  return el("a", { href: target, target: "_blank", rel: "noopener noreferrer nofollow" }, words);
}

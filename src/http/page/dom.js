// Elements made from parts and changed in place. What did not change is not touched, so focus, open
// details and a selection survive each refresh. Text goes in as text: nothing here can make markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element of the shell with that id. */
export const byId = (id) => document.getElementById(id);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) attribute(node, name, value);
  node.append(...children);
  return node;
}

/** An HTML element; children are elements or text. */
export const element = (name, attributes = {}, ...children) =>
  build(document.createElement(name), attributes, children);

/** The same of SVG. */
export const drawing = (name, attributes = {}, ...children) =>
  build(document.createElementNS(SVG, name), attributes, children);

/** Sets an attribute, or takes it away where the value is null or false. */
export function attribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else {
    const text = value === true ? "" : String(value);
    if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

/** Sets an element's whole text; its text node stays the same one. */
export function say(node, value) {
  const text = String(value);
  const first = node.firstChild;
  if (first && first === node.lastChild && first.nodeType === Node.TEXT_NODE) {
    if (first.data !== text) first.data = text;
  } else if (node.textContent !== text || first) {
    node.textContent = text;
  }
}

/** Shows or hides. */
export const show = (node, shown) => attribute(node, "hidden", !shown);

const kept = new WeakMap();

/**
 * The children of `parent` that belong to `items`, one each, in their order. A child stays with its
 * key: `make(item)` gives a new one as { node, ... }, `update(parts, item)` brings one up to date.
 */
export function keyed(parent, items, keyOf, make, update) {
  // Children come behind what the shell has there, such as a table's head.
  const { known, head } = kept.get(parent) ?? { known: new Map(), head: parent.lastElementChild };
  const now = new Map(items.map((item) => [keyOf(item), item]));
  // First out with the old: then those that stay need not be moved, and a focus is not lost.
  for (const [key, parts] of known) if (!now.has(key)) parts.node.remove();
  let before = head;
  for (const [key, item] of now) {
    const parts = known.get(key) ?? make(item);
    now.set(key, parts);
    update(parts, item);
    const place = before ? before.nextElementSibling : parent.firstElementChild;
    if (parts.node !== place) parent.insertBefore(parts.node, place);
    before = parts.node;
  }
  kept.set(parent, { known: now, head });
}

// Elements of the page. Data only ever becomes text or a property, never markup.

/** Nodes and texts out of lists of lists, without the empty ones. */
export const kept = (children) => [children].flat(Infinity).filter((child) => child !== undefined && child !== null && child !== "");

/** An element with properties, `data-*` and `aria-*` among them, and children: nodes, texts, lists of them, or nothing. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (key.includes("-")) made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...kept(children));
  return made;
}

const UNSEEN = /[\p{Cc}\p{Cs}\p{Bidi_Control}\u2028\u2029\u200b\u2060\ufeff]/u;
const ALL_UNSEEN = new RegExp(UNSEEN, "gu");

/** A character that shows nothing, or turns round what follows it, as JSON would escape it. */
const escapedOne = (one) => [...Array(one.length).keys()].map((at) => `\\u${one.charCodeAt(at).toString(16).padStart(4, "0")}`).join("");

/** A text with its control characters escaped, so that they can be seen. */
export const escaped = (text) => text.replace(ALL_UNSEEN, escapedOne);

/** A session's title as plain text; one in which there is nothing to see is told as none. */
export const titled = (title) => (/[^\s\u2800\p{Default_Ignorable_Code_Point}]/u.test(title ?? "") ? escaped(title) : "(no title)");

/** A session's title, its escapes marked, and its direction its own. */
export function titleOf(title) {
  if (titled(title) === "(no title)") return element("span", { className: "untitled" }, "(no title)");
  return element("bdi", {}, [...title].map((one) => (UNSEEN.test(one) ? element("code", { className: "escape" }, escapedOne(one)) : one)));
}

/** A line of described text: `code` between backticks, *stress* between stars. */
export const worded = (text) => text.split(/(`[^`]+`|\*\w[^*]*\*)/).map((part, at) =>
  (at % 2 ? element(part[0] === "`" ? "code" : "em", {}, part.slice(1, -1)) : part));

/** A described text: paragraphs at empty lines. */
export function prose(text) {
  return (text ?? "").split(/\n\s*\n/).filter(Boolean).map((paragraph) => element("p", {}, worded(paragraph)));
}

/** What unfolds; it is drawn when it is first opened. */
export function unfolding(title, draw, open = false) {
  const made = element("details", { open }, element("summary", {}, title));
  const fill = () => made.open && made.childElementCount === 1 && made.append(...kept(draw()));
  made.addEventListener("toggle", fill);
  fill();
  return made;
}

/** A button that copies what `text()` says, or selects `shown` where the browser keeps the clipboard closed. */
export function copier(text, shown) {
  const button = element("button", { type: "button", className: "small" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(shown);
      button.textContent = "Selected: copy it by key";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}

/** A method, a status: a word on a coloured ground. */
export const badge = (text, sort) => element("span", { className: `badge ${sort}` }, text);

/** The colour a status has: `good`, `moved`, `refused` or `failed`. */
export const sortOf = (status) => ["good", "good", "good", "moved", "refused", "failed"][Math.floor(Number(status) / 100)] ?? "moved";

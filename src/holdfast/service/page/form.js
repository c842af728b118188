// The form of one operation: a field for each parameter, an editor for the body.

import { element, kept, prose, titleOf } from "./element.js";
import { calledOf, isSession, recall, remember, tagOf } from "./memory.js";
import { requestOf } from "./request.js";
import { bareOf, boundsOf, examplesOf, isFile, resolve, typeOf } from "./schema.js";

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? "");

const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** The control that a schema asks for. */
function control(schema, properties) {
  const whole = bareOf(schema);
  const values = whole.enum ?? (whole.type === "boolean" ? [true, false] : undefined);
  if (values) return element("select", properties, element("option", { value: "" }, "—"), values.map((one) => element("option", {}, String(one))));
  if (isFile(schema)) return element("input", { ...properties, type: "file" });
  return element("input", { ...properties, type: "text", autocomplete: "off", spellcheck: false });
}

/** What is said of a field. */
const aboutOf = (description, ...facts) => element("div", { className: "about" }, prose(description), element("p", { className: "quiet" }, facts.filter(Boolean).join(" · ")));

/** A labelled row of the form. */
function row(id, name, required, about, ...controls) {
  const label = element("label", { htmlFor: id }, element("code", {}, name), required ? element("span", { className: "must" }, " required") : "");
  return element("div", { className: "row" }, label, element("div", { className: "controls" }, controls), about);
}

/** The field of one parameter; `[row, input]`. */
function field(operation, parameter, at, address) {
  const id = `field-${at}`;
  const schema = parameter.schema ?? {};
  const name = parameter.name.toLowerCase();
  // OpenAPI calls the header optional, because its absence has an answer of its own: the refusal with 428.
  const must = parameter.required || (name === "if-match" && operation.needsTag);
  const input = control(schema, { id, required: must });
  const example = parameter.example ?? Object.values(parameter.examples ?? {})[0]?.value ?? schema.examples?.[0];
  if (input.tagName === "INPUT" && example !== undefined) input.placeholder = `such as ${text(example)}`;
  if (parameter.in === "path") input.value = recall(operation, parameter.name);
  const beside = [];
  if (name === "idempotency-key") {
    const fresh = element("button", { type: "button", className: "small" }, "New");
    fresh.addEventListener("click", () => (input.value = newKey()));
    beside.push(fresh);
  }
  if (name === "if-match") {
    const offer = element("button", { type: "button", className: "small" });
    offer.addEventListener("click", () => (input.value = input.dataset.offered = tagOf(address())));
    // What the field was given goes along with the session; what somebody typed stays.
    input.follow = () => {
      const tag = tagOf(address());
      if (input.value === (input.dataset.offered ?? "")) input.value = input.dataset.offered = tag;
      offer.hidden = !tag || input.value === tag;
      offer.textContent = `Last seen: ${tag}`;
    };
    beside.push(offer);
  }
  if (parameter.in === "path" && isSession(operation, parameter.name)) {
    const called = element("span", { className: "called", id: `${id}-called` });
    input.setAttribute("aria-describedby", called.id);
    input.follow = () => {
      const title = calledOf(input.value);
      called.replaceChildren(...(title === undefined ? [] : [titleOf(title)]));
    };
    beside.push(called);
  }
  const about = aboutOf(parameter.description ?? schema.description, parameter.in, typeOf(schema).replace(" | null", ""), boundsOf(schema));
  return [row(id, parameter.name, must, about, input, beside), input];
}

/** The editor of one media type: `{ shown, read }`. */
function editor(media, content) {
  if (media === "multipart/form-data") {
    const schema = resolve(content.schema);
    const inputs = Object.entries(schema.properties ?? {}).map(([name, one], at) => {
      const input = control(one, { id: `part-${at}` });
      const required = schema.required?.includes(name);
      return { name, input, shown: row(input.id, name, required, aboutOf(one.description, isFile(one) ? "a file" : typeOf(one), boundsOf(one)), input) };
    });
    const valuesOf = (input) => [...(input.files ?? [input.value])].filter((one) => one !== "");
    const read = () => ({ media, parts: inputs.flatMap(({ name, input }) => valuesOf(input).map((one) => [name, one])) });
    return { shown: inputs.map((one) => one.shown), read };
  }
  const examples = Object.entries(examplesOf(content));
  const area = element("textarea", { className: "body", spellcheck: false, "aria-label": `Body, ${media}` });
  const fill = (value) => {
    area.value = text(value);
    area.rows = Math.min(24, Math.max(4, area.value.split("\n").length + 1));
  };
  fill(examples[0]?.[1]);
  const warning = element("p", { className: "quiet", id: "example" }, "This is an example to begin with: the keys and names in it need not be in your session.");
  area.setAttribute("aria-describedby", warning.id);
  const choice = element("select", { "aria-label": "Example" }, examples.map(([name]) => element("option", {}, name)));
  choice.addEventListener("change", () => fill(examples[choice.selectedIndex][1]));
  return { shown: [examples.length > 1 ? choice : "", examples.length ? warning : "", area], read: () => ({ media, text: area.value }) };
}

/** The form of an operation: `{ parts, read, settle }`; `settle()` brings the fields up to date after an answer. */
export function formOf(operation) {
  const fields = [];
  const read = () => requestOf(operation, fields.map(([parameter, input]) => [parameter, input.value]), body?.read());
  const address = () => requestOf(operation, fields.map(([parameter, input]) => [parameter, input.value])).address.pathname;
  const rows = operation.parameters.map((parameter, at) => {
    const [shown, input] = field(operation, parameter, at, address);
    fields.push([parameter, input]);
    return shown;
  });
  const settle = () => {
    for (const [parameter, input] of fields) {
      if (parameter.in === "path") remember(operation, parameter.name, input.value);
      input.follow?.();
    }
  };
  const parts = rows.length ? [element("fieldset", {}, element("legend", {}, "Parameters"), rows)] : [];
  let body;
  const media = Object.keys(operation.bodies);
  if (media.length) {
    const place = element("div", { className: "editor" });
    const choice = element("select", { "aria-label": "Media type" }, media.map((one) => element("option", {}, one)));
    const none = "no body";
    if (!operation.bodyRequired) choice.append(element("option", {}, none));
    const draw = () => {
      body = choice.value === none ? undefined : editor(choice.value, operation.bodies[choice.value]);
      place.replaceChildren(...kept(body?.shown));
    };
    choice.addEventListener("change", draw);
    draw();
    parts.push(element("fieldset", {}, element("legend", {}, "Body"), choice, place));
  }
  settle();
  return { parts, read, settle };
}

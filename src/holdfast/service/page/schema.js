// JSON Schemas of the OpenAPI document: their references, an example of each, and how one reads when it is unfolded.

import { element, prose, unfolding } from "./element.js";

let whole = {};

/** Read references in this document from now on. */
export const readFrom = (document) => (whole = document);

/** What a reference stands for; anything else is itself. */
export function resolve(value) {
  for (let step = 0; value?.$ref && step < 20; step += 1) {
    const path = value.$ref.slice(2).split("/").map((part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~"));
    value = path.reduce((at, part) => at?.[part], whole);
  }
  return value ?? {};
}

const choices = (schema) => schema.oneOf ?? schema.anyOf ?? [];

/** An example of a schema: its own if it gives one, else one made of its parts. */
export function exampleOf(given, depth = 0) {
  const schema = resolve(given);
  for (const known of [schema.example, schema.examples?.[0], given.default, schema.default, schema.const, schema.enum?.[0]]) {
    if (known !== undefined) return known;
  }
  if (depth > 5) return null;
  const choice = choices(schema).find((one) => resolve(one).type !== "null");
  if (choice && !schema.properties) return exampleOf(choice, depth + 1);
  const type = [schema.type].flat()[0];
  if (schema.properties) {
    const wanted = Object.entries(schema.properties).filter(([name]) => !schema.required?.length || schema.required.includes(name));
    return Object.fromEntries(wanted.map(([name, one]) => [name, exampleOf(one, depth + 1)]));
  }
  if (type === "array") return schema.items ? [exampleOf(schema.items, depth + 1)] : [];
  if (type === "string") return schema.format === "date-time" ? "2027-01-31T12:00:00Z" : "text";
  return { integer: schema.minimum ?? 1, number: schema.minimum ?? 1, boolean: true, object: {} }[type] ?? null;
}

/** The examples of a parameter or a media type, by name; one made from its schema where it gives none. */
export function examplesOf(holder) {
  if (holder.example !== undefined) return { example: holder.example };
  const named = Object.entries(holder.examples ?? {}).map(([name, one]) => [resolve(one).summary ?? name, resolve(one).value]);
  if (named.length) return Object.fromEntries(named);
  return holder.schema ? { example: exampleOf(holder.schema) } : {};
}

/** What may be left out or null, without the null. */
export function bareOf(given) {
  const some = choices(resolve(given)).filter((one) => resolve(one).type !== "null");
  return resolve(some.length === 1 ? some[0] : given);
}

/** Whether a schema is that of a file's bytes. */
export const isFile = (given) => bareOf(given).format === "binary";

/** A schema's type in a few words. */
export function typeOf(given) {
  const schema = resolve(given);
  const named = given.$ref?.split("/").pop();
  if (named) return named;
  if (schema.properties && schema.title) return schema.title;
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (choices(schema).length) return [...new Set(choices(schema).map(typeOf))].join(" | ");
  if (schema.type === "array") return schema.items ? `list of ${typeOf(schema.items)}` : "list";
  if (schema.additionalProperties?.type ?? schema.additionalProperties?.$ref) return `map of ${typeOf(schema.additionalProperties)}`;
  return [schema.type ?? "anything"].flat().join(" | ") + (schema.format ? ` (${schema.format})` : "");
}

const BOUNDS = {
  minimum: "at least", maximum: "at most", pattern: "matches",
  minLength: "length at least", maxLength: "length at most", minItems: "entries at least", maxItems: "entries at most", default: "without it",
};

/** The bounds a schema sets, in words; one that JavaScript cannot count to is none. */
export function boundsOf(given) {
  const schemas = [given, resolve(given), ...choices(resolve(given)).map(resolve)];
  const said = Object.entries(BOUNDS).map(([name, words]) => {
    const value = schemas.map((one) => one[name]).find((one) => one !== undefined && one !== null);
    if (value === undefined || value > Number.MAX_SAFE_INTEGER) return "";
    return `${words} ${name === "pattern" ? value : JSON.stringify(value)}`;
  });
  return said.filter(Boolean).join(", ");
}

/** The schemas named by one: what can be unfolded below it. */
function within(given) {
  const schema = given.$ref ? given : resolve(given);
  if (schema.$ref || schema.properties) return [schema];
  const parts = [...choices(schema), schema.items, schema.additionalProperties];
  return parts.filter((part) => part && typeof part === "object").flatMap(within);
}

/** How a schema reads: its properties in rows, what they name to be unfolded in turn. */
export function drawn(given) {
  const schema = resolve(given);
  const rows = Object.entries(schema.properties ?? {}).map(([name, one]) => element("li", {},
    element("code", {}, name), " ", element("span", { className: "type" }, typeOf(one)),
    schema.required?.includes(name) ? element("span", { className: "quiet" }, " required") : "",
    boundsOf(one) ? element("span", { className: "quiet" }, ` · ${boundsOf(one)}`) : "",
    prose(resolve(one).description), within(one).map(unfolded)));
  const below = rows.length ? [] : within({ ...schema, $ref: undefined }).map(unfolded);
  const plain = rows.length || below.length ? "" : element("p", { className: "quiet" }, [typeOf(schema), boundsOf(schema)].filter(Boolean).join(" · "));
  return [prose(schema.description), rows.length ? element("ul", { className: "schema" }, rows) : "", plain, below];
}

/** A schema behind its name. */
export const unfolded = (given) => unfolding(typeOf(given), () => drawn(given));

// What both pages use. Every address is relative, so that a tunnel or a prefix changes nothing.

export const byId = (id) => document.getElementById(id);

export async function getJson(address) {
  const answer = await fetch(address, { credentials: "same-origin" });
  if (answer.ok) return answer.json();
  const said = await answer.json().catch(() => ({ error: `HTTP ${answer.status}` }));
  throw new Error(said.error);
}

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function say(text) {
  const message = byId("message");
  message.textContent = text ?? "";
  message.hidden = !text;
}

export const REASONS = {
  NOT_FOUND: "The slide's file is not where the manifest says.",
  DAMAGED: "A part of this slide is damaged and cannot be shown.",
  NOT_HERE: "There is no such slide; the viewer was started anew. Go back to the list.",
  InputError: "There is no map of this slide: no model of the run has tested its patient.",
  BagFormatError: "There is no usable feature bag of this slide, so there is no map.",
};

export const explain = (error) => REASONS[error.message] ?? `This cannot be shown (${error.message}).`;

export const days = (value) => (value === null ? "" : value < 730 ? `${Math.round(value)} d` : `${(value / 365.25).toFixed(1)} y`);
export const outcome = (event) => (event === null ? "" : event ? "event" : "censored");
export const signed = (value) => (value === null ? "" : `${value >= 0 ? "+" : "\u2212"}${Math.abs(value).toFixed(2)}`);
export const isTyping = (target) => target.matches("input:not([type=range]):not([type=checkbox]), textarea");

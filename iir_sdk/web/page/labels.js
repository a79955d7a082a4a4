// Labels: chips with colours, the chosen one is painted; keys 1 to 9.

import { $, failed, make, toast, under } from "./elements.js";
import { label, on, project, tell, view } from "./project.js";
import { change } from "./server.js";

const COLOURS = ["#18a8f5", "#ff5470", "#2ec27e", "#f5a524", "#9b5de5", "#00b8a9", "#f15bb5", "#a3c614", "#ff7f3f", "#5b7cfa"];
const UNNAMED = "thing";

let naming = null;
let edited = null;

/** The label that strokes go to; made by the first stroke where there is none, and never twice. */
export function labelForStroke() {
  if (label()) return Promise.resolve(label());
  if (naming) return naming;
  const typed = $("labels").querySelector("input")?.value.trim();
  if (!typed) toast(`It is called “${UNNAMED}” for now: click that name above to change it.`);
  return named(typed || UNNAMED);
}

/** The label of a name, made where there is none; one after another. */
function named(name) {
  const made = (naming ?? Promise.resolve()).catch(() => {}).then(() => project.labels.find((one) => one.name === name) ?? add(name));
  const end = () => { if (naming === made) naming = null; };
  made.then(end, end);
  naming = made;
  return made;
}

/** The colour that the next label gets. */
export const nextColour = () => COLOURS.find((colour) => !project.labels.some((one) => one.color.toLowerCase() === colour))
  ?? COLOURS[project.labels.length % COLOURS.length];

async function add(name) {
  const made = { name, color: nextColour(), supports: 0, counterexamples: 0 };
  await change("POST", "labels", { name, color: made.color });
  if (!project.labels.some((one) => one.name === name)) project.labels.push(made);
  view.label = project.labels.findIndex((one) => one.name === name);
  tell("project");
  return label();
}

export function choose(index) {
  if (index >= project.labels.length) return;
  view.label = index;
  tell("project");
}

function nameField(isFirst) {
  const field = make("input", { type: "text", className: "label-field", maxLength: 60, autocomplete: "off", spellcheck: false,
    placeholder: isFirst ? "Name it, e.g. leaf" : "Name", "aria-label": "Name of a new label" });
  let left = false;
  const leave = async (keep) => {
    if (left) return;
    left = true;
    const name = field.value.trim();
    if (keep && name) await named(name).catch(failed);
    adding = false;
    fill(true);
  };
  field.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter") leave(true);
    else if (event.key === "Escape") { field.value = ""; leave(false); }
  });
  field.addEventListener("blur", () => leave(true));
  return field;
}

let adding = false;

function fill(anew = false) {
  const bar = $("labels");
  if (!anew && bar.querySelector("input") && bar.contains(document.activeElement) && !project.labels.length) return;
  if (!anew && adding) return;
  const focused = bar.contains(document.activeElement) ? document.activeElement.dataset.index : null;
  bar.replaceChildren(...project.labels.map(chip));
  if (!project.labels.length) bar.append(nameField(true));
  else bar.append(plus());
  if (focused !== null) bar.querySelector(`[data-index="${focused}"]`)?.focus();
}

function plus() {
  const button = make("button", { className: "chip plus", title: "Another label", "aria-label": "Another label", textContent: "+" });
  button.addEventListener("click", () => {
    adding = true;
    const field = nameField(false);
    button.replaceWith(field);
    field.focus();
  });
  return button;
}

function chip(one, index) {
  const dot = make("span", { className: "dot" });
  dot.style.background = one.color;
  const chosen = one === label();
  const button = make("button", { className: "chip", "aria-pressed": String(chosen), data: { index },
    title: `${one.name}${index < 9 ? ` (${index + 1})` : ""}. ${chosen ? "Click" : "Double-click"} to rename or delete` }, dot, make("span", { className: "chip-name", textContent: one.name }));
  button.addEventListener("click", () => (chosen ? edit(one, button) : choose(index)));
  button.addEventListener("dblclick", () => edit(one, button));
  button.addEventListener("contextmenu", (event) => { event.preventDefault(); edit(one, button); });
  button.addEventListener("keydown", (event) => { if (event.key === "F2" || event.key === "Delete") edit(one, button); });
  return button;
}

function edit(one, button) {
  edited = one;
  $("label-name").value = one.name;
  $("label-colours").replaceChildren(...COLOURS.map((colour) => {
    const dot = make("span", { className: "dot" });
    dot.style.background = colour;
    return make("label", { className: "swatch" },
      make("input", { type: "radio", name: "label-colour", value: colour, checked: colour === one.color.toLowerCase(), "aria-label": colour }), dot);
  }));
  $("label-panel").showPopover();
  under($("label-panel"), button, true);
  $("label-name").select();
  $("label-name").focus();
}

async function save() {
  const name = $("label-name").value.trim();
  const color = document.querySelector("[name=label-colour]:checked")?.value ?? edited.color;
  $("label-panel").hidePopover();
  if (!name || (name === edited.name && color === edited.color)) return;
  await change("PATCH", `labels/${encodeURIComponent(edited.name)}`, { name, color });
  Object.assign(edited, { name, color });
  tell("project");
}

async function remove() {
  const { name } = edited;
  $("label-panel").hidePopover();
  await change("DELETE", `labels/${encodeURIComponent(name)}`);
  project.labels = project.labels.filter((one) => one.name !== name);
  view.label = 0;
  tell("project");
  toast(`“${name}” deleted. Ctrl+Z brings it back.`);
}

export function startLabels() {
  on("project", () => fill());
  $("label-form").addEventListener("submit", (event) => { event.preventDefault(); save().catch(failed); });
  $("label-delete").addEventListener("click", () => remove().catch(failed));
  fill();
}

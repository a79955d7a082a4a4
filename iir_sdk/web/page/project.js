// What the page knows of the project: labels, settings, and a record of every picture, sorted and filtered here.

import { ask } from "./server.js";

const CHUNK = 500;

export const project = { name: "", labels: [], counts: {}, settings: {}, progress: null, can_undo: false, can_redo: false };
export const pictures = new Map();
export const view = { order: "least_sure", filter: "all", label: 0, opacity: 0.45, outline: true, masks: true, thumb: 180 };

const listeners = { project: new Set(), picture: new Set(), list: new Set(), progress: new Set(), view: new Set() };

export const on = (kind, listener) => listeners[kind].add(listener);
export const tell = (kind, what) => listeners[kind].forEach((listener) => listener(what));

export const FILTERS = [
  ["all", "All", () => true],
  ["open", "To check", (picture) => picture.status === "predicted" || picture.status === "waiting"],
  ["accepted", "Accepted", (picture) => picture.status === "accepted"],
  ["rejected", "Rejected", (picture) => picture.status === "rejected"],
  ["broken", "Broken", (picture) => picture.status === "broken"],
];

export const isOpen = FILTERS[1][2];

const COLLATOR = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
const byName = (a, b) => COLLATOR.compare(a.name, b.name);
const RANK = { predicted: 0, waiting: 1, accepted: 2, rejected: 3, broken: 4 };
const ORDERS = {
  name: byName,
  status: (a, b) => RANK[a.status] - RANK[b.status] || byName(a, b),
  // What is decided needs no look: it follows what does not.
  least_sure: (a, b) => RANK[a.status] - RANK[b.status] || (a.certainty ?? 2) - (b.certainty ?? 2) || byName(a, b),
};

/** Ids as filtered and sorted now. */
export function sorted(order = view.order, filter = view.filter) {
  const keep = FILTERS.find(([name]) => name === filter)[2];
  return [...pictures.values()].filter(keep).sort(ORDERS[order]).map((picture) => picture.id);
}

export const leastSureFirst = (a, b) => ORDERS.least_sure(pictures.get(a), pictures.get(b));

export const countOf = (filter) => {
  const keep = FILTERS.find(([name]) => name === filter)[2];
  let count = 0;
  for (const picture of pictures.values()) if (keep(picture)) count += 1;
  return count;
};

export const label = () => project.labels[Math.min(view.label, project.labels.length - 1)] ?? null;

/** Whether anything has been shown to the network yet. */
export const isTaught = () => project.labels.some((one) => one.supports > 0);

/** Changes whenever masks would be drawn differently though their version is the same. */
export function look() {
  const said = JSON.stringify([project.settings, project.labels.map(({ name, color }) => [name, color])]);
  let hash = 7;
  for (let i = 0; i < said.length; i++) hash = (hash * 31 + said.charCodeAt(i)) | 0;
  return (hash >>> 0).toString(36);
}

export const hasMask = (picture) => picture.status !== "waiting" && picture.status !== "broken" && Boolean(picture.version);

export function hearProject(data) {
  Object.assign(project, data);
  tell("project");
  if (data.progress) tell("progress", data.progress);
}

export function hearPicture(record) {
  const isNew = !pictures.has(record.id);
  pictures.set(record.id, { ...pictures.get(record.id), ...record });
  tell(isNew ? "list" : "picture", record.id);
}

/** Everything anew: at the start, and whenever events may have been missed. */
export async function load() {
  hearProject(await ask("GET", "project"));
  const present = new Set();
  for (let offset = 0; ; offset += CHUNK) {
    const { total, pictures: records } = await ask("GET", `pictures?order=name&offset=${offset}&limit=${CHUNK}`);
    for (const record of records) {
      present.add(record.id);
      pictures.set(record.id, record);
    }
    if (offset === 0 || offset + CHUNK >= total) tell("list");
    if (!records.length || offset + CHUNK >= total) break;
  }
  for (const id of [...pictures.keys()]) if (!present.has(id)) pictures.delete(id);
  tell("list");
}

const STORED = "iir-sdk-view";

export function restoreView() {
  try {
    const stored = JSON.parse(localStorage.getItem(STORED) ?? "{}");
    for (const key of ["opacity", "outline", "thumb"]) if (key in stored) view[key] = stored[key];
  } catch { /* A browser that keeps nothing starts with what is usual. */ }
}

export function storeView() {
  try {
    localStorage.setItem(STORED, JSON.stringify({ opacity: view.opacity, outline: view.outline, thumb: view.thumb }));
  } catch { /* As above. */ }
}

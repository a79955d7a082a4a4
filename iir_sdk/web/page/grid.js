// The overview: a grid of thumbnails of which only those in sight exist, so that thousands stay quick.

import { $, icon, later, make, seldom } from "./elements.js";
import { FILTERS, countOf, hasMask, isTaught, look, on, pictures, sorted, view } from "./project.js";
import { ask, maskUrl, pictureUrl } from "./server.js";

const CAPTION = 30;
const GAP = 14;
const EDGE = 16;
const EXTRA_ROWS = 2;

let ids = [];
let tiles = new Map();
let layout = { columns: 1, width: 100, height: 100, row: 130 };
let shape = null;
let focused = 0;
let openPicture = () => {};

const STATES = { accepted: "Accepted", rejected: "Rejected", broken: "Cannot be read", waiting: "Waiting", predicted: "To check" };

export const stateName = (picture) => STATES[picture.status] ?? picture.status;

/** A picture with its mask above it; both fill the same rectangle, whatever its shape. */
export function thumbnail(picture) {
  const box = make("span", { className: "thumb" });
  updateMask(box, picture);
  return box;
}

function showImage(box, picture) {
  const image = make("img", { alt: "", loading: "lazy", decoding: "async", draggable: false, src: pictureUrl(picture.id, "thumbnail") });
  image.onload = () => image.classList.add("loaded");
  box.replaceChildren(image, make("img", { alt: "", className: "thumb-mask", decoding: "async", draggable: false, hidden: true }));
}

/** Nothing can be shown: the tile says so itself. */
function showBroken(box) {
  if (!box.querySelector(".broken")) box.replaceChildren(make("span", { className: "broken" }, icon("broken"), make("span", { textContent: STATES.broken })));
}

/** The newest mask, swapped in when it is decoded: the old one stays until then, nothing blinks. */
export async function updateMask(box, picture) {
  if (picture.status === "broken") { showBroken(box); return; }
  if (!box.querySelector(".thumb-mask")) showImage(box, picture);
  const mask = box.querySelector(".thumb-mask");
  const address = hasMask(picture) && view.masks ? maskUrl(picture, "thumb", look()) : "";
  if (mask.dataset.address === address) return;
  mask.dataset.address = address;
  if (!address) { mask.hidden = true; return; }
  const next = new Image();
  next.src = address;
  try {
    await next.decode();
  } catch {
    if (mask.dataset.address === address) delete mask.dataset.address;
    return;
  }
  if (mask.dataset.address !== address) return;
  mask.src = address;
  mask.hidden = false;
}

function measure() {
  const grid = $("grid");
  // The scroll bar lies within the right edge, so that tiles end where all else does.
  const room = grid.clientWidth - EDGE - Math.max(0, EDGE - (grid.offsetWidth - grid.clientWidth));
  const columns = Math.max(2, Math.floor((room + GAP) / (view.thumb + GAP)));
  const width = Math.floor((room - GAP * (columns - 1)) / columns);
  const height = Math.round(width / (shape ?? 4 / 3));
  layout = { columns, width, height, row: height + CAPTION + GAP };
  $("grid-space").style.height = `${Math.ceil(ids.length / columns) * layout.row + GAP}px`;
}

/** Tiles have the shape that most pictures have. */
function commonShape() {
  const shapes = [];
  for (const picture of pictures.values()) if (picture.width && picture.height) shapes.push(picture.width / picture.height);
  if (!shapes.length) return null;
  shapes.sort((a, b) => a - b);
  return Math.min(1.6, Math.max(0.75, shapes[shapes.length >> 1]));
}

const tellVisible = later(150, () => {
  const inSight = [...tiles.values()].filter((tile) => tile.inSight).map((tile) => tile.id);
  if (inSight.length && !$("overview").hidden) ask("POST", "visible", { ids: inSight }).catch(() => {});
});

function draw() {
  const grid = $("grid");
  if ($("overview").hidden || !grid.clientHeight) return;
  const first = Math.floor(grid.scrollTop / layout.row);
  const rows = Math.ceil(grid.clientHeight / layout.row) + 1;
  const from = Math.max(0, (first - EXTRA_ROWS) * layout.columns);
  const to = Math.min(ids.length, (first + rows + EXTRA_ROWS) * layout.columns);
  const wanted = new Map();
  for (let i = from; i < to; i++) wanted.set(ids[i], i);
  if (focused < ids.length) wanted.set(ids[focused], focused);
  for (const [id, tile] of tiles) if (!wanted.has(id)) { tile.element.remove(); tiles.delete(id); }
  for (const [id, index] of wanted) {
    let tile = tiles.get(id);
    if (!tile) {
      tile = newTile(id);
      tiles.set(id, tile);
      $("grid-space").append(tile.element);
    }
    place(tile, index);
    const row = Math.floor(index / layout.columns);
    tile.inSight = row >= first && row < first + rows;
  }
  tellVisible();
}

function newTile(id) {
  const picture = pictures.get(id);
  const thumb = thumbnail(picture);
  const name = make("span", { className: "name" });
  const sure = make("span", { className: "sure" });
  const badge = make("span", { className: "badge" });
  const button = make("button", { className: "tile" }, thumb, badge, make("span", { className: "caption" }, name, sure));
  const element = make("div", { className: "cell", role: "listitem" }, button);
  const tile = { id, element, button, thumb, name, sure, badge, index: -1 };
  button.addEventListener("click", () => openPicture(id, ids));
  button.addEventListener("focus", () => { focused = tile.index; refreshTabStops(); });
  fill(tile);
  return tile;
}

function fill(tile) {
  const picture = pictures.get(tile.id);
  tile.name.textContent = picture.name;
  const sure = picture.certainty == null || picture.status === "broken" ? "" : `${Math.round(picture.certainty * 100)}%`;
  tile.sure.textContent = sure;
  tile.sure.title = sure && `The network is ${sure} sure of this mask.`;
  tile.button.dataset.status = picture.status;
  tile.button.dataset.id = picture.id;
  tile.button.title = picture.error ? `${picture.name}\n${picture.error}` : picture.name;
  tile.badge.replaceChildren(...(picture.status === "accepted" ? [icon("tick")] : picture.status === "rejected" ? [icon("cross")] : []));
  tile.button.setAttribute("aria-label", [picture.name, stateName(picture), picture.error, sure && `${sure} sure`].filter(Boolean).join(", "));
  tile.button.classList.toggle("touched", Boolean(picture.touched));
  updateMask(tile.thumb, picture);
}

function place(tile, index) {
  const { columns, width, height, row } = layout;
  const x = EDGE + (index % columns) * (width + GAP);
  const y = GAP + Math.floor(index / columns) * row;
  tile.index = index;
  tile.element.style.transform = `translate(${x}px, ${y}px)`;
  tile.element.style.width = `${width}px`;
  tile.thumb.style.height = `${height}px`;
  tile.element.setAttribute("aria-setsize", ids.length);
  tile.element.setAttribute("aria-posinset", index + 1);
  tile.button.tabIndex = index === focused ? 0 : -1;
}

const refreshTabStops = () => tiles.forEach((tile) => { tile.button.tabIndex = tile.index === focused ? 0 : -1; });

function redraw() {
  measure();
  draw();
}

/** Sort and filter anew; what lies in sight may change place, so this happens when asked for, or out of sight. */
function arrange() {
  shape ??= commonShape();
  ids = sorted();
  focused = Math.min(focused, Math.max(0, ids.length - 1));
  $("again").hidden = true;
  $("empty").hidden = ids.length > 0;
  $("empty").textContent = pictures.size
    ? { open: "Nothing left to check.", accepted: "Nothing accepted yet.", rejected: "Nothing rejected.", broken: "No broken picture." }[view.filter] ?? ""
    : "No pictures yet. Drop some here.";
  redraw();
}

/** Whether sorting now would move anything. */
const noticeOrder = later(400, () => {
  const now = sorted();
  $("again").hidden = now.length === ids.length && now.every((id, i) => id === ids[i]);
});

function fillFilters() {
  $("filters").replaceChildren(...FILTERS.filter(([name]) => name !== "broken" || countOf("broken") || view.filter === "broken").map(([name, title]) => {
    const button = make("button", { "aria-pressed": String(view.filter === name), data: { filter: name } }, title, make("span", { className: "count", textContent: countOf(name) }));
    button.addEventListener("click", () => {
      view.filter = name;
      fillFilters();
      $("grid").scrollTop = 0;
      arrange();
      $("filters").querySelector(`[data-filter="${name}"]`)?.focus();
    });
    return button;
  }));
}

const countSeldom = seldom(250, () => {
  if ($("filters").contains(document.activeElement)) FILTERS.forEach(([name]) => {
    const count = $("filters").querySelector(`[data-filter="${name}"] .count`);
    if (count) count.textContent = countOf(name);
  });
  else fillFilters();
  $("check").disabled = !isTaught() || !countOf("open");
  $("check").title = isTaught() ? "" : "First paint the thing in one picture";
});

const MOVES = { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => -layout.columns, ArrowDown: () => layout.columns,
  PageUp: () => -layout.columns * 3, PageDown: () => layout.columns * 3, Home: () => -Infinity, End: () => Infinity };

/** Arrow keys move from tile to tile. */
export function gridKey(event) {
  const move = MOVES[event.key];
  if (!move || event.ctrlKey || event.metaKey || event.altKey || !ids.length) return false;
  if (!$("grid").contains(document.activeElement) && document.activeElement !== document.body) return false;
  const onTile = document.activeElement !== document.body && document.activeElement !== $("grid");
  focusTile(onTile ? Math.max(0, Math.min(ids.length - 1, focused + move())) : focused);
  return true;
}

function focusTile(index) {
  focused = index;
  const top = GAP + Math.floor(index / layout.columns) * layout.row;
  const grid = $("grid");
  if (top < grid.scrollTop + GAP) grid.scrollTop = top - GAP;
  else if (top + layout.row > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + layout.row - grid.clientHeight;
  draw();
  tiles.get(ids[index])?.button.focus({ preventScroll: true });
}

/** Show the grid again, at a picture. */
export function showPicture(id) {
  arrange();
  const index = ids.indexOf(id);
  if (index >= 0) focusTile(index);
}

export function startGrid(open) {
  openPicture = open;
  $("grid").addEventListener("scroll", draw, { passive: true });
  new ResizeObserver(redraw).observe($("grid"));
  $("order").addEventListener("change", () => { view.order = $("order").value; $("grid").scrollTop = 0; arrange(); });
  $("again").addEventListener("click", () => { $("grid").scrollTop = 0; arrange(); });
  on("list", () => { arrange(); countSeldom(); });
  on("picture", (id) => {
    const tile = tiles.get(id);
    if (tile) fill(tile);
    if (!$("overview").hidden) noticeOrder();
    countSeldom();
  });
  const refill = seldom(120, () => tiles.forEach(fill));
  on("project", () => { refill(); countSeldom(); });
  on("view", () => { refill(); redraw(); });
  fillFilters();
}

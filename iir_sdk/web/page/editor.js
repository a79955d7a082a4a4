// One picture large: strokes are sent as they end, the mask is shown as it comes, decisions lead to the next picture.

import { $, failed, later, toast } from "./elements.js";
import { stateName } from "./grid.js";
import { fetchAhead, fullImage, fullMask, smallImage } from "./images.js";
import { labelForStroke, nextColour } from "./labels.js";
import { hasMask, hearPicture, isOpen, isTaught, label, leastSureFirst, look, on, pictures, project, sorted, tell, view } from "./project.js";
import { ask, change, pictureUrl } from "./server.js";
import { Stage } from "./stage.js";
import { fillStrip } from "./strip.js";
import { told } from "./strokes.js";

let stage = null;
let current = null;
let list = [];
let index = 0;
let shownMask = "";
let sending = 0;
let closed = () => {};

export const currentId = () => current;
export const editorStage = () => stage;

/** Open a picture, within the list that it is one of. */
export function open(id, ids = sorted()) {
  list = ids.includes(id) ? [...ids] : [id, ...ids];
  $("overview").hidden = true;
  $("editor").hidden = false;
  document.body.dataset.view = "editor";
  stage.resize();
  goTo(list.indexOf(id));
  $("top").focus({ preventScroll: true });
}

/** The least sure of those that nobody has looked at. */
export function openLeastSure() {
  const ids = sorted("least_sure", "open");
  if (ids.length) open(ids[0], ids);
  else toast("Nothing left to check.");
}

export function close() {
  if (!current) return;
  const id = current;
  current = null;
  $("editor").hidden = true;
  $("overview").hidden = false;
  document.body.dataset.view = "overview";
  closed(id);
}

/** Sort what comes after this picture: masks, and how sure they are, have changed since the list was made. */
function sortAhead() {
  if (view.order !== "least_sure") return;
  const ahead = list.slice(index + 1).filter((id) => pictures.has(id)).sort(leastSureFirst);
  list = [...list.slice(0, index + 1), ...ahead];
}

export function step(by) {
  if (by > 0) sortAhead();
  if (list[index + by]) goTo(index + by);
}

/** After a decision: the next that is open, else any that was left, else back. */
function advance() {
  if (!["all", "open"].includes(view.filter)) { step(1); return; }
  sortAhead();
  const after = list.findIndex((id, i) => i > index && isOpen(pictures.get(id)));
  if (after >= 0) { goTo(after); return; }
  const left = sorted("least_sure", "open").filter((id) => id !== current);
  if (left.length) {
    list = [...list.filter((id) => !left.includes(id)), ...left];
    goTo(list.indexOf(left[0]));
    return;
  }
  toast("All pictures are checked. Export is at the top right.");
  close();
}

async function goTo(at) {
  index = at;
  const id = list[index];
  current = id;
  shownMask = "";
  const picture = pictures.get(id);
  const size = fullSize(picture);
  stage.setImage(null, size, true);
  refresh();
  tellVisible();
  $("stage-error").hidden = picture.status !== "broken";
  $("stage-error").textContent = picture.status === "broken" ? sentence(picture.error || stateName(picture)) : "";
  if (picture.status === "broken") return;
  try {
    const whole = fullImage(id);
    smallImage(id).then((image) => { if (current === id && !stage.image) stage.setImage(image, size, false); }, () => {});
    const image = await whole;
    if (current !== id) return;
    stage.setImage(image, { width: image.naturalWidth, height: image.naturalHeight }, false);
    await Promise.all([showMask(), loadStrokes(id)]);
    fetchAhead(list.slice(index + 1, index + 4));
  } catch (error) {
    if (current === id) failed(error);
  }
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

/** The size that the server shows it at, before it has come: nothing moves when it does. */
function fullSize({ width, height }) {
  const scale = Math.min(1, 2048 / Math.max(width || 1, height || 1));
  return { width: Math.max(1, Math.round((width || 4) * scale)), height: Math.max(1, Math.round((height || 3) * scale)) };
}

async function loadStrokes(id) {
  const { strokes } = await ask("GET", `pictures/${encodeURIComponent(id)}`);
  if (current !== id) return;
  const colours = Object.fromEntries(project.labels.map(({ name, color }) => [name, color]));
  stage.strokes = (strokes ?? []).map((stroke) => ({ ...stroke, colour: colours[stroke.label] ?? "#888" }));
  stage.paintTop();
  refresh();
}

async function showMask() {
  const picture = pictures.get(current);
  if (!picture) return;
  const key = hasMask(picture) ? `${picture.id} ${picture.version} ${look()}` : "";
  if (key === shownMask) return;
  shownMask = key;
  if (!key) { stage.setMask(null); return; }
  try {
    const mask = await fullMask(picture);
    if (shownMask === key) stage.setMask(mask);
  } catch {
    if (shownMask === key) shownMask = "";
  }
}

// What the user does -------------------------------------------------------------------------------------------------

/** Turns while something is sent, and while a newer mask than the shown one is on its way. */
function busy() {
  const { status, version } = pictures.get(current) ?? {};
  const isMade = isTaught() && (status === "waiting" || (status === "predicted" && version !== project.version));
  $("busy").hidden = sending === 0 && !isMade;
}

/** Do something to the shown picture, in turn; its new record and mask are shown at once. */
async function act(action) {
  const id = current;
  sending += 1;
  busy();
  try {
    const answer = await action(pictureUrl(id, "").replace(/^api\//, ""));
    if (answer?.version) project.version = answer.version;
    if (answer?.picture) hearPicture(answer.picture);
    return answer;
  } finally {
    sending -= 1;
    busy();
    if (current === id) refresh();
  }
}

async function send(stroke) {
  const id = current;
  stage.pending.push(stroke);
  stage.paintTop();
  try {
    const { name } = await labelForStroke();
    await act((path) => change("POST", `${path}strokes`, { label: name, ...told(stroke) }));
    if (current !== id) return;
    await Promise.all([showMask(), sending ? null : loadStrokes(id)]);
  } catch (error) {
    failed(error);
  } finally {
    stage.pending = stage.pending.filter((one) => one !== stroke);
    stage.paintTop();
  }
}

export async function notHere() {
  if (!current || !label()) { toast("Paint the thing in another picture first."); return; }
  const { name } = label();
  const id = current;
  await act((path) => change("POST", `${path}strokes`, { label: name, kind: "not_here" }));
  if (current === id) await Promise.all([showMask(), loadStrokes(id)]);
  toast(`Noted: no ${name} in this picture. Accept it to go on.`);
}

/** Accept or reject; the page goes on at once and the server follows. */
export function decide(decision) {
  const picture = pictures.get(current);
  if (!picture || picture.status === "broken" || (decision === "accept" && !hasMask(picture))) return;
  const before = picture.status;
  // One accepts what one saw: if another mask has come since, the server refuses.
  const seen = decision === "accept" && !sending && shownMask ? { version: picture.version } : undefined;
  const saved = act((path) => change("POST", `${path}${decision}`, seen));
  hearPicture({ ...picture, status: decision === "accept" ? "accepted" : "rejected" });
  saved.catch((error) => {
    hearPicture({ ...pictures.get(picture.id), status: before });
    failed(error);
  });
  advance();
}

async function startOver() {
  const id = current;
  const decided = ["accepted", "rejected"].includes(pictures.get(id).status);
  if (decided) await act((path) => change("POST", `${path}reset`));
  else for (const name of new Set(stage.strokes.map((stroke) => stroke.label)))
    await act((path) => change("DELETE", `${path}strokes?label=${encodeURIComponent(name)}`));
  const record = await ask("GET", `pictures/${encodeURIComponent(id)}`);
  hearPicture(record);
  if (current === id) await Promise.all([showMask(), loadStrokes(id)]);
}

/** What was done last, here or in any picture; shows the picture it was done to. */
export async function undo(kind) {
  const { action, picture_id: id } = await change("POST", kind);
  if (action) toast(`${kind === "undo" ? "Taken back" : "Done again"}: ${action}`);
  if (id && pictures.has(id)) hearPicture(await ask("GET", `pictures/${encodeURIComponent(id)}`));
  if (!current) return;
  if (id && id !== current && pictures.has(id)) {
    if (list.includes(id)) goTo(list.indexOf(id));
    else open(id, list);
  } else await Promise.all([showMask(), loadStrokes(current)]);
}

// What is told of it -------------------------------------------------------------------------------------------------

function hintFor(picture) {
  if (picture.status === "broken") return "";
  const painted = stage.strokes.length > 0 || stage.pending.length > 0;
  if (stage.crosshair) return "Arrow keys move, space bar puts the pen down and lifts it, Esc ends.";
  if (!isTaught() && !painted) return "Paint over the thing. A rough stroke is enough.";
  if ((project.counts?.accepted ?? 0) >= 3) return "";
  if (!hasMask(picture)) return "";
  if (painted) return "Right? Press Accept. Something missing: paint it. Too much: “Not it”.";
  return "Right? Press Accept. If not, paint what is missing, or “Not it” over what is too much.";
}

function refresh() {
  const picture = pictures.get(current);
  if (!picture) return;
  $("picture-name").textContent = picture.name;
  $("picture-name").title = picture.name;
  const sure = picture.certainty == null ? "" : ` · ${Math.round(picture.certainty * 100)}% sure`;
  $("picture-state").textContent = picture.status === "predicted" ? `To check${sure}` : stateName(picture);
  $("picture-state").dataset.status = picture.status;
  $("picture-state").hidden = picture.status === "waiting" && !isTaught();
  const decided = ["accepted", "rejected"].includes(picture.status);
  $("restart").hidden = !decided && !stage.strokes.length;
  $("restart").lastElementChild.textContent = decided ? "Decide again" : "Start over";
  $("accept").disabled = !hasMask(picture);
  $("reject").disabled = $("not-here").disabled = picture.status === "broken";
  $("previous").disabled = index === 0;
  $("next").disabled = index >= list.length - 1;
  $("stage-hint").textContent = hintFor(picture);
  busy();
  stage.colour = label()?.color ?? nextColour();
  fillStrip(list, index);
}

export const refreshEditor = () => { if (current) refresh(); };

const tellVisible = later(60, () => {
  if (current) ask("POST", "visible", { ids: list.slice(index, index + 12) }).catch(() => {});
});

export function setTool(tool) {
  for (const button of document.querySelectorAll("[data-tool][aria-pressed]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  stage.setTool(tool);
}

export function setBrush(size) {
  stage.brush = Math.min(90, Math.max(3, Math.round(size)));
  $("brush").value = stage.brush;
  stage.paintTop();
}

export function toggleMasks() {
  view.masks = !view.masks;
  $("mask-shown").setAttribute("aria-pressed", String(view.masks));
  tell("view");
}

export function startEditor(whenClosed) {
  closed = whenClosed;
  stage = new Stage($("stage"), $("base"), $("top"), { done: send, touched: () => { $("stage-hint").textContent = ""; } });
  for (const button of document.querySelectorAll("button[data-tool]")) button.addEventListener("click", () => setTool(button.dataset.tool));
  $("brush").addEventListener("input", () => setBrush(Number($("brush").value)));
  const clicks = { "zoom-in": () => stage.zoom(1.4), "zoom-out": () => stage.zoom(1 / 1.4), "zoom-fit": () => stage.fit(), "mask-shown": toggleMasks,
    back: close, previous: () => step(-1), next: () => step(1), accept: () => decide("accept"), reject: () => decide("reject"),
    "not-here": () => notHere().catch(failed), restart: () => startOver().catch(failed) };
  for (const [id, click] of Object.entries(clicks)) $(id).addEventListener("click", click);
  $("strip").addEventListener("click", (event) => {
    const id = event.target.closest("[data-id]")?.dataset.id;
    if (id) goTo(list.indexOf(id));
  });
  const showLook = () => {
    stage.look = { opacity: view.opacity, outline: view.outline, masks: view.masks };
    stage.paint();
    refreshEditor();
  };
  on("view", showLook);
  on("picture", (id) => {
    if (!current) return;
    if (id === current) { refresh(); if (!sending) showMask(); }
    else stripSeldom();
  });
  on("list", () => { list = list.filter((id) => pictures.has(id)); index = Math.max(0, list.indexOf(current)); refreshEditor(); });
  on("project", () => { if (current) { refresh(); if (!sending) showMask(); } });
  setTool("object");
  setBrush(matchMedia("(pointer: coarse)").matches ? 22 : 16);
  showLook();
}

const stripSeldom = later(150, () => { if (current) fillStrip(list, index); });

// The page: opens on the grid; keys, undo, progress, and what the server tells.

import { close, currentId, decide, editorStage, notHere, open, openLeastSure, refreshEditor, setBrush, setTool, startEditor, step, toggleMasks, undo } from "./editor.js";
import { $, failed, isTyping, seldom, toast } from "./elements.js";
import { gridKey, showPicture, startGrid } from "./grid.js";
import { choose, startLabels } from "./labels.js";
import { startPanels } from "./panels.js";
import { countOf, hearPicture, hearProject, isTaught, load, on, pictures, project, restoreView, tell } from "./project.js";
import { follow } from "./server.js";

const TOOLS = { b: "object", d: "background", r: "box", e: "erase" };

const EDITOR_KEYS = {
  a: () => decide("accept"), x: () => decide("reject"), h: () => notHere().catch(failed),
  n: () => step(1), ArrowRight: () => step(1), p: () => step(-1), ArrowLeft: () => step(-1),
  "+": () => editorStage().zoom(1.25), "=": () => editorStage().zoom(1.25), "-": () => editorStage().zoom(0.8), 0: () => editorStage().fit(),
  m: toggleMasks, g: close, c: () => { editorStage().toggleCrosshair(); refreshEditor(); $("top").focus(); },
  "[": () => setBrush(editorStage().brush / 1.25), "]": () => setBrush(editorStage().brush * 1.25),
};

function key(event) {
  if (isTyping(event.target) || $("help").open) return;
  const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ((event.ctrlKey || event.metaKey) && !event.altKey) {
    if (pressed === "z" || pressed === "y") {
      event.preventDefault();
      undo(pressed === "y" || event.shiftKey ? "redo" : "undo").catch(failed);
    }
    return;
  }
  if (event.altKey) return;
  if (pressed === "?") { $("help").showModal(); return; }
  if (/^[1-9]$/.test(pressed)) { choose(Number(pressed) - 1); return; }
  if (document.querySelector("[popover]:popover-open")) return;
  if (currentId() ? editorKey(event, pressed) : gridKey(event)) event.preventDefault();
}

function editorKey(event, pressed) {
  const stage = editorStage();
  const onControl = event.target instanceof HTMLElement && event.target.matches("button, input, a");
  if (pressed === "Escape") {
    if (stage.cancel()) refreshEditor();
    else close();
    return true;
  }
  if (!onControl && stage.crosshairKey(event)) return true;
  if (pressed === " " && !onControl) { stage.spaceHeld = true; stage.box.classList.add("hand"); stage.paintTop(); return true; }
  if (pressed === "Enter" && !onControl) { if (!event.repeat) decide("accept"); return true; }
  if (event.target instanceof HTMLInputElement && pressed.startsWith("Arrow")) return false;
  if (TOOLS[pressed]) { setTool(TOOLS[pressed]); return true; }
  if (!EDITOR_KEYS[pressed] || (event.repeat && "axh".includes(pressed))) return false;
  EDITOR_KEYS[pressed]();
  return true;
}

function liftSpace(event) {
  if (event.key !== " ") return;
  const stage = editorStage();
  stage.spaceHeld = false;
  stage.box.classList.remove("hand");
  stage.paintTop();
}

let noticed = "";

/** After a click the keys belong to the picture again: the space bar moves it, and presses no button twice. */
function giveKeysBack(event) {
  const isBusy = document.querySelector("[popover]:popover-open, dialog[open]") || isTyping(document.activeElement);
  if (currentId() && event.detail && !isBusy && event.target.closest?.("button")) $("top").focus({ preventScroll: true });
}

function showProject() {
  $("project-name").textContent = project.name || "iir-sdk";
  document.title = project.name ? `${project.name} · iir-sdk` : "iir-sdk";
  $("undo").disabled = !project.can_undo;
  $("redo").disabled = !project.can_redo;
  $("hint").classList.toggle("taught", isTaught());
  if (isTaught()) $("hint-line").textContent = "Now check the least sure, correct what is wrong, accept what is right.";
  if ((project.counts?.accepted ?? 0) > 0) $("hint").hidden = true;
  if (project.notice && project.notice !== noticed) toast(project.notice);
  noticed = project.notice;
}

function showProgress() {
  const { done = 0, total = 0, per_second: rate = 0 } = project.progress ?? {};
  const working = isTaught() && done < total;
  $("progress").classList.toggle("working", working);
  $("progress").setAttribute("aria-valuemax", total);
  $("progress").setAttribute("aria-valuenow", done);
  $("progress-bar").style.transform = `scaleX(${total ? done / total : 0})`;
  $("progress-text").textContent = working ? `${done} of ${total} masked${rate >= 0.1 ? ` · ${rate < 10 ? rate.toFixed(1) : Math.round(rate)}/s` : ""}`
    : isTaught() ? `${countOf("accepted")} of ${pictures.size} accepted` : pictures.size ? `${pictures.size} pictures` : "";
}

const HEARD = {
  picture: hearPicture,
  project: hearProject,
  progress: (data) => { project.progress = data; tell("progress"); },
};

let isLost = false;

function opened() {
  if (isLost) toast("Connected again.");
  showLost(false);
  load().catch(failed);
}

function lost() {
  showLost(true);
}

function showLost(now) {
  isLost = now;
  document.body.classList.toggle("lost", now);
  $("lost").hidden = !now;
}

function start() {
  restoreView();
  startGrid(open);
  startEditor(showPicture);
  startLabels();
  startPanels();
  on("project", showProject);
  on("progress", showProgress);
  on("list", showProgress);
  on("picture", seldom(200, showProgress));
  $("undo").addEventListener("click", () => undo("undo").catch(failed));
  $("redo").addEventListener("click", () => undo("redo").catch(failed));
  $("check").addEventListener("click", openLeastSure);
  $("hint-close").addEventListener("click", () => { $("hint").hidden = true; });
  addEventListener("keydown", key);
  addEventListener("keyup", liftSpace);
  addEventListener("click", giveKeysBack);
  addEventListener("blur", () => liftSpace({ key: " " }));
  load().catch(failed);
  follow((kind, data) => HEARD[kind]?.(data), opened, lost);
}

start();

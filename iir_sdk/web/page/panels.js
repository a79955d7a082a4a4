// What opens above the page: masks and view, export, keys; and pictures dropped in.

import { $, failed, make, seldom, toast, under } from "./elements.js";
import { countOf, hearPicture, on, pictures, project, storeView, tell, view } from "./project.js";
import { ask, change } from "./server.js";

const FORMATS = {
  masks: ["Masks", "a black and white PNG per picture and label"],
  map: ["Label maps", "one PNG per picture, a number per label"],
  overlay: ["Overlays", "pictures with the masks drawn on"],
  coco: ["COCO", "JSON with run lengths"],
  "coco-polygons": ["COCO polygons", "JSON with outlines"],
  yolo: ["YOLO", "text files with outlines"],
  labelme: ["LabelMe", "a JSON file per picture"],
  voc: ["Pascal VOC", "palette PNGs"],
  geojson: ["GeoJSON", "outlines on the map, of pictures with a place"],
  geotiff: ["GeoTIFF", "label maps on the map, of pictures with a place"],
};

export const KEYS = [
  ["Picture", [["A", "or", "Enter", "accept, and on to the next"], ["X", "reject"], ["H", "not in this picture"], ["→", "N", "next"], ["←", "P", "previous"], ["Esc", "all pictures"]]],
  ["Paint", [["B", "it"], ["D", "not it (also the right mouse button)"], ["R", "box"], ["E", "rub out strokes"], ["[", "]", "brush size"], ["1", "…", "9", "label"]]],
  ["Look", [["+", "−", "closer, further (also the wheel)"], ["0", "whole picture"], ["Space", "hold to move the picture"], ["M", "masks on and off"]]],
  ["Anywhere", [["Ctrl", "Z", "undo"], ["Ctrl", "Shift", "Z", "redo"], ["?", "these keys"]]],
  ["Without a mouse", [["C", "a cursor for the arrow keys"], ["Space", "pen down, pen up"], ["Shift", "larger steps"]]],
];

function slider(id, get, set, text) {
  const field = $(id);
  const output = $(`${id}-value`) ?? field.parentElement.querySelector("output");
  const show = () => {
    if (document.activeElement !== field) field.value = get();
    output.textContent = text(Number(field.value));
  };
  field.addEventListener("input", () => { set(Number(field.value)); output.textContent = text(Number(field.value)); });
  return show;
}

const percent = (value) => `${Math.round(value * 100)}%`;

function startAdjust() {
  const asked = {};
  const save = seldom(120, () => {
    const body = { ...asked };
    for (const key of Object.keys(asked)) delete asked[key];
    if (Object.keys(body).length) change("PATCH", "settings", body).then(() => { Object.assign(project.settings, body); tell("project"); }).catch(failed);
  });
  const setting = (key) => (value) => { asked[key] = value; save(); };
  const look = (key) => (value) => { view[key] = value; storeView(); tell("view"); };
  const shows = [
    slider("threshold", () => project.settings.threshold ?? 0.5, setting("threshold"), (value) => value.toFixed(2)),
    slider("absent", () => project.settings.absent_below ?? 0, setting("absent_below"), (value) => (value ? `below ${percent(value)}` : "never")),
    slider("opacity", () => view.opacity, look("opacity"), percent),
    slider("thumb-size", () => view.thumb, look("thumb"), () => ""),
  ];
  const show = () => { shows.forEach((one) => one()); $("outline").checked = view.outline; };
  $("outline").addEventListener("change", () => look("outline")($("outline").checked));
  $("adjust").addEventListener("toggle", (event) => { if (event.newState === "open") { show(); under($("adjust"), $("adjust-open")); } });
  on("project", show);
  show();
}

function fillExport() {
  $("count-accepted").textContent = `(${countOf("accepted")})`;
  $("all-of").textContent = countOf("rejected") ? "Not rejected" : "All";
  $("count-all").textContent = `(${pictures.size - countOf("broken") - countOf("rejected")})`;
  if (!countOf("accepted")) document.querySelector("[name=what][value=all]").checked = true;
  const names = project.formats ?? Object.keys(FORMATS);
  $("formats").replaceChildren(...names.map((name) => {
    const [title, note] = FORMATS[name] ?? [name, ""];
    const button = make("button", { data: { format: name } }, make("b", { textContent: title }), make("span", { textContent: note }));
    button.addEventListener("click", () => download(name, button).catch(failed));
    return button;
  }));
}

async function download(format, button) {
  const what = document.querySelector("[name=what]:checked").value;
  if (what === "accepted" && !countOf("accepted")) { toast("Nothing is accepted yet. Choose “All”, or accept some first.", true); return; }
  button.disabled = true;
  try {
    const answer = await fetch(`api/export?format=${encodeURIComponent(format)}&what=${what}`);
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? answer.statusText);
    const address = URL.createObjectURL(await answer.blob());
    const link = make("a", { href: address, download: `${project.name || "masks"}-${format}.zip` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
    $("export").hidePopover();
    toast("Exported. Your browser has the file.");
  } finally {
    button.disabled = false;
  }
}

function startExport() {
  $("export").addEventListener("toggle", (event) => { if (event.newState === "open") { fillExport(); under($("export"), $("export-open")); } });
}

function startHelp() {
  $("keys").append(...KEYS.map(([title, rows]) => make("section", {}, make("h3", { textContent: title }),
    make("dl", {}, ...rows.map((row) => make("div", {},
      make("dt", {}, ...row.slice(0, -1).map((key) => (key === "or" || key === "…" ? make("i", { textContent: key }) : make("kbd", { textContent: key })))),
      make("dd", { textContent: row.at(-1) })))))));
  $("help-open").addEventListener("click", () => $("help").showModal());
  $("help-close").addEventListener("click", () => $("help").close());
  $("help").addEventListener("click", (event) => { if (event.target === $("help")) $("help").close(); });
}

const AT_ONCE = 12;

async function upload(files) {
  const chosen = [...files];
  let added = 0;
  for (let i = 0; i < chosen.length; i += AT_ONCE) {
    const form = new FormData();
    for (const file of chosen.slice(i, i + AT_ONCE)) form.append("files", file, file.name);
    const answer = await ask("POST", "pictures", form);
    answer.added.forEach(hearPicture);
    added += answer.added.length;
    for (const { name, error } of answer.refused) toast(`${name}: ${error}`, true);
  }
  if (added) toast(added === 1 ? "1 picture added." : `${added} pictures added.`);
}

function startDrop() {
  let inside = 0;
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const show = () => { $("drop").hidden = inside <= 0; };
  addEventListener("dragenter", (event) => { if (carriesFiles(event)) { inside += 1; show(); } });
  addEventListener("dragleave", (event) => { if (carriesFiles(event)) { inside -= 1; show(); } });
  addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    inside = 0;
    show();
    if (!carriesFiles(event)) return;
    event.preventDefault();
    upload(event.dataTransfer.files).catch(failed);
  });
  $("add").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => { upload($("files").files).catch(failed); $("files").value = ""; });
}

export function startPanels() {
  startAdjust();
  startExport();
  startHelp();
  startDrop();
  addEventListener("resize", () => document.querySelectorAll("[popover]:popover-open").forEach((panel) => panel.hidePopover()));
}

"use strict";

const $ = (id) => document.getElementById(id);
const panels = []; // {figure, title, value, stage, nv}: browsers allow some 16 of them, so subjects take turns

async function addPanel() {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const title = document.createElement("b");
  const value = document.createElement("span");
  const stage = document.createElement("div");
  const canvas = document.createElement("canvas");
  canvas.tabIndex = 0; // the panel that has the focus leads the others
  caption.append(title, value);
  stage.append(canvas);
  figure.append(caption, stage);
  $("panels").append(figure);
  const nv = new niivue.Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.35, 0.75, 1, 0.8],
    crosshairGap: 6,
    crosshairWidth: 0.5,
    fontColor: [0.5, 0.72, 1, 1],
    dragAndDropEnabled: false,
    dragMode: 9, // windowing
    isRadiologicalConvention: true,
    loadingText: "",
    logLevel: "error",
    multiplanarLayout: 3, // a row: axial, coronal, sagittal
    multiplanarPadPixels: 14,
    multiplanarShowRender: 0,
    sagittalNoseLeft: true,
    showAllOrientationMarkers: true,
    viewModeHotKey: "",
    clipPlaneHotKey: "",
    cycleClipPlaneHotKey: "",
  });
  nv.onLocationChange = (place) => showPlace(panel, place);
  const panel = { figure, title, value, stage, nv };
  panels.push(panel);
  await nv.attachToCanvas(canvas, false);
}

function showPlace(panel, place) {
  panel.value.textContent = place.values.map((v, i) => (i ? "\u00b1 " : "") + v.value.toFixed(3)).join(" ");
  const [r, a, s] = place.mm;
  const side = (mm, plus, minus) => `${Math.abs(mm).toFixed(0)} mm ${mm < 0 ? minus : plus}`;
  $("message").textContent = `Crosshair: ${side(r, "R", "L")}, ${side(a, "A", "P")}, ${side(s, "S", "I")}`;
}

async function read(id, name, colormap, opacity) {
  return niivue.NVImage.loadFromBase64({ base64: $(id).textContent.trim(), name, colormap, opacity, trustCalMinMax: true });
}

async function show(subject) {
  $("subject").value = String(SUBJECTS.indexOf(subject));
  document.body.dataset.shown = "";
  const opacity = Number($("opacity").value);
  for (const [i, panel] of panels.entries()) {
    const content = subject.panels[i];
    panel.figure.hidden = !content;
    if (!content) continue;
    const what = content.made ? "SYNTHETIC" : "given";
    panel.title.textContent = `${content.contrast} \u00b7 ${what}`;
    panel.figure.classList.toggle("synthetic", content.made);
    const volume = await read(`v${subject.index}-${i}`, `${content.contrast}.nii.gz`, "gray", 1);
    const [, x, y, z] = volume.hdr.dims;
    panel.stage.style.aspectRatio = `${2 * x + y} / ${Math.max(y, z)}`;
    while (panel.nv.volumes.length) panel.nv.removeVolume(panel.nv.volumes[0]);
    panel.nv.addVolume(volume);
    if (content.uncertainty) {
      panel.nv.addVolume(await read(`u${subject.index}-${i}`, "uncertainty.nii.gz", "inferno", opacity));
    }
    panel.nv.createOnLocationChange();
  }
  const shown = panels.filter((panel) => !panel.figure.hidden).map((panel) => panel.nv);
  for (const nv of shown) nv.broadcastTo(shown.filter((other) => other !== nv), { "2d": true, "3d": true });
  const tops = shown.filter((nv) => nv.volumes.length > 1).map((nv) => nv.volumes[1].cal_max);
  $("overlay").hidden = !tops.length;
  $("scale").textContent = tops.length ? `brightest: ${tops.map((top) => top.toFixed(3)).join(", ")}` : "";
  document.body.dataset.shown = subject.name; // for those who wait for it
}

function overlay(opacity) {
  for (const { nv } of panels) if (nv.volumes.length > 1) nv.setOpacity(1, opacity);
}

async function start() {
  if (!SUBJECTS.length) return;
  $("viewer").hidden = false;
  if (!document.createElement("canvas").getContext("webgl2")) {
    $("message").textContent = "This browser has no WebGL 2, so only the pictures below can be seen.";
    return;
  }
  SUBJECTS.forEach((subject, i) => $("subject").add(new Option(subject.name, String(i))));
  const most = Math.max(...SUBJECTS.map((subject) => subject.panels.length));
  for (let i = 0; i < most; i++) await addPanel();
  $("subject").onchange = () => show(SUBJECTS[Number($("subject").value)]);
  $("opacity").oninput = () => overlay(Number($("opacity").value));
  for (const link of document.querySelectorAll("[data-subject]")) {
    link.onclick = () => show(SUBJECTS.find((subject) => subject.index === Number(link.dataset.subject)));
  }
  show(SUBJECTS[0]);
}

start();

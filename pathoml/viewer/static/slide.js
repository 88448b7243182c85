// One slide: deep zoom, the map over it, the patient beside it.

/* global L */

import { byId, days, element, explain, getJson, isTyping, outcome, say, signed } from "./common.js";
import { MapLayer, drawLegend, startAnew, tileBounds, tileFinder } from "./overlay.js";
import { Regions } from "./regions.js";
import { survivalFigure } from "./survival.js";

const query = new URLSearchParams(location.search);
let root = `api/slides/${encodeURIComponent(query.get("id") ?? "")}`;
const BARS_UM = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];

const PAN_PX = 160;

const view = { map: null, image: null, place: null, layer: null, scores: null, find: null, regions: null, top: -1, frame: null };

function openMap(image) {
  const map = L.map("map", { crs: L.CRS.Simple, attributionControl: false, zoomSnap: 0.25, zoomDelta: 0.5, wheelPxPerZoomLevel: 120, minZoom: -1, maxZoom: image.deepest + 2, keyboard: false });
  const pixel = (latlng) => { const point = map.project(latlng, image.deepest); return [Math.round(point.x * 10) / 10, Math.round(point.y * 10) / 10]; };
  view.place = { pixel, latlng: (x, y) => map.unproject([x, y], image.deepest) };
  const bounds = L.latLngBounds(view.place.latlng(0, image.height_px), view.place.latlng(image.width_px, 0));
  view.options = { bounds, noWrap: true, minNativeZoom: 0, maxNativeZoom: image.deepest, minZoom: -1, maxZoom: image.deepest + 2, tileSize: 256 };
  // Where the edges of two tiles fall within one pixel the page would shine through as a white line; so does this instead.
  L.imageOverlay(`${root}/thumbnail.jpg`, bounds, { pane: "tilePane", zIndex: 0 }).addTo(map);
  view.tiles = L.tileLayer(`${root}/tiles/{z}/{x}/{y}.jpg`, { ...view.options, keepBuffer: 3, updateWhenZooming: false }).addTo(map);
  view.tiles.on("tileerror", () => { if (view.image.ready) say("Some parts of this slide cannot be shown."); });
  view.tiles.once("load", () => performance.mark("first-view"));
  map.setMaxBounds(bounds.pad(0.6));
  map.fitBounds(bounds);
  map.on("move zoom resize", drawScale);
  map.on("mousemove", (event) => showCursor(event.latlng));
  view.map = map;
  view.bounds = bounds;
  drawScale();
}

function drawScale() {
  if (!view.image.mpp) return;
  const um_per_px = view.image.mpp[0] * 2 ** (view.image.deepest - view.map.getZoom());
  const length = BARS_UM.filter((bar) => bar / um_per_px <= 160).at(-1) ?? BARS_UM[0];
  byId("scale").classList.add("known");
  byId("scale").firstElementChild.style.width = `${length / um_per_px}px`;
  byId("scale").lastElementChild.textContent = length < 1000 ? `${length} \u00b5m` : `${length / 1000} mm`;
}

function showCursor(latlng) {
  const [x, y] = view.place.pixel(latlng);
  if (!view.find) return;
  const tile = view.find(x, y);
  const parts = tile === null ? [] : Object.entries(view.scores.maps).map(([kind, one]) => `${kind} ${one.values[tile]}`);
  byId("cursor").textContent = tile === null ? "" : `tile ${tile}: ${parts.join(", ")}`;
}

function describePatient(content) {
  const { slide } = content;
  const rows = [["Patient", slide.patient], ["Site", slide.site], ["Follow-up", slide.time_days === null ? "" : `${days(slide.time_days)}, ${outcome(slide.event)}`], ["Risk", slide.risk === null ? "" : `${signed(slide.risk)} SD, ${slide.group}`]];
  byId("patient").replaceChildren(...rows.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  if (content.siblings.length > 1) {
    byId("siblings").replaceChildren(...content.siblings.map((one) => element("a", { href: `slide?id=${one.id}`, className: one.id === slide.id ? "here" : "" }, element("img", { src: `api/slides/${one.id}/thumbnail.jpg`, alt: "", loading: "lazy" }), one.name)));
  }
  if (content.cohort.length) byId("curve").replaceChildren(survivalFigure(content.cohort, content.curve, slide, content.endpoint));
}

async function openScores() {
  view.scores = await getJson(`${root}/scores`);
  view.find = tileFinder(view.scores.tiles);
  const kinds = Object.keys(view.scores.maps);
  byId("map-kind").replaceChildren(...kinds.map((kind) => element("option", { value: kind, textContent: kind })));
  view.layer = new MapLayer(root, view.options);
  byId("map-panel").hidden = byId("tiles-panel").hidden = false;
  showMap();
  view.map.addLayer(view.layer);
  setOpacity();
  for (const name of ["map-kind", "map-scale"]) byId(name).addEventListener("change", showMap);
  byId("map-opacity").addEventListener("input", setOpacity);
  byId("map-threshold").addEventListener("input", setThreshold);
  byId("tiles-end").addEventListener("change", showTiles);
  byId("map-on").addEventListener("change", ({ target }) => (target.checked ? view.map.addLayer(view.layer) : view.map.removeLayer(view.layer)));
}

const SCALES = { raw: "this slide", percentile: "percentile", cohort: "training cohort" };

// Not every kind of map has every scale: where the one shown last is missing, the slide's own takes its place.
function offerScales() {
  const before = byId("map-scale").value || "raw";
  const offered = Object.keys(view.scores.maps[byId("map-kind").value].scales);
  byId("map-scale").replaceChildren(...offered.map((scale) => element("option", { value: scale, textContent: SCALES[scale] })));
  byId("map-scale").value = offered.includes(before) ? before : "raw";
}

function showMap() {
  offerScales();
  const [kind, name] = [byId("map-kind").value, byId("map-scale").value];
  const scale = view.scores.maps[kind].scales[name];
  view.layer.show(kind, name, scale);
  drawLegend(byId("legend"), scale);
  byId("legend-low").textContent = scale.low.toPrecision(3);
  byId("legend-high").textContent = scale.high.toPrecision(3);
  byId("map-label").textContent = [scale.label, ...view.scores.notes].join("; ");
  setThreshold();
  showTiles();
}

const setOpacity = () => view.layer.setOpacity(byId("map-opacity").value / 100);

function setThreshold() {
  const share = byId("map-threshold").value / 100;
  const scale = view.scores.maps[byId("map-kind").value].scales[byId("map-scale").value];
  const value = scale.signed ? share * scale.high : scale.low + share * (scale.high - scale.low);
  byId("map-threshold-value").textContent = `${scale.signed ? "\u00b1" : ""}${value.toPrecision(2)}`;
  view.layer.hideBelow(share);
}

function showTiles() {
  const one = view.scores.maps[byId("map-kind").value];
  view.top = -1;
  view.frame?.remove();
  byId("tiles").replaceChildren(...one[byId("tiles-end").value].slice(0, 12).map((tile, index) => element("button", { title: `tile ${tile}`, onclick: () => jump(index) }, element("img", { src: `${root}/crops/${tile}.jpg`, alt: `tile ${tile}`, loading: "lazy" }), element("span", { textContent: one.values[tile] }))));
}

function jump(index) {
  if (!view.scores) return;
  const list = view.scores.maps[byId("map-kind").value][byId("tiles-end").value];
  view.top = (index + list.length) % list.length;
  frame(list[view.top]);
  [...byId("tiles").children].forEach((button, number) => button.classList.toggle("chosen", number === view.top));
}

function showTileAsked() {
  const tile = Number(query.get("tile") ?? NaN);
  if (Number.isInteger(tile) && tile >= 0 && tile < view.scores.tiles.row.length) frame(tile);
}

function frame(tile) {
  const [left, top, right, bottom] = tileBounds(view.scores.tiles, tile);
  const bounds = L.latLngBounds(view.place.latlng(left, bottom), view.place.latlng(right, top));
  view.frame?.remove();
  view.frame = L.rectangle(bounds, { color: "#111", weight: 2, fill: false, interactive: false }).addTo(view.map);
  view.map.fitBounds(bounds.pad(1.5), { maxZoom: view.image.deepest });
}

function step(id, by) {
  const slider = byId(id);
  slider.value = Number(slider.value) + by;
  slider.dispatchEvent(new Event("input"));
}

function next(id) {
  const list = byId(id);
  if (!list.options.length) return;
  list.selectedIndex = (list.selectedIndex + 1) % list.options.length;
  list.dispatchEvent(new Event("change"));
}

const KEYS = {
  0: () => view.map.fitBounds(view.bounds),
  1: () => view.map.setZoom(view.image.deepest),
  "+": () => view.map.zoomIn(1), "=": () => view.map.zoomIn(1), "-": () => view.map.zoomOut(1),
  ArrowLeft: () => view.map.panBy([-PAN_PX, 0]), ArrowRight: () => view.map.panBy([PAN_PX, 0]),
  ArrowUp: () => view.map.panBy([0, -PAN_PX]), ArrowDown: () => view.map.panBy([0, PAN_PX]),
  m: () => byId("map-on").click(), k: () => next("map-kind"), s: () => next("map-scale"),
  "[": () => step("map-opacity", -10), "]": () => step("map-opacity", 10), ",": () => step("map-threshold", -5), ".": () => step("map-threshold", 5),
  n: () => jump(view.top + 1), p: () => jump(view.top - 1),
  d: () => view.regions.begin("outline"), r: () => view.regions.begin("box"), e: () => byId("export").click(),
  Enter: () => view.regions.finish(),
  Escape: () => { view.regions.give_up(); byId("help").hidden = true; },
  Delete: () => view.regions.remove(),
  l: () => { location.href = "./"; },
  "?": () => { byId("help").hidden = !byId("help").hidden; },
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || !KEYS[event.key]) return;
  if (event.key === "Enter" && event.target.tagName === "BUTTON") return;
  if (event.key.startsWith("Arrow") && event.target.matches("input, select")) return;
  event.preventDefault();
  KEYS[event.key]();
}

async function waitForOverview() {
  while (!view.image.ready) {
    say("This slide stores no overview; one is being made. Zoom in to look at it meanwhile.");
    await new Promise((resolve) => { setTimeout(resolve, 1500); });
    view.image = (await getJson(root)).image;
  }
  say("");
  startAnew(view.tiles);
  view.layer?.bringToFront();
}

// A page of tiles names the slide as the list does; only the list knows its id.
async function findByName(name) {
  const { slides } = await getJson("api/slides");
  const found = slides.find((row) => row.name === name);
  if (found) root = `api/slides/${found.id}`;
}

async function start() {
  if (query.has("name")) await findByName(query.get("name"));
  const content = await getJson(root);
  view.image = content.image;
  document.title = byId("title").textContent = content.slide.name;
  byId("notice").textContent = content.notice;
  byId("facts").textContent = `${content.image.width_px.toLocaleString("en")} \u00d7 ${content.image.height_px.toLocaleString("en")} px${content.image.mpp ? `, ${content.image.mpp[0].toPrecision(3)} \u00b5m/px` : ", resolution not known"}`;
  openMap(content.image);
  describePatient(content);
  view.regions = new Regions(view.map, view.place, content.slide.name);
  byId("draw").onclick = () => view.regions.begin("outline");
  byId("draw-box").onclick = () => view.regions.begin("box");
  byId("remove").onclick = () => view.regions.remove();
  byId("import").onclick = () => byId("file").click();
  byId("file").onchange = ({ target }) => { if (target.files[0]) view.regions.read(target.files[0]); target.value = ""; };
  byId("export").onclick = () => view.regions.export(content.slide.name.replaceAll("/", "--"));
  document.addEventListener("keydown", onKey);
  if (!content.image.ready) waitForOverview().catch((error) => say(explain(error)));
  if (content.has_maps) openScores().then(showTileAsked).catch((error) => say(explain(error)));
}

start().catch((error) => say(explain(error)));

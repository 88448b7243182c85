// Regions drawn by hand or imported, exported as the GeoJSON that QuPath reads: polygons in level-0 pixels.

/* global L */

import { byId, element, say } from "./common.js";

const MOST_BYTES = 200e6;

export class Regions {
  constructor(map, place, key) {
    this.map = map;
    this.place = place;
    this.key = `regions ${key}`;
    this.features = [];
    this.layer = L.featureGroup().addTo(map);
    this.chosen = null;
    this.sketch = null;
    this.restore();
    map.on("click", (event) => this.corner(event.latlng));
    map.on("dblclick", () => this.finish());
    map.on("mousemove", (event) => this.stretch(event.latlng));
  }

  restore() {
    const kept = sessionStorage.getItem(this.key);
    if (kept) this.features = JSON.parse(kept);
    this.redraw();
  }

  begin(kind) {
    this.give_up();
    this.sketch = { kind, corners: [], line: L.polyline([], { color: "#111", weight: 2, dashArray: "4 4" }).addTo(this.map) };
    this.map.doubleClickZoom.disable();
    document.body.classList.add("drawing");
    byId(kind === "box" ? "draw-box" : "draw").classList.add("on");
  }

  corner(latlng) {
    if (!this.sketch) return;
    const last = this.sketch.corners.at(-1);
    if (last && this.map.latLngToLayerPoint(last).distanceTo(this.map.latLngToLayerPoint(latlng)) < 3) return;
    this.sketch.corners.push(latlng);
    if (this.sketch.kind === "box" && this.sketch.corners.length === 2) this.finish();
    else this.sketch.line.setLatLngs(this.sketch.corners);
  }

  stretch(latlng) {
    if (!this.sketch?.corners.length) return;
    const corners = [...this.sketch.corners, latlng];
    this.sketch.line.setLatLngs(this.sketch.kind === "box" ? this.ring(corners) : corners);
  }

  ring(corners) {
    if (this.sketch.kind !== "box") return [...corners, corners[0]];
    const box = L.latLngBounds(corners);
    return [box.getNorthWest(), box.getNorthEast(), box.getSouthEast(), box.getSouthWest(), box.getNorthWest()];
  }

  finish() {
    if (!this.sketch) return;
    const { corners, kind } = this.sketch;
    if (corners.length >= (kind === "box" ? 2 : 3)) {
      const ring = this.ring(corners).map((corner) => this.place.pixel(corner));
      this.add([feature({ type: "Polygon", coordinates: [ring] }, byId("class-name").value.trim() || "Region")]);
    }
    this.give_up();
  }

  give_up() {
    if (!this.sketch) return;
    this.sketch.line.remove();
    this.sketch = null;
    document.body.classList.remove("drawing");
    for (const id of ["draw", "draw-box"]) byId(id).classList.remove("on");
    setTimeout(() => this.map.doubleClickZoom.enable(), 300);
  }

  add(features) {
    this.features.push(...features);
    this.changed();
  }

  remove() {
    if (this.chosen === null) return;
    this.features.splice(this.chosen, 1);
    this.chosen = null;
    this.changed();
  }

  changed() {
    try {
      sessionStorage.setItem(this.key, JSON.stringify(this.features));
    } catch {
      say("These regions are too many to survive a reload; export them before you leave.");
    }
    this.redraw();
  }

  redraw() {
    this.layer.clearLayers();
    const names = this.features.map((one) => one.properties.classification.name);
    byId("classes").replaceChildren(...[...new Set(names)].map((name) => element("option", { value: name })));
    this.features.forEach((one, index) => {
      const rings = polygons(one.geometry).map((polygon) => polygon.map((ring) => ring.map(([x, y]) => this.place.latlng(x, y))));
      const [red, green, blue] = one.properties.classification.color;
      const shape = L.polygon(rings, { color: `rgb(${red},${green},${blue})`, weight: index === this.chosen ? 4 : 2, fillOpacity: 0.12, bubblingMouseEvents: true });
      shape.on("click", () => { if (!this.sketch) this.choose(index); });
      this.layer.addLayer(shape);
    });
    byId("regions").replaceChildren(...names.map((name, index) => {
      const button = element("button", { textContent: name, className: index === this.chosen ? "chosen" : "", onclick: () => { this.choose(index); this.map.fitBounds(this.layer.getLayers()[index].getBounds()); } });
      return element("li", {}, button);
    }));
    byId("remove").disabled = this.chosen === null;
  }

  choose(index) {
    this.chosen = index;
    this.redraw();
  }

  async read(file) {
    if (file.size > MOST_BYTES) return say("This file is too large for the regions of one slide.");
    let content;
    try {
      content = JSON.parse((await file.text()).replace(/^\ufeff/, ""));
    } catch {
      return say(`${file.name} is not GeoJSON; export it again from QuPath.`);
    }
    const given = Array.isArray(content) ? content : content?.features ?? [content];
    const usable = given.filter(isPolygon).map((one) => feature(one.geometry, nameOf(one), one.properties));
    say(usable.length < given.length ? `${given.length - usable.length} of ${given.length} objects are no polygons and were left out.` : "");
    if (usable.length) this.add(usable);
    return undefined;
  }

  export(name) {
    const content = JSON.stringify({ type: "FeatureCollection", features: this.features });
    const address = URL.createObjectURL(new Blob([content], { type: "application/geo+json" }));
    element("a", { href: address, download: `${name}.geojson` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }
}

const polygons = (geometry) => (geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates);

const isRing = (ring) => Array.isArray(ring) && ring.length >= 3 && ring.every((point) => Array.isArray(point) && point.length >= 2 && point.every(Number.isFinite));

function isPolygon(one) {
  const geometry = one?.geometry;
  if (geometry?.type !== "Polygon" && geometry?.type !== "MultiPolygon") return false;
  const parts = polygons(geometry);
  return Array.isArray(parts) && parts.length > 0 && parts.every((polygon) => Array.isArray(polygon) && polygon.length > 0 && polygon.every(isRing));
}

function nameOf(one) {
  const classification = one.properties?.classification;
  return String((typeof classification === "string" ? classification : classification?.name) ?? one.properties?.name ?? "Region").slice(0, 80);
}

function feature(geometry, name, properties = {}) {
  const given = properties?.classification?.color;
  const color = Array.isArray(given) && given.length === 3 && given.every(Number.isFinite) ? given : colourOf(name);
  return { type: "Feature", geometry, properties: { ...properties, objectType: "annotation", classification: { name, color } } };
}

// A class has the same colour each time it is named.
function colourOf(name) {
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  const PALETTE = [[200, 0, 0], [0, 90, 200], [0, 140, 60], [160, 60, 170], [210, 110, 0], [0, 140, 150], [120, 80, 30]];
  return PALETTE[hash % PALETTE.length];
}

// The map over the slide: numbers of colours from the server, coloured here, so that a threshold needs no request.

/* global L */

export const MapLayer = L.GridLayer.extend({
  initialize(slide, options) {
    L.GridLayer.prototype.initialize.call(this, { className: "map-tiles", ...options });
    this._slide = slide;
    this._hideBelow = 0;
  },

  show(kind, scale, description) {
    this._path = `map/${encodeURIComponent(kind)}/${scale}`;
    this._scale = description;
    this._colours = Uint8Array.from(description.palette.match(/../g), (two) => parseInt(two, 16));
    if (this._map) startAnew(this);
  },

  hideBelow(share) {
    this._hideBelow = share;
    for (const key of Object.keys(this._tiles ?? {})) this._paint(this._tiles[key].el);
  },

  createTile(coords, done) {
    const canvas = L.DomUtil.create("canvas", "map-tile");
    canvas.width = canvas.height = 256;
    fetch(`${this._slide}/${this._path}/${coords.z}/${coords.x}/${coords.y}`, { credentials: "same-origin" })
      .then((answer) => (answer.ok ? answer.arrayBuffer() : Promise.reject(new Error(`HTTP ${answer.status}`))))
      .then((content) => {
        canvas.steps = new Uint8Array(content);
        this._paint(canvas);
        done(null, canvas);
      })
      .catch((error) => done(error, canvas));
    return canvas;
  },

  // A signed map hides what is near zero, another what is low.
  _hides(step) {
    const along = (step - 1) / 254;
    return (this._scale.signed ? Math.abs(2 * along - 1) : along) < this._hideBelow;
  },

  _paint(canvas) {
    if (!canvas.steps) return;
    const context = canvas.getContext("2d");
    const image = context.createImageData(256, 256);
    const palette = new Uint32Array(256);
    const bytes = new Uint8Array(palette.buffer);
    for (let step = 1; step < 256; step += 1) {
      bytes.set(this._colours.subarray(3 * step - 3, 3 * step), 4 * step);
      bytes[4 * step + 3] = this._hides(step) ? 0 : 255;
    }
    const pixels = new Uint32Array(image.data.buffer);
    for (let index = 0; index < pixels.length; index += 1) pixels[index] = palette[canvas.steps[index]];
    context.putImageData(image, 0, 0);
  },
});

// Leaflet's own redraw asks for tiles of a broken step where the zoom is none of the whole steps.
export function startAnew(layer) {
  const map = layer._map;
  layer.remove();
  layer.addTo(map);
}

export function drawLegend(canvas, scale) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(255, 1);
  const colours = scale.palette.match(/../g).map((two) => parseInt(two, 16));
  for (let step = 0; step < 255; step += 1) image.data.set([...colours.slice(3 * step, 3 * step + 3), 255], 4 * step);
  for (let row = 0; row < canvas.height; row += 1) context.putImageData(image, 0, row);
}

// Which tile lies under a place: of overlapping ones that whose centre is nearest.
export function tileFinder(tiles) {
  const index = new Map(tiles.row.map((row, number) => [`${row},${tiles.column[number]}`, number]));
  const along = (value, axis) => Math.round((value - tiles.origin_px[axis] - tiles.footprint_px[axis] / 2) / tiles.stride_px[axis]);
  const inside = (value, axis, cell) => {
    const start = tiles.origin_px[axis] + cell * tiles.stride_px[axis];
    return value >= start && value < start + tiles.footprint_px[axis];
  };
  return (x, y) => {
    const [column, row] = [along(x, 0), along(y, 1)];
    const found = index.get(`${row},${column}`);
    return found !== undefined && inside(x, 0, column) && inside(y, 1, row) ? found : null;
  };
}

export function tileBounds(tiles, number) {
  const left = tiles.origin_px[0] + tiles.column[number] * tiles.stride_px[0];
  const top = tiles.origin_px[1] + tiles.row[number] * tiles.stride_px[1];
  return [left, top, left + tiles.footprint_px[0], top + tiles.footprint_px[1]];
}

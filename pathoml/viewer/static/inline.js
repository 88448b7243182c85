// A slide inside a notebook: a canvas that is dragged and zoomed; tiles come as messages from Python.

const TILE = 256;
const HEIGHT = 460;

function render({ model, el }) {
  const [width_px, height_px] = model.get("size_px");
  const deepest = model.get("deepest");
  const canvas = document.createElement("canvas");
  canvas.style.cssText = `width:100%;height:${HEIGHT}px;cursor:grab;background:#fff;border:1px solid #ddd;touch-action:none`;
  el.append(canvas);
  const tiles = new Map();
  const view = { x: 0, y: 0, scale: 1 };
  let asked = false;

  const key = (zoom, column, row) => `${zoom}/${column}/${row}`;

  function tile(zoom, column, row) {
    const name = key(zoom, column, row);
    if (!tiles.has(name)) {
      tiles.set(name, null);
      model.send({ zoom, column, row });
    }
    return tiles.get(name);
  }

  function draw() {
    asked = false;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const zoom = Math.max(0, Math.min(deepest, Math.ceil(deepest + Math.log2(view.scale))));
    const side = TILE * 2 ** (deepest - zoom);
    const last = [Math.ceil(width_px / side), Math.ceil(height_px / side)];
    const whole = tile(0, 0, 0);
    if (whole) place(context, whole, 0, 0, TILE * 2 ** deepest);
    for (let column = Math.max(0, Math.floor(view.x / side)); column < Math.min(last[0], (view.x + width / view.scale) / side); column += 1) {
      for (let row = Math.max(0, Math.floor(view.y / side)); row < Math.min(last[1], (view.y + height / view.scale) / side); row += 1) {
        const image = tile(zoom, column, row);
        if (image) place(context, image, column * side, row * side, side);
      }
    }
  }

  function place(context, image, x, y, side) {
    context.drawImage(image, (x - view.x) * view.scale, (y - view.y) * view.scale, side * view.scale, side * view.scale);
  }

  function soon() {
    if (!asked) requestAnimationFrame(draw);
    asked = true;
  }

  model.on("msg:custom", async (message, buffers) => {
    if (!message.place || !buffers[0]?.byteLength) return;
    tiles.set(key(...message.place), await createImageBitmap(new Blob([buffers[0]], { type: "image/jpeg" })));
    soon();
  });

  let grip = null;
  canvas.addEventListener("pointerdown", (event) => { grip = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { grip = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (!grip) return;
    view.x -= (event.clientX - grip[0]) / view.scale;
    view.y -= (event.clientY - grip[1]) / view.scale;
    grip = [event.clientX, event.clientY];
    soon();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    const [dx, dy] = [event.clientX - box.left, event.clientY - box.top];
    const next = Math.max(fitting() / 2, Math.min(4, view.scale * 2 ** (-event.deltaY / 300)));
    view.x += dx / view.scale - dx / next;
    view.y += dy / view.scale - dy / next;
    view.scale = next;
    soon();
  }, { passive: false });

  const fitting = () => Math.min((canvas.clientWidth || 800) / width_px, HEIGHT / height_px);

  requestAnimationFrame(() => {
    view.scale = fitting();
    view.x = (width_px - (canvas.clientWidth || 800) / view.scale) / 2;
    view.y = (height_px - HEIGHT / view.scale) / 2;
    draw();
  });
  new ResizeObserver(soon).observe(canvas);
}

export default { render };

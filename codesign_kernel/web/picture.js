// The browser's side of `widgets.Picture`. Params go one way only, from Python to the picture: one
// that came back late would undo what the slider has done since. Vega's own selections are not
// used: to find the nearest of 5,000 points they redraw a Voronoi diagram with every frame.
// vegaEmbed comes with the bundle that `widgets.bundle` makes of this file.
const REACH = 40; // pixels around a click: points are small, fingers are not

async function render({ model, el }) {
  let view = null;
  let finish = null;
  let last = Promise.resolve();
  let due = false;
  let width = 0;

  async function draw() {
    while (el.clientWidth === 0) await new Promise(requestAnimationFrame); // not on the page yet
    finish?.();
    el.style.minHeight = `${el.offsetHeight}px`; // the page does not jump meanwhile
    const options = structuredClone(model.get("embed_options"));
    const made = await vegaEmbed(el, structuredClone(model.get("spec")), options);
    el.style.minHeight = "";
    ({ view, finalize: finish } = made);
    view.addEventListener("click", (event) => {
      const datum = nearest(view, event);
      if (datum !== null) model.send(datum);
    });
    await update();
  }

  async function update() {
    due = false;
    if (view === null) return;
    for (const [name, value] of Object.entries(model.get("_params"))) view.signal(name, value);
    await view.runAsync();
  }

  const redraw = () => (last = last.then(draw)); // one after the other
  const changed = () => {
    if (!due) requestAnimationFrame(update); // at most once a frame
    due = true;
  };
  const resized = new ResizeObserver(() => {
    if (el.clientWidth === width) return;
    width = el.clientWidth;
    window.dispatchEvent(new Event("resize")); // Vega measures its container on this
  });
  resized.observe(el);
  model.on("change:spec", redraw);
  model.on("change:_params", changed);
  await redraw();
  return () => {
    resized.disconnect();
    model.off("change:spec", redraw);
    model.off("change:_params", changed);
    finish?.();
  };
}

// The datum of the visible symbol nearest to the click that has a number `n`, or null.
function nearest(view, event) {
  const corner = event.target.getBoundingClientRect();
  const [left, top] = view.origin();
  const [x, y] = [event.clientX - corner.left - left, event.clientY - corner.top - top];
  let best = null;
  let least = REACH ** 2;
  const visit = (mark) => {
    for (const item of mark.items) {
      if (mark.marktype === "group") {
        item.items.forEach(visit);
      } else if (mark.marktype === "symbol" && item.datum?.n !== undefined) {
        const distance = (item.x - x) ** 2 + (item.y - y) ** 2;
        if (distance < least) [least, best] = [distance, item.datum];
      }
    }
  };
  visit(view.scenegraph().root);
  return best === null ? null : JSON.parse(JSON.stringify(best));
}

export default { render };

// The browser's side of `widgets.Said`. The element stays and only what is in it changes, else a
// screen reader would not read it out.
function render({ model, el }) {
  const show = () => {
    el.innerHTML = model.get("value");
  };
  el.setAttribute("role", "status");
  model.on("change:value", show);
  show();
  return () => model.off("change:value", show);
}

export default { render };

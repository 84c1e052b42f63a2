// The browser's side of `widgets.Bound`: a slider and a number field that hold one value. They are
// the browser's own, so that both have a name, and the keyboard, touch and a screen reader work.
function render({ model, el }) {
  const id = `bound-${Math.random().toString(36).slice(2)}`; // each bound loads this file anew
  const name = document.createElement("label");
  const slider = document.createElement("input");
  const number = document.createElement("input");
  const unit = document.createElement("span");
  const note = document.createElement("output"); // what was typed and could not be taken
  slider.type = "range";
  slider.id = name.htmlFor = id;
  slider.min = 0;
  slider.step = 1;
  number.type = "number";
  number.step = "any";
  el.classList.add("codesign-bound");
  el.replaceChildren(name, number, unit, slider, note);

  // The slider counts steps from the least to the greatest value, linear or logarithmic.
  const scale = () => {
    const [low, high] = [model.get("low"), model.get("high")];
    const log = model.get("log");
    const factor = 10 ** model.get("digits");
    const steps = log ? 200 : Math.max(1, Math.min(200, Math.round((high - low) * factor)));
    const to = (value) =>
      (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low)) * steps;
    const from = (step) => {
      if (step <= 0) return low;
      if (step >= steps) return high;
      const value = log ? low * (high / low) ** (step / steps) : low + ((high - low) * step) / steps;
      return Math.round(value * factor) / factor;
    };
    return { low, high, steps, to, from };
  };

  const show = () => {
    const { low, high, steps, to } = scale();
    const value = model.get("value");
    const named = `${model.get("label")}, ${model.get("sense")}`;
    note.textContent = "";
    name.textContent = named;
    unit.textContent = model.get("unit");
    slider.max = steps;
    slider.value = high > low ? Math.round(to(value)) : 0;
    slider.setAttribute("aria-valuetext", `${value} ${model.get("unit")}`);
    number.min = low;
    number.max = high;
    if (document.activeElement !== number || number.valueAsNumber !== value) number.value = value;
    number.setAttribute("aria-label", `${named}, in ${model.get("unit")}`);
  };

  const send = (value, told = "") => {
    model.set("value", value);
    model.save_changes();
    show();
    note.textContent = told;
  };

  slider.addEventListener("input", () => send(scale().from(Number(slider.value))));
  number.addEventListener("change", () => {
    const { low, high } = scale();
    const typed = number.valueAsNumber; // NaN if it is no number
    const value = Number.isNaN(typed) ? model.get("value") : Math.min(high, Math.max(low, typed));
    const asked = Number.isNaN(typed) ? "What was typed is no number" : `${typed} is out of range`;
    const range = `from ${low} to ${high} ${model.get("unit")}`;
    send(value, value === typed ? "" : `${asked}: it can be ${range}, and is now ${value}.`);
  });
  model.on("change", show);
  show();
  return () => model.off("change", show);
}

export default { render };

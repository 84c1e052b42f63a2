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
  number.type = "text"; // a browser's own number field drops a decimal comma without a word
  number.inputMode = "decimal";
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
    if (document.activeElement !== number || Number(number.value) !== value) number.value = value;
    number.setAttribute("aria-label", `${named}, in ${model.get("unit")}`);
    number.title = range(low, high);
  };

  const range = (low, high) => `from ${low} to ${high} ${model.get("unit")}`;

  const send = (value, told = "") => {
    model.set("value", value);
    model.save_changes();
    show();
    note.textContent = told;
  };

  slider.addEventListener("input", () => send(scale().from(Number(slider.value))));
  number.addEventListener("change", () => {
    const { low, high } = scale();
    const text = number.value.trim();
    const typed = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : NaN;
    const whole = model.get("digits") === 0;
    let value = Math.min(high, Math.max(low, typed));
    let wrong = value === typed ? "" : "is out of range";
    if (Number.isNaN(typed)) {
      [value, wrong] = [model.get("value"), "is no number with a decimal point"];
    } else if (whole && !Number.isInteger(typed)) {
      [value, wrong] = [Math.floor(value), "is no whole number"];
    }
    send(value, wrong && `“${text}” ${wrong}: it can be ${range(low, high)}, and is now ${value}.`);
  });
  model.on("change", show);
  show();
  return () => model.off("change", show);
}

export default { render };

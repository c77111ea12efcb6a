
"use strict";
// Curves: the numbers nearest to the pointer, or to where the arrow keys have gone.
for (const curve of document.querySelectorAll(".curve")) {
  const told = JSON.parse(curve.dataset.curves);
  const out = curve.parentElement.querySelector(".readout");
  const cursor = curve.querySelector(".cursor");
  const steps = [...new Set(told.series.flatMap((line) => line.x))].sort((a, b) => a - b);
  let at = steps.length - 1;
  const nearest = (list, step) => list.reduce((best, each, index) => (Math.abs(each - step) < Math.abs(list[best] - step) ? index : best), 0);
  const show = (index) => {
    at = Math.min(Math.max(index, 0), steps.length - 1);
    const step = steps[at], reach = told.to - told.from || 1;
    const x = told.left + ((step - told.from) / reach) * (told.right - told.left);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    curve.classList.add("on");
    const words = told.series.filter((line) => line.x.length).map((line) => {
      const value = line.y[nearest(line.x, step)];
      return line.name + " " + (value === null ? "not finite" : Number(value.toPrecision(4)));
    });
    out.textContent = "step " + step.toLocaleString("en") + ": " + words.join(", ");
  };
  curve.addEventListener("pointermove", (event) => {
    const box = curve.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * told.width;
    show(nearest(steps, told.from + ((x - told.left) / (told.right - told.left)) * (told.to - told.from)));
  });
  curve.addEventListener("pointerleave", () => { curve.classList.remove("on"); out.textContent = ""; });
  curve.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -steps.length, End: steps.length }[event.key];
    if (by) { event.preventDefault(); show(at + by); }
  });
}
// Pictures through time: one at once, chosen by a slider; without this script all of them are there.
for (const slides of document.querySelectorAll(".slides")) {
  const figures = [...slides.querySelectorAll("figure")];
  if (figures.length < 2) continue;
  const label = document.createElement("label"), slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: figures.length - 1, value: figures.length - 1 });
  label.textContent = slides.dataset.label;
  label.append(document.createElement("br"), slider);
  slides.prepend(label);
  slides.classList.add("sliding");
  const show = () => {
    figures.forEach((figure, index) => figure.classList.toggle("now", index === Number(slider.value)));
    slider.setAttribute("aria-valuetext", figures[slider.value].querySelector("figcaption").textContent);
  };
  slider.addEventListener("input", show);
  show();
}
// On paper nothing is folded but keys at their defaults.
addEventListener("beforeprint", () => document.querySelectorAll("section > details").forEach((each) => { each.open = true; }));

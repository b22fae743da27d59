"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("map-data").textContent);
  const plot = find("map-plot"), dots = [...plot.querySelectorAll("circle")];
  const colour = find("map-colour"), kind = find("map-kind"), name = find("map-name"), near = find("map-near");

  const paint = () => {
    const chosen = data.colours[colour.value];
    if (!chosen) return;
    dots.forEach((dot, i) => { dot.dataset.group = chosen.groups[i]; });
    dots.forEach((dot) => { dot.setAttribute("class", `g${dot.dataset.group}`); });
    find("map-key").replaceChildren(...chosen.values.flatMap((value, group) => {
      const key = document.createElement("span"), both = document.createElement("span");
      key.className = `key g${group}`;
      both.className = "nowrap";
      both.append(key, value);
      return [both, " "];
    }));
  };
  const place = () => {
    const places = data.maps[kind.value];
    dots.forEach((dot, i) => { dot.setAttribute("cx", places[i][0]); dot.setAttribute("cy", 1000 - places[i][1]); });
  };
  const row = (other, cosine) => {
    const line = document.createElement("li"), button = document.createElement("button");
    button.textContent = data.names[other];
    button.onclick = () => show(other);
    line.append(button, ` ${cosine.toFixed(3)}`);
    return line;
  };
  const show = (i) => {
    const others = data.near[i];
    dots.forEach((dot) => dot.classList.remove("chosen", "near"));
    others.forEach(([other]) => { dots[other].classList.add("near"); plot.append(dots[other]); });
    dots[i].classList.add("chosen");
    plot.append(dots[i]);
    name.value = data.names[i];
    const title = document.createElement("h3"), list = document.createElement("ol"), note = document.createElement("p");
    title.textContent = data.names[i];
    note.textContent = "nearest, with cosines";
    note.className = "note";
    list.append(...others.map(([other, cosine]) => row(other, cosine)));
    near.replaceChildren(title, note, list);
  };
  colour.onchange = paint;
  if (kind) kind.onchange = place;
  dots.forEach((dot, i) => {
    dot.onclick = () => show(i);
    const label = document.createElementNS("http://www.w3.org/2000/svg", "title");
    label.textContent = data.names[i];
    dot.append(label);
  });
  name.oninput = () => {
    const wanted = name.value.toLowerCase();
    const exact = data.names.findIndex((each) => each.toLowerCase() === wanted);
    const found = exact >= 0 || wanted.length < 3 ? exact : data.names.findIndex((each) => each.toLowerCase().includes(wanted));
    if (exact >= 0) show(exact);
    else if (found >= 0) { const typed = name.value; show(found); name.value = typed; }
  };
})();

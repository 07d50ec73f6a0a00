/** The cursor, the ends and the path, drawn over the map. */

const NAMESPACE = "http://www.w3.org/2000/svg";

function shape(parent, kind, attributes) {
  const element = document.createElementNS(NAMESPACE, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return parent.appendChild(element);
}

function place(element, at) {
  element.toggleAttribute("hidden", !at);
  if (at) element.setAttribute("transform", `translate(${at.x} ${at.y})`);
}

export class Overlay {
  constructor(svg) {
    this.halo = shape(svg, "line", { class: "path-halo" });
    this.line = shape(svg, "line", { class: "path-line" });
    this.ends = ["a", "b"].map((name) => this.#end(svg, name));
    this.cursor = shape(svg, "g", { class: "cursor" });
    for (const part of ["halo", "ring"]) {
      shape(this.cursor, "path", { class: part, d: "M0 -16V-7M0 7V16M-16 0H-7M7 0H16M0 -9a9 9 0 1 0 .01 0" });
    }
  }

  #end(svg, name) {
    const group = shape(svg, "g", { class: `end-mark ${name}`, hidden: "" });
    shape(group, "circle", { r: 11 });
    shape(group, "text", { dy: "0.35em" }).textContent = name.toUpperCase();
    return group;
  }

  /** Each place is in pixels or null. */
  draw({ cursor, a, b }) {
    place(this.cursor, cursor);
    [a, b].forEach((at, index) => place(this.ends[index], at));
    for (const line of [this.halo, this.line]) {
      line.toggleAttribute("hidden", !(a && b));
      if (a && b) {
        const ends = { x1: a.x, y1: a.y, x2: b.x, y2: b.y };
        for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
      }
    }
  }
}

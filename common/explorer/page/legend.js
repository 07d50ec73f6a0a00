import { STYLES } from "explorer/traces.js";

/** The mark of a class as SVG text. */
export function mark(index) {
  const { colour, path } = STYLES[index];
  return `<svg class="mark" viewBox="0 0 16 16" aria-hidden="true"><path fill="${colour}" fill-rule="evenodd" d="${path}"/></svg>`;
}

/** A button for each class: what its points look like, how many there are, and whether they are shown. */
export function fillLegend(host, { classNames, classes }, store) {
  const buttons = classNames.map((name, index) => {
    const count = classes.filter((value) => value === index).length;
    const button = document.createElement("button");
    button.type = "button";
    button.innerHTML = mark(index);
    button.append(name, Object.assign(document.createElement("span"), { textContent: count }));
    button.addEventListener("click", () => {
      store.set({ visible: store.get("visible").map((shown, other) => (other === index ? !shown : shown)) });
    });
    return button;
  });
  host.append(...buttons);
  store.subscribe(["visible"], () => {
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", store.get("visible")[index]));
  });
}

import { mark } from "explorer/legend.js";
import { drawTile } from "explorer/pictures.js";
import { clamp } from "explorer/vectors.js";

const GAP = 14; // pixels between the pointer and the tooltip

/** Thumbnail, class and caption of the point under the pointer. */
export function showTooltip(elements, data, store) {
  const { tooltip, map, surface } = elements;
  const draw = () => {
    const row = store.get("hovered");
    tooltip.hidden = row === null;
    if (row === null) return;
    drawTile(elements.image, data.thumbnails, row);
    elements.kind.innerHTML = mark(data.classes[row]);
    elements.kind.append(data.classNames[data.classes[row]]);
    elements.name.textContent = data.names[row];
    const { x, y } = store.get("pointer");
    const left = surface.offsetLeft + x + GAP;
    const beside = left + tooltip.offsetWidth < map.clientWidth ? left : left - 2 * GAP - tooltip.offsetWidth;
    const top = clamp(surface.offsetTop + y + GAP, 4, map.clientHeight - tooltip.offsetHeight - 4);
    tooltip.style.transform = `translate(${Math.max(beside, 4)}px, ${top}px)`;
  };
  store.subscribe(["hovered", "pointer"], draw);
}

import { FrameLoop } from "explorer/frames.js";
import { mark } from "explorer/legend.js";
import { drawGrey, drawTile } from "explorer/pictures.js";
import { nearest } from "explorer/points.js";

const SUBSCRIPTS = ["₁", "₂", "₃"];
const STEPS = 1000; // of a slider over its range

/** A number with a true minus sign and as many digits as a caption needs. */
export const short = (value) => value.toFixed(2).replace("-", "−");
export const shortLatent = (latent) => latent.map(short).join(", ");

/** Decodes at the cursor whenever it has moved: once for each picture that the screen shows. */
export function showDecoded({ canvas, rate }, data, decoder, frames, store) {
  const loop = new FrameLoop(() => {
    frames.run(() => drawGrey(canvas, decoder.decode(store.get("cursor")), data.imageSize));
    const perSecond = frames.perSecond;
    const often = perSecond >= 5 ? ` · ${Math.round(perSecond)} images/s` : "";
    rate.textContent = `Decoded in this page in ${frames.milliseconds.toFixed(1)} ms${often}`;
  });
  store.subscribe(["cursor"], () => loop.request());
}

/** Thumbnail and caption of the point nearest to the cursor, by Euclidean distance. */
export function showNearest({ canvas, name, kind }, data, store) {
  store.subscribe(["cursor"], () => {
    const row = nearest(data.points, store.get("cursor"));
    if (row === store.get("nearest")) return;
    store.set({ nearest: row });
    drawTile(canvas, data.thumbnails, row);
    name.textContent = data.names[row];
    name.title = data.names[row];
    kind.innerHTML = mark(data.classes[row]);
    kind.append(data.classNames[data.classes[row]]);
  });
}

/** A slider for each coordinate of the cursor. */
export function fillSliders(host, box, map, store) {
  const rows = box.low.map((low, axis) => {
    const input = Object.assign(document.createElement("input"), { type: "range", min: 0, max: STEPS, id: `z${axis}` });
    const label = Object.assign(document.createElement("label"), { htmlFor: input.id, textContent: `z${SUBSCRIPTS[axis]}` });
    const output = document.createElement("output");
    const span = box.high[axis] - low;
    input.addEventListener("input", () => {
      map.put("cursor", store.get("cursor").with(axis, low + (input.value / STEPS) * span));
    });
    host.append(label, input, output);
    return { input, output, toStep: (value) => ((value - low) / span) * STEPS };
  });
  store.subscribe(["cursor"], () => {
    store.get("cursor").forEach((value, axis) => {
      rows[axis].input.value = rows[axis].toStep(value);
      rows[axis].input.setAttribute("aria-valuetext", short(value));
      rows[axis].output.textContent = short(value);
    });
  });
}

/** How images and classes are drawn: canvases, Plotly traces, the legend. */

/** Draws grey levels (size * size bytes, rows first) on a canvas of that size. */
export function drawGrey(canvas, grey, size) {
  if (canvas.width !== size || canvas.height !== size) Object.assign(canvas, { width: size, height: size });
  canvas.getContext("2d").putImageData(greyImage(grey, size), 0, 0);
}

/** Grey levels as an ImageData. */
export function greyImage(grey, size) {
  const image = new ImageData(size, size);
  const pixels = new Uint32Array(image.data.buffer);
  for (let k = 0; k < grey.length; k++) pixels[k] = 0xff000000 | (grey[k] * 0x010101);
  return image;
}

/** Draws the tile of a sheet that is filled row by row. */
export function drawTile(canvas, { sheet, size, columns }, index) {
  if (canvas.width !== size) Object.assign(canvas, { width: size, height: size });
  const [column, row] = [index % columns, Math.floor(index / columns)];
  canvas.getContext("2d").drawImage(sheet, column * size, row * size, size, size, 0, 0, size, size);
}

/**
 * Colours (after Okabe and Ito, for colour-blind readers) and shapes of the classes. In three dimensions Plotly's
 * shapes are letters of a font; its "x" is one that many machines lack.
 */
export const STYLES = [
  { colour: "#0072b2", symbol: "circle", path: "M8 3a5 5 0 1 0 .01 0z" },
  { colour: "#d55e00", symbol: "diamond", path: "M8 2l6 6-6 6-6-6z", factor: 0.85 },
  { colour: "#00795a", symbol: "square", path: "M3.5 3.5h9v9h-9z" },
  { colour: "#a0447f", symbol: "cross", path: "M6.5 3h3v3.5H13v3H9.5V13h-3V9.5H3v-3h3.5z" },
  { colour: "#222222", symbol: "circle-open", path: "M8 3a5 5 0 1 0 .01 0zm0 2a3 3 0 1 1-.01 0z" },
  { colour: "#8a6d00", symbol: "diamond-open", path: "M8 2l6 6-6 6-6-6zm0 3l-3 3 3 3 3-3z" },
];

// Without an outline: Plotly draws it over the mark, which would cover these in three dimensions.
const THIN = ["cross", "circle-open", "diamond-open"];

/** One Plotly trace for each class. */
export function classTraces({ points, classes, classNames, dimensions }, size) {
  return classNames.map((name, index) => {
    const own = points.filter((_, row) => classes[row] === index);
    const { colour, symbol, factor = 1 } = STYLES[index];
    const keys = ["x", "y", "z"].slice(0, dimensions);
    const outline = { color: "#ffffff", width: THIN.includes(symbol) ? 0 : 0.8 };
    return {
      ...Object.fromEntries(keys.map((key, axis) => [key, own.map((point) => point[axis])])),
      name,
      type: dimensions === 3 ? "scatter3d" : "scatter",
      mode: "markers",
      hoverinfo: "skip",
      marker: { color: colour, symbol, size: size * factor, line: outline },
    };
  });
}

/** The axes' look, the same in two and three dimensions. */
export const AXIS = {
  zeroline: false,
  gridcolor: "#dfe4ec",
  linecolor: "#b9c2d0",
  tickfont: { size: 11, color: "#4c586a" },
  fixedrange: true,
};

/** Plotly only draws; the gestures are the page's own. */
export const CONFIG = {
  displayModeBar: false,
  doubleClick: false,
  scrollZoom: false,
  plotGlPixelRatio: Math.min(window.devicePixelRatio, 2), // Plotly would draw four pixels for one of the screen
};

/** The layout that both views share: the size of the host, without Plotly's legend and gestures. */
export function layoutOf(host) {
  return {
    width: host.clientWidth,
    height: host.clientHeight,
    autosize: false,
    showlegend: false,
    hovermode: false,
    dragmode: false,
    font: { family: "system-ui, sans-serif", size: 12, color: "#333e4d" },
  };
}

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

/**
 * How classes look: colours that colour-blind people tell apart (after Okabe and Ito), and a shape for each. In
 * three dimensions Plotly's shapes are letters of a font; its "x" is one that many machines lack.
 */
export const STYLES = [
  { colour: "#0072b2", symbol: "circle", path: "M8 3a5 5 0 1 0 .01 0z" },
  { colour: "#d55e00", symbol: "diamond", path: "M8 2l6 6-6 6-6-6z", factor: 0.85 },
  { colour: "#00795a", symbol: "square", path: "M3.5 3.5h9v9h-9z" },
  { colour: "#a0447f", symbol: "cross", path: "M6.5 3h3v3.5H13v3H9.5V13h-3V9.5H3v-3h3.5z" },
  { colour: "#222222", symbol: "circle-open", path: "M8 3a5 5 0 1 0 .01 0zm0 2a3 3 0 1 1-.01 0z" },
  { colour: "#8a6d00", symbol: "diamond-open", path: "M8 2l6 6-6 6-6-6zm0 3l-3 3 3 3 3-3z" },
];

// An outline, which Plotly draws over the mark, would leave nothing of them in three dimensions.
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

/** Gestures are the page's own: Plotly draws. */
export const CONFIG = {
  displayModeBar: false,
  doubleClick: false,
  scrollZoom: false,
  plotGlPixelRatio: Math.min(window.devicePixelRatio, 2), // Plotly would draw four pixels for one of the screen
};

/** What every map's layout has: the size of its host, and no legend or gestures of Plotly's own. */
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

/** Keys on the map. Letters and signs act only while the map has the focus. */

const [STEP, ZOOM] = [12, 1.2]; // pixels; factor of one press
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function listenToKeys(map, path, player, store) {
  const space = map.data.dimensions === 3;
  const arrow = (event) => {
    const [x, y] = ARROWS[event.key];
    if (event.shiftKey && space) return map.view.turn(x * 3 * STEP, y * 3 * STEP);
    const step = event.shiftKey ? 4 * STEP : STEP;
    return map.nudge(x * step, y * step);
  };
  const actions = {
    "+": () => map.zoom(ZOOM),
    "=": () => map.zoom(ZOOM),
    "-": () => map.zoom(1 / ZOOM),
    "0": () => map.view.reset(),
    " ": () => player.toggle(),
    a: () => path.setHere("a"),
    b: () => path.setHere("b"),
    Enter: () => map.put("cursor", map.data.points[store.get("nearest")]),
    Escape: () => store.set({ armed: null, hovered: null, playing: false }),
  };
  if (space) Object.assign(actions, { PageUp: () => map.push(STEP), PageDown: () => map.push(-STEP) });
  for (const key of Object.keys(ARROWS)) actions[key] = arrow;

  map.surface.addEventListener("keydown", (event) => {
    const action = actions[event.key] ?? actions[event.key.toLowerCase()];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action(event);
  });
}

/** What the help lists: keys and gestures, and what they do. */
export function helpRows(dimensions) {
  const space = dimensions === 3;
  return [
    ["Click or tap", space ? "decode a point, or the place under the pointer at the cursor's depth" : "decode that place"],
    ["Drag the ring", "decode on the way"],
    ["Drag elsewhere", space ? "rotate" : "move the map"],
    ...(space ? [["Shift + drag, right button", "move the view"]] : []),
    ["Wheel, pinch, + −", "zoom"],
    ["Arrow keys", "move the cursor" + (space ? " in the plane of the screen" : "; with Shift farther")],
    ...(space ? [["Page up, page down", "move the cursor away and nearer"], ["Shift + arrows", "rotate"]] : []),
    ["Enter", "jump to the nearest point"],
    ["A, B", "put an end of the path at the cursor"],
    ["Space", "play or pause the path"],
    ["0", "show everything"],
  ];
}

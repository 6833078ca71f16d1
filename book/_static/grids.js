// Chapters 2 and 3, live: a glimpse's grid in the hand, and a window that descends a loss.
"use strict";

const Grids = (() => {
  const { clamp, element, button, screen, paint, outline } = Touch;
  const N = 12;

  // ---- gradients ----

  // dF[i, a] / dmu = F[i, a] (a - sum_a F[i, a] a) / sigma^2, row by row.
  function slope(F, sigma, pixels) {
    const D = new Float64Array(F.length);
    for (let row = 0; row < F.length; row += pixels) {
      let mean = 0;
      for (let a = 0; a < pixels; a++) mean += F[row + a] * a;
      for (let a = 0; a < pixels; a++) D[row + a] = (F[row + a] * (a - mean)) / sigma ** 2;
    }
    return D;
  }

  // The glimpse, and its derivatives with respect to the grid's centre, per pixel.
  function readWithSlopes(image, side, grid) {
    const { g, F_x, F_y, rows } = Looking.read(image, side, grid, N);
    const { product, transpose } = Looking;
    const D_x = transpose(slope(F_x, grid.sigma, side), N, side);
    const D_y = product(slope(F_y, grid.sigma, side), image, N, side, side);
    const g_x = product(rows, D_x, N, side, N).map(value => grid.gamma * value);
    const g_y = product(D_y, transpose(F_x, N, side), N, side, N).map(value => grid.gamma * value);
    return { g, g_x, g_y, F_x, F_y };
  }

  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const sum = a => a.reduce((total, value) => total + value, 0);

  // Two teachers: the glimpse should be the one that a perfect window gives, or be bright.
  //   L(c) = || g(c) - g(c*) ||^2      L'(c) = - sum_ij g_ij(c)
  function lossOf(g, wanted) {
    return wanted ? sum(g.map((value, i) => (value - wanted[i]) ** 2)) : -sum(g);
  }

  function push(read, wanted) { // the gradient of the loss, per pixel
    const { g, g_x, g_y } = read;
    if (!wanted) return [-sum(g_x), -sum(g_y)];
    const miss = g.map((value, i) => 2 * (value - wanted[i]));
    return [dot(miss, g_x), dot(miss, g_y)];
  }

  // A window of chapter 3, `width` pixels wide: sigma = delta / 2 + 0.3.
  const windowAt = (x, y, width) =>
    ({ x, y, delta_x: width / N, delta_y: width / N, sigma: width / N / 2 + 0.3, gamma: 1 });

  // Adam on the centre in [-1, 1]; the places after each step, and the losses at them.
  function descend(image, side, start, width, wanted, steps = 80, rate = 0.03) {
    const half = (side - 1) / 2;
    const centre = start.map(value => value / half - 1);
    const [m, v, path] = [[0, 0], [0, 0], []];
    for (let t = 1; t <= steps + 1; t++) {
      const place = centre.map(value => half * (value + 1));
      const read = readWithSlopes(image, side, windowAt(...place, width));
      path.push({ place, loss: lossOf(read.g, wanted) });
      push(read, wanted).forEach((slope, k) => {
        const gradient = slope * half;
        m[k] = 0.9 * m[k] + 0.1 * gradient;
        v[k] = 0.999 * v[k] + 0.001 * gradient ** 2;
        centre[k] -= (rate * (m[k] / (1 - 0.9 ** t))) / (Math.sqrt(v[k] / (1 - 0.999 ** t)) + 1e-8);
      });
    }
    return path;
  }

  // ---- what both pages use ----

  // A slider; on a logarithmic scale, equal steps are equal factors.
  function slider(name, low, high, value, change, log = true) {
    const to = log ? Math.log : Number, from = log ? Math.exp : Number;
    const input = element("input", { type: "range", step: "any", min: to(low), max: to(high), value: to(value) });
    const output = element("output");
    const show = () => {
      output.textContent = from(+input.value).toFixed(2);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => { show(); change(from(+input.value)); });
    // By keys, a step is a fortieth of the range.
    input.addEventListener("keydown", event => {
      const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      input.value = +input.value + (way * (to(high) - to(low))) / 40;
      input.dispatchEvent(new Event("input"));
    });
    show();
    return element("label", {}, name, input, output);
  }

  const named = (letter, axis) => element("span", {}, letter, element("sub", {}, axis));

  function arrow(context, x, y, dx, dy, colour) {
    const turn = Math.atan2(dy, dx);
    for (const [style, width] of [["#202020", 2.2], [colour, 1.2]]) {
      Object.assign(context, { strokeStyle: style, lineWidth: width, lineCap: "round" });
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(x + dx, y + dy);
      for (const side of [-0.5, 0.5]) {
        context.moveTo(x + dx, y + dy);
        context.lineTo(x + dx - 4 * Math.cos(turn + side), y + dy - 4 * Math.sin(turn + side));
      }
      context.stroke();
    }
  }

  const signed = value => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(3);
  const normal = values => { const most = Math.max(...values, 1e-9); return values.map(value => value / most); };

  // ---- chapter 2: the grid in your hand ----

  function grid(figure) {
    const scene = new Touch.Scene(window.RAMLIB_DIGITS);
    const side = scene.side, colours = window.RAMLIB_DIGITS.colours;
    const at = { ...windowAt(scene.digit.x + 21, scene.digit.y + 17, 30), sigma: 1.25 };
    const canvas = screen(side, { class: "touch-canvas", tabindex: 0, role: "application",
      "aria-label": "Canvas with a window. Arrow keys move the window." });
    const across = element("canvas", { width: 600, height: 120, role: "img", "aria-label": "Filterbank F x: a row for each filter, a column for each column of the canvas." });
    const down = element("canvas", { width: 120, height: 600, role: "img", "aria-label": "Filterbank F y: a column for each filter, a row for each row of the canvas." });
    const glimpse = screen(N, { class: "touch-glimpse", role: "img", "aria-label": "The glimpse, 12 by 12 cells." }, 20);
    const large = screen(N, { "aria-hidden": "true" }, 20);
    const { node, say } = Touch.status();

    function draw() {
      const image = scene.image();
      const read = readWithSlopes(image, side, at);
      const [dx, dy] = push(read, null).map(value => -value); // towards a brighter glimpse
      figure.grid = { ...at, dx, dy };
      const context = paint(canvas, image, side);
      outline(context, Looking.boxOf(at, N), 0, side, "");
      context.fillStyle = colours[0];
      for (let i = 0; i < N * N; i++) {
        const [x, y] = [i % N, Math.floor(i / N)].map(k => k - (N - 1) / 2);
        context.fillRect(at.x + x * at.delta_x + 0.2, at.y + y * at.delta_y + 0.2, 0.6, 0.6);
      }
      context.beginPath(); // a filter, to one sigma
      context.strokeStyle = colours[0];
      context.lineWidth = 0.4;
      context.arc(at.x + 0.5 - at.delta_x / 2, at.y + 0.5 - at.delta_y / 2, at.sigma, 0, 2 * Math.PI);
      context.stroke();
      // The arrow grows with the logarithm of the gradient, and is gone below a thousandth.
      const size = Math.hypot(dx, dy), length = 6 * clamp(Math.log10(size + 1e-30) + 3, 0, 5);
      if (length) arrow(context, at.x + 0.5, at.y + 0.5, (dx / size) * length, (dy / size) * length, colours[1]);
      paint(across, normal(read.F_x), side, N);
      paint(down, normal(Looking.transpose(read.F_y, N, side)), N, side);
      for (const picture of [glimpse, large]) paint(picture, read.g, N);
      const felt = length ? `the gradient is (${signed(dx)}, ${signed(dy)}) per pixel` : "the gradient is as good as nothing";
      say(`The window stands at (${Math.round(at.x)}, ${Math.round(at.y)}). The glimpse's brightness ` +
        `sums to ${sum(read.g).toFixed(1)}, and ${felt}: the blue arrow shows where it becomes brighter.`);
    }

    const move = (x, y) => {
      Object.assign(at, { x: clamp(x, 0, side - 1), y: clamp(y, 0, side - 1) });
      draw();
    };
    Touch.draggable(canvas, side, (x, y) => {
      const [left, top, right, bottom] = Looking.boxOf(at, N);
      if (x < left - 3 || x > right + 3 || y < top - 3 || y > bottom + 3) return null;
      const [dx, dy] = [at.x - x, at.y - y];
      return (px, py) => move(px + dx, py + dy);
    });
    Touch.arrowKeys(canvas, (dx, dy) => move(at.x + dx, at.y + dy));
    const set = name => value => { at[name] = value; draw(); };
    Touch.replaceStill(figure,
      element("div", { class: "touch-matrices" }, canvas, down, across, glimpse),
      element("div", { class: "touch-side" },
        element("div", { class: "touch-controls" },
          element("div", {}, "Drag the window. Beside the canvas stands ", named("F", "y"), ", below it ", named("F", "x"), ", and in the corner what they read."),
          slider(named("\u03b4", "x"), 0.1, 9, at.delta_x, set("delta_x")),
          slider(named("\u03b4", "y"), 0.1, 9, at.delta_y, set("delta_y")),
          slider("\u03c3", 0.1, 20, at.sigma, set("sigma")),
          slider("\u03b3", 0.25, 4, at.gamma, set("gamma")),
          button("Another canvas", () => { scene.shuffle(); draw(); })),
        element("div", { class: "touch-large" }, large)),
      node);
    draw();
  }

  // ---- chapter 3: a window descends the loss ----

  function descent(figure) {
    const scene = new Touch.Scene(window.RAMLIB_DIGITS, false);
    const side = scene.side, colours = window.RAMLIB_DIGITS.colours;
    const state = { start: [scene.digit.x, scene.digit.y + 24], width: 48, right: true, step: 0 };
    const canvas = screen(side, { class: "touch-canvas", tabindex: 0, role: "application",
      "aria-label": "Canvas with a digit and a window. Arrow keys move the start of the window." });
    const map = screen(side, { class: "touch-map", role: "img",
      "aria-label": "The loss at every place of the window's centre: bright is high." });
    const glimpse = screen(N, { role: "img", "aria-label": "What the window sees." });
    const wanted = screen(N, { role: "img", "aria-label": "What it should see." });
    const { node, say } = Touch.status();
    let image, target, path, losses, timer = null;

    const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
    const wish = () => Looking.read(image, side, windowAt(...target, state.width), N).g;

    // The loss on a lattice of places, four pixels apart. Both halves of a read are reused.
    function landscape() {
      const places = Array.from({ length: 26 }, (_, k) => Math.min(4 * k, side - 1));
      const banks = places.map(p => Looking.filterbank(p, state.width / N, state.width / N / 2 + 0.3, N, side));
      const turned = banks.map(bank => Looking.transpose(bank, N, side));
      const goal = state.right ? wish() : null;
      return banks.flatMap(bank => {
        const rows = Looking.product(bank, image, N, side, side);
        return turned.map(other => lossOf(Looking.product(rows, other, N, side, N), goal));
      });
    }

    function draw() {
      const { place, loss } = path[state.step];
      const now = windowAt(...place, state.width);
      const pictures = [paint(canvas, image, side), paint(map, losses, 26)];
      pictures[1].scale(26 / side, 26 / side);
      outline(pictures[0], Looking.boxOf(now, N), 0, side, "");
      for (const context of pictures) {
        for (const [style, width] of [["#202020", 1.8], [colours[0], 0.9]]) {
          Object.assign(context, { strokeStyle: style, lineWidth: width });
          context.beginPath();
          path.slice(0, state.step + 1).forEach(({ place: [x, y] }) => context.lineTo(x + 0.5, y + 0.5));
          context.stroke();
        }
        context.fillStyle = colours[1];
        context.beginPath();
        context.arc(place[0] + 0.5, place[1] + 0.5, 1.6, 0, 2 * Math.PI);
        context.fill();
      }
      const seen = Looking.read(image, side, now, N).g;
      const most = Math.max(...wish(), 1e-3);
      paint(glimpse, seen.map(value => value / most), N);
      paint(wanted, wish().map(value => value / most), N);
      const off = p => Math.hypot(p[0] - target[0], p[1] - target[1]);
      const moved = Math.hypot(place[0] - state.start[0], place[1] - state.start[1]);
      const verdict = off(place) < 3 ? "It found the digit." : moved < 1 ? "It felt nothing."
        : off(place) > off(state.start) ? "It turned away." : "It came nearer, and got stuck.";
      figure.descent = { place, verdict, target };
      if (state.step === path.length - 1) {
        say(`${verdict} After ${state.step} steps the window stands ${off(place).toFixed(1)} pixels from the ` +
          `digit, where it began at ${off(state.start).toFixed(1)}; the loss went from ${path[0].loss.toFixed(2)} to ${loss.toFixed(2)}.`);
      }
    }

    function prepare() { // the canvas, the teacher or the width is another
      image = scene.image();
      target = [scene.digit.x + 13.5, scene.digit.y + 13.5];
      const heights = landscape();
      const low = Math.min(...heights), high = Math.max(...heights);
      losses = heights.map(value => (value - low) / (high - low || 1));
    }

    function hold() { // at the start, in the hand
      clearInterval(timer);
      state.step = 0;
      path = [{ place: state.start, loss: NaN }];
      draw();
    }

    function drop() {
      clearInterval(timer);
      path = descend(image, side, state.start, state.width, state.right ? wish() : null);
      state.step = still() ? path.length - 1 : 0;
      timer = setInterval(() => (state.step < path.length - 1 ? (state.step++, draw()) : clearInterval(timer)), 30);
      draw();
    }

    const put = (x, y) => { state.start = [clamp(x, 0, side - 1), clamp(y, 0, side - 1)]; hold(); };
    // The window can be dragged; a press beside it puts it there. A finger beside it may scroll.
    Touch.draggable(canvas, side, (x, y) => {
      const [left, top, right, bottom] = Looking.boxOf(windowAt(...path[state.step].place, state.width), N);
      return x > left && x < right && y > top && y < bottom ? put : null;
    }, drop);
    canvas.addEventListener("click", ({ offsetX, offsetY }) => {
      put((offsetX / canvas.clientWidth) * side, (offsetY / canvas.clientHeight) * side);
      drop();
    });
    Touch.arrowKeys(canvas, (dx, dy) => { put(state.start[0] + dx, state.start[1] + dy); drop(); });
    const anew = change => (...values) => { change(...values); prepare(); drop(); };
    const teacher = element("select", { "aria-label": "What the loss asks for" },
      element("option", {}, "the right glimpse"), element("option", {}, "a bright glimpse"));
    teacher.addEventListener("change", anew(() => { state.right = teacher.selectedIndex === 0; }));
    const panel = (name, picture) => element("div", {}, element("b", {}, name), picture);
    Touch.replaceStill(figure, canvas,
      element("div", { class: "touch-side" },
        element("div", { class: "touch-looks" }, panel("loss", map), panel("sees", glimpse), panel("should see", wanted)),
        element("div", { class: "touch-controls" },
          "Put the window anywhere on the canvas and let go: it descends the loss.",
          slider("window", 20, 100, state.width, anew(value => { state.width = value; })),
          element("label", {}, "asks for", teacher),
          button("Drop it anywhere", () => { put(Math.random() * side, Math.random() * side); drop(); }),
          button("Another digit", anew(() => scene.shuffle())))),
      node);
    prepare();
    drop();
  }

  Object.assign(Touch.kinds, { "live-grid": grid, "live-descent": descent });
  return { readWithSlopes, push, lossOf, descend, windowAt };
})();

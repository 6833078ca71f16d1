// The model, live: the equations of Semeniuta & Barth (2016) in plain JavaScript, and a canvas to
// try them on. `touch.js` loads this file where a page has a figure of class `live-model`, with the
// weights of a reader that ships with ramlib (`looking-weights.js`).
"use strict";

const Looking = (() => {
  const { clamp, bytes, element, button, screen, paint, outline, DIGIT } = Touch;
  const sigmoid = value => 1 / (1 + Math.exp(-value));

  // ---- the glimpse ----

  // Row i of F holds the weights with which filter i sees each pixel a: a softmax over the pixels
  // of -(a - mu_i)^2 / (2 sigma^2), with mu_i = centre + (i - (N - 1) / 2) delta.
  function filterbank(centre, delta, sigma, filters, pixels) {
    const F = new Float64Array(filters * pixels);
    for (let i = 0; i < filters; i++) {
      const mu = centre + (i - (filters - 1) / 2) * delta;
      const least = (clamp(Math.round(mu), 0, pixels - 1) - mu) ** 2; // exponents start at 0
      let Z = 0;
      for (let a = 0; a < pixels; a++) {
        Z += F[i * pixels + a] = Math.exp((least - (a - mu) ** 2) / (2 * sigma ** 2));
      }
      for (let a = 0; a < pixels; a++) F[i * pixels + a] /= Z;
    }
    return F;
  }

  // A B, for A of n x k and B of k x m. Weights too small to matter are skipped.
  function product(A, B, n, k, m) {
    const C = new Float64Array(n * m);
    for (let i = 0; i < n; i++) {
      for (let l = 0; l < k; l++) {
        const a = A[i * k + l];
        if (Math.abs(a) < 1e-12) continue;
        for (let j = 0; j < m; j++) C[i * m + j] += a * B[l * m + j];
      }
    }
    return C;
  }

  const transpose = (A, n, m) => A.map((_, at) => A[(at % n) * m + Math.floor(at / n)]);

  // Eq. 2: g = gamma F_y I F_x^T, for a grid whose centre (x, y) is in pixels.
  function read(image, side, grid, N) {
    const F_x = filterbank(grid.x, grid.delta_x, grid.sigma, N, side);
    const F_y = filterbank(grid.y, grid.delta_y, grid.sigma, N, side);
    const rows = product(F_y, image, N, side, side);
    const g = product(rows, transpose(F_x, N, side), N, side, N);
    return { g: g.map(value => grid.gamma * value), F_x, F_y, rows };
  }

  // The box that the grid's N x N cells cover; pixel i covers [i, i + 1).
  function boxOf(grid, N) {
    const [w, h] = [(N / 2) * grid.delta_x, (N / 2) * grid.delta_y];
    return [grid.x - w + 0.5, grid.y - h + 0.5, grid.x + w + 0.5, grid.y + h + 0.5];
  }

  // ---- the model ----

  // Positive, `start` at raw = 0, between `low` and `high`: a sigmoid on a logarithmic scale.
  function between(raw, [low, start, high]) {
    const share = Math.log(start / low) / Math.log(high / low);
    return low * (high / low) ** sigmoid(raw + Math.log(share / (1 - share)));
  }

  class Reader {
    constructor(file) {
      Object.assign(this, file); // T, N, side, and the limits of the window
      const whole = new Int8Array(bytes(file.int8).buffer);
      const real = new Float32Array(bytes(file.float32).buffer);
      this.layers = {};
      let [w, r] = [0, 0];
      for (const [name, out, inputs] of file.layers) {
        // A row of weights is int8 times the row's scale; biases are float32.
        const W = new Float32Array(out * inputs);
        for (let i = 0; i < W.length; i++) W[i] = whole[w + i] * real[r + Math.floor(i / inputs)];
        this.layers[name] = { W, b: real.subarray(r + out, r + 2 * out) };
        [w, r] = [w + W.length, r + 2 * out];
      }
    }

    // W x + b
    linear(name, x) {
      const { W, b } = this.layers[name];
      return Float64Array.from(b, (bias, i) => {
        let sum = bias;
        for (let j = 0, at = i * x.length; j < x.length; j++) sum += W[at + j] * x[j];
        return sum;
      });
    }

    relu(name, x) {
      return this.linear(name, x).map(value => Math.max(value, 0));
    }

    // A gated recurrent unit: h <- (1 - z) n + z h.
    gru(name, x, h) {
      const [given, past] = [this.linear(name + ".from_input", x), this.linear(name + ".from_state", h)];
      const H = h.length;
      return h.map((last, i) => {
        const r = sigmoid(given[i] + past[i]);
        const z = sigmoid(given[H + i] + past[H + i]);
        const n = Math.tanh(given[2 * H + i] + r * past[2 * H + i]);
        return n + z * (last - n);
      });
    }

    // The policy: six raw numbers, each squeezed into the range of its parameter.
    policy(h2) {
      const [x, y, dx, dy, s, c] = this.linear("f_ext.linear", h2);
      const pixel = raw => ((this.side - 1) / 2) * (Math.tanh(raw) + 1);
      const delta_x = this.full_delta * between(dx, this.window);
      const delta_y = this.full_delta * between(dy, this.window);
      const sigma = between(s, this.sharpness) * Math.sqrt(delta_x * delta_y) + this.sigma_floor;
      return { x: pixel(x), y: pixel(y), delta_x, delta_y, sigma, gamma: between(c, this.gamma) };
    }

    look(image) {
      let h1 = new Float64Array(this.hidden);
      let h2 = new Float64Array(this.hidden);
      return Array.from({ length: this.T }, () => {
        h2 = this.gru("f_rec.layer2", h1, h2); // eq. 1: where
        const grid = this.policy(h2);
        const { g } = read(image, this.side, grid, this.N); // eq. 2: look
        const seen = this.relu("f_glimpse.layers.3", this.relu("f_glimpse.layers.1", g));
        h1 = this.gru("f_rec.layer1", seen, h1); // eq. 3: remember
        const logits = this.linear("f_class.2", this.relu("f_class.0", h1)); // eq. 4: name
        return { grid, box: boxOf(grid, this.N), g, logits };
      });
    }
  }

  function softmax(logits) {
    const most = Math.max(...logits);
    const powers = Array.from(logits, value => Math.exp(value - most));
    const Z = powers.reduce((sum, value) => sum + value);
    return powers.map(value => value / Z);
  }

  // ---- the page ----

  function live(figure) {
    const reader = new Reader(window.RAMLIB_READER);
    const scene = new Touch.Scene(window.RAMLIB_DIGITS);
    const { side, N, T } = reader;
    const percent = share => `${Math.round(100 * share)} %`;

    const canvas = screen(side, { class: "touch-canvas", tabindex: 0, role: "application",
      "aria-label": "Canvas with a digit and clutter. Arrow keys move the digit." });
    const glimpses = Array.from({ length: T }, (_, t) => screen(N, { "aria-hidden": "true",
      style: `border-color: ${window.RAMLIB_DIGITS.colours[t]}` }));
    const answers = glimpses.map(() => element("span"));
    const bars = Array.from({ length: 10 }, () => element("i"));
    const pad = screen(DIGIT, { class: "touch-pad", role: "img",
      "aria-label": "The digit, enlarged. Draw another with the mouse or a finger." });
    const { node, say } = Touch.status();

    let shown = T, timer = null; // looks that are drawn
    function draw() {
      const looks = (figure.looks = reader.look(scene.image()));
      const shares = looks.map(({ logits }) => softmax(logits));
      const context = paint(canvas, scene.image(), side);
      looks.slice(0, shown).forEach(({ box }, t) => outline(context, box, t, side));
      looks.forEach(({ g }, t) => {
        const brightest = Math.max(...g, 1e-3); // drawn white, however dark
        paint(glimpses[t], g.map(value => (t < shown ? value / brightest : 0)), N);
        const best = shares[t].indexOf(Math.max(...shares[t]));
        answers[t].textContent = t < shown ? `${best}: ${percent(shares[t][best])}` : "";
      });
      const last = shares[shown - 1];
      last.forEach((share, k) => { bars[k].style.height = `${100 * share}%`; });
      const guide = paint(pad, scene.digit.pixels, DIGIT); // MNIST's digits fill 20 x 20 pixels
      guide.strokeStyle = "#808080";
      guide.lineWidth = 0.15;
      guide.strokeRect(4, 4, 20, 20);
      if (shown < T) return;
      const answer = last.indexOf(Math.max(...last));
      const { x, y } = looks[T - 1].grid;
      const off = Math.hypot(x - scene.digit.x - 13.5, y - scene.digit.y - 13.5);
      say(`The model says ${answer} (${percent(last[answer])}). Its windows are ` +
        `${looks.map(({ box }) => Math.round(box[2] - box[0])).join(", ")} pixels wide; the last ` +
        `one stands at (${Math.round(x)}, ${Math.round(y)}), ${Math.round(off)} pixels from the ` +
        "middle of the digit's box.");
    }

    // After a shuffle the looks come one by one, unless the reader prefers no motion.
    function play() {
      clearInterval(timer);
      shown = matchMedia("(prefers-reduced-motion: reduce)").matches ? T : 1;
      timer = setInterval(() => (shown < T ? (shown++, draw()) : clearInterval(timer)), 450);
      draw();
    }

    function update() {
      clearInterval(timer);
      shown = T;
      draw();
    }

    Touch.draggable(canvas, side, (x, y) => {
      const thing = scene.under(x, y);
      if (!thing) return null;
      const [dx, dy] = [thing.x - x, thing.y - y];
      return (px, py) => { scene.put(thing, px + dx, py + dy); update(); };
    });
    Touch.arrowKeys(canvas, (dx, dy) => { scene.put(scene.digit, scene.digit.x + dx, scene.digit.y + dy); update(); });

    // The first stroke wipes a printed digit away; the next ones add to what is drawn.
    const wipe = () => { scene.digit.pixels.fill(0); scene.digit.drawn = true; };
    Touch.draggable(pad, DIGIT, () => {
      let last = null;
      return (x, y) => {
        if (!scene.digit.drawn) wipe();
        const [fromX, fromY] = last || [x, y];
        const steps = Math.ceil(2 * Math.hypot(x - fromX, y - fromY)) || 1;
        scene.digit.pixels = scene.digit.pixels.map((value, i) => {
          for (let s = 1; s <= steps; s++) {
            const [px, py] = [fromX + ((x - fromX) * s) / steps, fromY + ((y - fromY) * s) / steps];
            const away = Math.hypot((i % DIGIT) + 0.5 - px, Math.floor(i / DIGIT) + 0.5 - py);
            value = Math.max(value, clamp(1.9 - away, 0, 1)); // a soft pen
          }
          return value;
        });
        last = [x, y];
        update();
      };
    });

    const looks = glimpses.map((glimpse, t) =>
      element("div", {}, element("b", {}, `look ${t + 1}`), glimpse, answers[t]));
    Touch.replaceStill(figure, canvas,
      element("div", { class: "touch-side" },
        element("div", { class: "touch-looks" }, ...looks),
        element("div", { class: "touch-bars", "aria-hidden": "true" },
          ...bars.map((bar, k) => element("div", {}, element("div", {}, bar), String(k)))),
        element("div", { class: "touch-row" }, pad,
          element("div", { class: "touch-controls" },
            "Drag the digit and the clutter. Draw a digit of your own in the small square.",
            button("Shuffle", () => { scene.shuffle(); play(); }),
            button("Another digit", () => { scene.newDigit(); play(); }),
            button("Wipe", () => { wipe(); update(); })))),
      node);
    draw();
  }

  Touch.kinds["live-model"] = live;
  return { filterbank, product, transpose, read, boxOf, Reader };
})();

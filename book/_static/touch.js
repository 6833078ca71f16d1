// What the book's figures to touch share: a canvas with a digit and clutter, pictures, dragging.
//
// A figure of class `live-model`, `live-grid` or `live-descent` shows a still picture until these
// classic scripts replace it; they work from file://, and a page without such a figure loads this
// file only. `looking-digits.js` (MNIST test digits) and `looking-weights.js` are written by
// tools/export_browser.py.
"use strict";

const Touch = (() => {
  const HERE = document.currentScript.src.replace(/[^/]*$/, "");
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));

  // ---- the canvas that is looked at: a digit, and pieces of others, added and clipped ----

  const DIGIT = 28, PIECE = 8;
  const below = limit => Math.floor(Math.random() * limit);

  class Scene {
    constructor(file, clutter = true) {
      this.side = file.side;
      this.pixels = Float64Array.from(bytes(file.pixels), value => value / 255);
      this.pieces = [];
      this.digit = this.cut(file.first.digit, 0, 0, DIGIT, ...file.first.at);
      if (clutter) this.pieces = file.first.pieces.map(p => this.cut(p[0], p[1], p[2], PIECE, p[3], p[4]));
    }

    // A square of one of the digits, cut out at (left, top) and put at (x, y).
    cut(which, left, top, size, x, y) {
      const start = which * DIGIT * DIGIT;
      const pixels = Float64Array.from({ length: size * size }, (_, i) =>
        this.pixels[start + (top + Math.floor(i / size)) * DIGIT + left + (i % size)]);
      return { pixels, size, x, y };
    }

    newDigit(x = this.digit.x, y = this.digit.y) {
      this.digit = this.cut(below(this.pixels.length / DIGIT ** 2), 0, 0, DIGIT, x, y);
    }

    shuffle() {
      const [count, room] = [this.pixels.length / DIGIT ** 2, DIGIT - PIECE + 1];
      const place = size => below(this.side - size + 1);
      this.pieces = this.pieces.map(() =>
        this.cut(below(count), below(room), below(room), PIECE, place(PIECE), place(PIECE)));
      this.newDigit(place(DIGIT), place(DIGIT));
    }

    // The piece under a point, the digit before the clutter; small pieces are met from near, too.
    under(x, y) {
      return [this.digit, ...this.pieces].find(({ size, x: left, y: top }) => {
        const reach = size < DIGIT ? 3 : 0;
        return [x - left, y - top].every(d => d >= -reach && d < size + reach);
      });
    }

    put(thing, x, y) {
      thing.x = clamp(Math.round(x), 0, this.side - thing.size);
      thing.y = clamp(Math.round(y), 0, this.side - thing.size);
    }

    image() {
      const image = new Float64Array(this.side ** 2);
      for (const { pixels, size, x, y } of [...this.pieces, this.digit]) {
        pixels.forEach((value, i) => {
          image[(y + Math.floor(i / size)) * this.side + x + (i % size)] += value;
        });
      }
      return image.map(value => Math.min(value, 1));
    }
  }

  // ---- the page ----

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  function button(text, press) {
    const node = element("button", { type: "button" }, text);
    node.addEventListener("click", press);
    return node;
  }

  const screen = (side, attributes, scale = 6) =>
    element("canvas", { width: scale * side, height: scale * side, ...attributes });

  // Fill a canvas with grey values; what is drawn after that is in units of their pixels.
  function paint(canvas, values, width, height = width) {
    const small = element("canvas", { width, height });
    const grey = new ImageData(width, height);
    values.forEach((value, i) => grey.data.fill(255 * clamp(value, 0, 1), 4 * i, 4 * i + 3));
    values.forEach((_, i) => { grey.data[4 * i + 3] = 255; });
    small.getContext("2d").putImageData(grey, 0, 0);
    const context = canvas.getContext("2d");
    context.resetTransform();
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    context.scale(canvas.width / width, canvas.height / height);
    return context;
  }

  const DASHES = [[], [4, 1.5], [1, 1], [5, 1, 1, 1]];

  // A window in the colour of look t, its number outside it, each at a corner of its own.
  function outline(context, box, t, side, number = String(t + 1)) {
    const [left, top, right, bottom] = box.map(edge => clamp(edge, 0.4, side - 0.4));
    const colour = window.RAMLIB_DIGITS.colours[t];
    const at_right = t % 4 === 1 || t % 4 === 2, below_it = t % 4 > 1;
    const x = at_right ? right : left, y = below_it ? bottom + 4.6 : top - 1.2;
    for (const [style, extra] of [["#202020", 1], [colour, 0]]) { // a dark rim, then the line
      context.strokeStyle = style;
      context.lineWidth = 0.8 + extra;
      context.setLineDash(extra ? [] : DASHES[t % 4].map(length => length * 0.8));
      context.strokeRect(left, top, right - left, bottom - top);
      context.setLineDash([]);
      context.textAlign = at_right ? "right" : "left";
      context.font = "bold 5px sans-serif";
      if (extra) context.strokeText(number, x, clamp(y, 4.2, side - 0.8));
    }
    context.fillStyle = colour;
    context.fillText(number, x, clamp(y, 4.2, side - 0.8));
  }

  // `grab(x, y)` says what a press there moves: a function of the pointer's place, or nothing.
  function draggable(canvas, side, grab, drop = () => {}) {
    const place = event => {
      const { left, top, width, height } = canvas.getBoundingClientRect();
      return [((event.clientX - left) / width) * side, ((event.clientY - top) / height) * side];
    };
    let move = null;
    const release = () => { if (move) drop(); move = null; };
    canvas.addEventListener("pointerdown", event => {
      if (event.button) return; // the first button, or a finger
      if ((move = grab(...place(event)))) canvas.setPointerCapture(event.pointerId);
      if (move) move(...place(event));
    });
    canvas.addEventListener("pointermove", event => { if (move) move(...place(event)); });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, release);
    // A finger beside everything scrolls the page, as it does everywhere else.
    canvas.addEventListener("touchstart", event => {
      if (grab(...place(event.touches[0]))) event.preventDefault();
    }, { passive: false });
  }

  // Arrow keys call `step(dx, dy)` while the canvas has the focus; with Shift, in larger steps.
  function arrowKeys(canvas, step) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    canvas.addEventListener("keydown", event => {
      if (!ways[event.key]) return;
      event.preventDefault();
      step(...ways[event.key].map(way => way * (event.shiftKey ? 10 : 2)));
    });
  }

  // A line for everyone, and for screen readers: it waits until the hand rests.
  function status() {
    const node = element("p", { class: "touch-status", role: "status", "aria-live": "polite" });
    let timer;
    return { node, say: text => { clearTimeout(timer); timer = setTimeout(() => { node.textContent = text; }, 300); } };
  }

  // The still picture gives way to what can be touched; the caption stays.
  function replaceStill(figure, ...nodes) {
    figure.querySelector("img").replaceWith(element("div", { class: "touch" }, ...nodes));
  }

  // ---- what a page needs ----

  const NEEDS = {
    "live-model": ["looking-digits.js", "looking-weights.js", "looking.js"],
    "live-grid": ["looking-digits.js", "looking.js", "grids.js"],
    "live-descent": ["looking-digits.js", "looking.js", "grids.js"],
  };
  const kinds = {}; // what brings a figure to life, by its class
  const loaded = {};

  // Scripts arrive side by side and run in their order.
  const load = name => loaded[name] ||= new Promise((done, fail) => {
    const script = element("script", { src: HERE + name });
    Object.assign(script, { async: false, onload: done, onerror: fail });
    document.head.append(script);
  });

  // This script is deferred, so the page's figures are there.
  for (const [kind, files] of Object.entries(NEEDS)) {
    const figures = document.querySelectorAll(`figure.${kind}`);
    if (figures.length) Promise.all(files.map(load)).then(() => figures.forEach(kinds[kind]));
  }

  return { clamp, bytes, element, button, screen, paint, outline, draggable, arrowKeys, status,
    replaceStill, Scene, DIGIT, kinds };
})();

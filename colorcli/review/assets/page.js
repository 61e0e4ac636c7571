"use strict";
// The player of a review: frames are decoded when they are needed, and drawn on one canvas.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const by = (id) => document.getElementById(id);
  const MOST_DECODED = 384 * 2 ** 20;   // bytes of decoded pictures that are kept
  const AHEAD = 24;                     // frames that are decoded ahead while playing

  const viewer = by("viewer"), stage = by("stage"), paper = by("paper"), canvas = by("canvas"), edge = by("edge");
  const boxes = by("boxes"), slate = by("slate"), split = by("split"), slider = by("frame"), marks = by("marks");
  const play = by("play"), rate = by("rate"), loop = by("loop"), said = by("said"), doubts = by("doubts"), probe = by("probe");
  const context = canvas.getContext("2d");
  const state = { shot: 0, place: 0, playing: false, view: "wipe", split: 0.5, loop: true, changes: true, unsure: true, layer: "", shown: null };

  const shot = () => data.shots[state.shot];
  const frames = () => shot().frames;
  const section = () => by("shot-" + state.shot);

  // --- pictures ------------------------------------------------------------------------------------------------------

  const decoded = new Map();   // number -> {promise, bitmap, bytes}; the last one asked for stands last
  let decodedBytes = 0;

  function blobOf(number) {
    const text = by("picture-" + number).textContent.trim();
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Blob([bytes], { type: "image/webp" });
  }

  function decode(number) {
    let entry = decoded.get(number);
    if (entry) {
      decoded.delete(number);
    } else {
      entry = { bitmap: null, bytes: 0 };
      entry.promise = createImageBitmap(blobOf(number)).then((bitmap) => {
        entry.bitmap = bitmap;
        entry.bytes = bitmap.width * bitmap.height * 4;
        decodedBytes += entry.bytes;
        forget();
        return bitmap;
      });
    }
    decoded.set(number, entry);
    return entry;
  }

  function forget() {
    for (const [number, entry] of decoded) {
      if (decodedBytes <= MOST_DECODED) return;
      const needed = state.shown && (state.shown.before === number || rightOf(state.shown) === number);
      if (!entry.bitmap || needed) continue;
      decoded.delete(number);
      decodedBytes -= entry.bytes;
      entry.bitmap.close();
    }
  }

  // What stands on the right of the slider: the frame itself, or one of its layers.
  const rightOf = (frame) => (state.layer ? frame.layers[state.layer] ?? null : frame.after);
  const neededOf = (frame) => [frame.before, rightOf(frame)].filter((number) => number !== null);
  const isReady = (frame) => neededOf(frame).every((number) => decode(number).bitmap);
  const bitmapOf = (number) => (number === null ? null : decoded.get(number)?.bitmap ?? null);

  // --- drawing -------------------------------------------------------------------------------------------------------

  function draw() {
    const frame = frames()[state.place];
    if (!frame) return;   // a shot of which no frame was colored
    if (isReady(frame)) {
      paint(frame);
      return;
    }
    const asked = state.place, ofShot = state.shot;
    Promise.all(neededOf(frame).map((number) => decode(number).promise)).then(
      () => { if (state.place === asked && state.shot === ofShot) paint(frame); },
      () => { say(frame.name + ": its picture cannot be decoded"); },
    );
  }

  function paint(frame) {
    const before = bitmapOf(frame.before), after = bitmapOf(rightOf(frame));
    const largest = after ?? before;
    if (largest && (canvas.width !== largest.width || canvas.height !== largest.height)) {
      canvas.width = largest.width;
      canvas.height = largest.height;
    }
    const { width, height } = canvas;
    context.clearRect(0, 0, width, height);
    const both = before && after;
    const wiped = state.view === "wipe" && both;
    if (wiped) {
      const at = Math.round(width * state.split);
      clipped(after, at, width - at);
      clipped(before, 0, at);
    } else {
      const shown = state.view === "before" ? before : after ?? (state.view === "wipe" ? before : null);
      if (shown) context.drawImage(shown, 0, 0, width, height);
    }
    edge.hidden = !wiped;
    edge.style.left = 100 * state.split + "%";
    const told = slateOf(frame, before, after);
    slate.hidden = !told;
    slate.textContent = told;
    state.shown = frame;
    paintBoxes(frame);
    canvas.setAttribute("aria-label", shot().name + ", " + frame.name + ", " + frame.status + (told ? ": " + told : ""));
    stage.dataset.painted = String(state.place);
  }

  function clipped(bitmap, left, width) {
    if (width <= 0) return;
    context.save();
    context.beginPath();
    context.rect(left, 0, width, canvas.height);
    context.clip();
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    context.restore();
  }

  function slateOf(frame, before, after) {
    if (frame.error) return frame.name + " failed\n" + frame.error + (frame.hint ? "\n" + frame.hint : "");
    if (state.view === "before") return before ? "" : "the drawing of " + frame.name + " cannot be shown";
    if (after) return "";
    if (state.layer) return `${frame.name} has no layer ${state.layer}`;
    return before ? "there is no picture of " + frame.name : frame.name + ": " + frame.status;
  }

  function paintBoxes(frame) {
    boxes.replaceChildren();
    const told = !state.playing && state.unsure && frame.unsure.length;
    doubts.hidden = !told;
    doubts.replaceChildren(...(told ? doubtsOf(frame) : []));
    if (state.playing || state.view === "before") return;
    // One region may be both: the dashes of a change lie over the line of what is unsure.
    const framed = [...(state.unsure ? frame.unsure.map((region) => [region.box, "unsure"]) : []),
      ...(state.changes ? frame.jumps.map((jump) => [jump.box, "jump"]) : [])];
    for (const [[x, y, width, height], kind] of framed) {
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      for (const [name, value] of Object.entries({ x, y, width, height, class: kind })) rect.setAttribute(name, value);
      boxes.append(rect);
    }
  }

  // What the coloring was not sure of, the largest regions first: their color, the other candidate, the chance.
  function doubtsOf(frame) {
    const parts = ["unsure: "];
    frame.unsure.forEach((region, place) => {
      const item = document.createElement("span");
      item.className = "pair";
      item.append(swatch(region.color), ` ${region.color}`);
      if (region.other) item.append(" or ", swatch(region.other), ` ${region.other}`);
      if (region.sure !== null) item.append(`, ${region.sure} % sure`);
      if (place < frame.unsure.length - 1) item.append("; ");
      parts.push(item);
    });
    const more = frame.unsure_count - frame.unsure.length;
    return more > 0 ? [...parts, `; and ${more} smaller`] : parts;
  }

  // --- where we are --------------------------------------------------------------------------------------------------

  const number = (value) => (value === null ? "-" : value.toFixed(2));

  function describe() {
    const frame = frames()[state.place];
    const parts = [frame.name, `${state.place + 1} of ${frames().length}`, frame.status];
    if (frame.flicker !== null) parts.push(`flicker ${number(frame.flicker)}`, `repainted ${number(frame.repainted)} %`);
    if (frame.distance !== null) parts.push(`palette ${number(frame.distance)}`);
    if (frame.unsure.length && !frame.reasons.some((words) => words.startsWith("unsure"))) {
      parts.push(`unsure regions ${frame.unsure_count}`);
    }
    return parts.join(" · ") + (frame.reasons.length ? " · " + frame.reasons.join("; ") : "");
  }

  function say(text) {
    said.textContent = text;
  }

  let announcing = 0;

  function announce() {
    clearTimeout(announcing);
    if (state.playing) return;
    announcing = setTimeout(() => { by("announce").textContent = describe(); }, 400);
  }

  function go(place) {
    const count = frames().length;
    if (!count) return;
    state.place = Math.max(0, Math.min(count - 1, place));
    const frame = frames()[state.place];
    slider.value = String(state.place);
    slider.setAttribute("aria-valuetext", `${frame.name}, ${state.place + 1} of ${count}, ${frame.status}`);
    say(describe());
    draw();
    pointAt();
    if (!state.playing) announce();
  }

  function pointAt() {
    const here = section();
    const x = ((state.place + 0.5) / frames().length) * 1000;
    for (const line of here.querySelectorAll(".now[d]")) {
      line.setAttribute("transform", `translate(${x.toFixed(2)} 0)`);
      line.setAttribute("visibility", "visible");
    }
    for (const old of here.querySelectorAll("button.now")) {
      old.classList.remove("now");
      old.removeAttribute("aria-current");
    }
    if (state.playing) return;
    for (const button of here.querySelectorAll(`.sheet button[data-frame="${state.place}"], .card[data-frame="${state.place}"]`)) {
      button.classList.add("now");
      button.setAttribute("aria-current", "true");
    }
  }

  function enter(index) {
    stop();
    state.shot = index;
    data.shots.forEach((_, other) => { by("shot-" + other).hidden = other !== index; });
    section().querySelector(".viewer-place").append(viewer);
    if (by("shot-select")) by("shot-select").value = String(index);
    for (const button of document.querySelectorAll("[data-shot]")) {
      const here = Number(button.dataset.shot) === index;
      button.closest("tr").classList.toggle("now", here);
      if (here) button.setAttribute("aria-current", "true"); else button.removeAttribute("aria-current");
    }
    viewer.hidden = !frames().length;
    for (const image of section().querySelectorAll("img[data-picture]")) {
      if (!image.src) image.src = URL.createObjectURL(blobOf(image.dataset.picture));
    }
    if (!frames().length) return;
    state.layer = "";
    by("layer").replaceChildren(new Option("the picture", ""), ...shot().layers.map((name) => new Option(name, name)));
    by("layer-choice").hidden = !shot().layers.length;
    slider.max = String(frames().length - 1);
    marks.setAttribute("viewBox", `0 0 ${frames().length} 1`);
    marks.replaceChildren(...frames().map((frame, place) => {
      const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      rect.setAttribute("x", place);
      rect.setAttribute("width", 1);
      rect.setAttribute("height", 1);
      rect.setAttribute("class", frame.error ? "failed" : frame.reasons.length ? "look" : frame.status === "held drawing" ? "held" : "");
      return rect;
    }));
    go(0);
  }

  // --- playing -------------------------------------------------------------------------------------------------------

  // Time is counted in numbers of the shot, so a drawing on twos stands for two of them. A frame that is not decoded yet
  // holds the clock: the first round may stutter, the next ones run at the rate.
  let begun = 0, begunTick = 0, ticksOf = [], totalTicks = 0;

  function prepareTicks() {
    ticksOf = [];
    totalTicks = 0;
    for (const frame of frames()) {
      ticksOf.push(totalTicks);
      totalTicks += frame.ticks;
    }
  }

  function placeAt(tick) {
    let low = 0, high = ticksOf.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (ticksOf[middle] <= tick) low = middle; else high = middle - 1;
    }
    return low;
  }

  const fps = () => Math.max(1, Math.min(Number(rate.max), Number(rate.value) || data.rate));

  function start() {
    if (frames().length < 2) return;
    prepareTicks();
    if (state.place === frames().length - 1) go(0);
    state.playing = true;
    begunTick = ticksOf[state.place];
    begun = performance.now();
    tellPlaying();
    requestAnimationFrame(tick);
  }

  function stop() {
    if (!state.playing) return;
    state.playing = false;
    tellPlaying();
    go(state.place);
  }

  function tellPlaying() {
    play.setAttribute("aria-pressed", String(state.playing));
    play.setAttribute("aria-label", state.playing ? "Stop" : "Play");
    play.textContent = state.playing ? "■ stop" : "▶ play";
  }

  function tick(now) {
    if (!state.playing) return;
    let at = begunTick + ((now - begun) / 1000) * fps();
    if (at >= totalTicks) {
      if (!state.loop) {
        go(frames().length - 1);
        stop();
        return;
      }
      at %= totalTicks;
      begun = now;
      begunTick = at;
    }
    const place = placeAt(at);
    for (let ahead = 0; ahead <= Math.min(AHEAD, frames().length - 1); ahead++) {
      for (const needed of neededOf(frames()[(place + ahead) % frames().length])) decode(needed);
    }
    if (!isReady(frames()[place])) {
      begun = now;
      begunTick = ticksOf[place];
    } else if (place !== state.place) {
      go(place);
    }
    requestAnimationFrame(tick);
  }

  function retime() {
    begunTick = ticksOf[state.place] ?? 0;
    begun = performance.now();
  }

  // --- controls ------------------------------------------------------------------------------------------------------

  function setView(view) {
    state.view = view;
    for (const button of viewer.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === view));
    }
    split.disabled = view !== "wipe";
    draw();
  }

  function setSplit(share) {
    state.split = Math.max(0, Math.min(1, share));
    split.value = String(Math.round(100 * state.split));
    split.setAttribute("aria-valuetext", `${split.value} percent before, the rest after`);
    if (state.view !== "wipe") setView("wipe"); else draw();
  }

  function setLoop(on) {
    state.loop = on;
    loop.setAttribute("aria-pressed", String(on));
  }

  function setChanges(on) {
    state.changes = on;
    by("changes").setAttribute("aria-pressed", String(on));
    draw();
  }

  function setUnsure(on) {
    state.unsure = on;
    by("unsure").setAttribute("aria-pressed", String(on));
    draw();
  }

  function setPixels(on) {
    stage.classList.toggle("pixels", on);
    if (on) stage.tabIndex = 0; else stage.removeAttribute("tabindex");
    by("zoom").setAttribute("aria-pressed", String(on));
  }

  function setBackdrop(name) {
    by("backdrop").value = name;
    stage.dataset.backdrop = name;
  }

  function nextWorth(step) {
    const order = shot().first;
    if (!order.length) return;
    const here = order.indexOf(state.place);
    stop();
    go(order[here < 0 ? (step > 0 ? 0 : order.length - 1) : (here + step + order.length) % order.length]);
  }

  play.addEventListener("click", () => (state.playing ? stop() : start()));
  by("back").addEventListener("click", () => { stop(); go(state.place - 1); });
  by("on").addEventListener("click", () => { stop(); go(state.place + 1); });
  slider.addEventListener("input", () => { stop(); go(Number(slider.value)); });
  split.addEventListener("input", () => setSplit(Number(split.value) / 100));
  rate.addEventListener("input", retime);
  loop.addEventListener("click", () => setLoop(!state.loop));
  by("changes").addEventListener("click", () => setChanges(!state.changes));
  by("unsure").addEventListener("click", () => setUnsure(!state.unsure));
  by("zoom").addEventListener("click", () => setPixels(!stage.classList.contains("pixels")));
  by("backdrop").addEventListener("change", (event) => setBackdrop(event.target.value));
  by("layer").addEventListener("change", (event) => { state.layer = event.target.value; draw(); });
  by("shot-select")?.addEventListener("change", (event) => enter(Number(event.target.value)));
  for (const button of viewer.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => setView(button.dataset.view));
  }

  // The picture itself is a handle of the slider.
  let dragging = false;
  const shareAt = (event) => {
    const box = canvas.getBoundingClientRect();
    return (event.clientX - box.left) / box.width;
  };
  paper.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || (stage.classList.contains("pixels") && event.pointerType === "touch")) return;
    dragging = true;
    paper.setPointerCapture(event.pointerId);
    setSplit(shareAt(event));
  });
  paper.addEventListener("pointermove", (event) => {
    if (dragging) setSplit(shareAt(event));
    readColor(event);
  });
  for (const name of ["pointerup", "pointercancel"]) paper.addEventListener(name, () => { dragging = false; });

  const pixel = document.createElement("canvas");
  pixel.width = pixel.height = 1;
  const pixelContext = pixel.getContext("2d", { willReadFrequently: true });

  function readColor(event) {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * canvas.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * canvas.height);
    const frame = state.shown;
    if (!frame || x < 0 || y < 0 || x >= canvas.width || y >= canvas.height) return;
    const isBefore = state.view === "before" || (state.view === "wipe" && x < canvas.width * state.split);
    const bitmap = bitmapOf(isBefore ? frame.before : rightOf(frame));
    if (!bitmap) return;
    pixelContext.clearRect(0, 0, 1, 1);
    pixelContext.drawImage(bitmap, -x * (bitmap.width / canvas.width), -y * (bitmap.height / canvas.height));
    const [red, green, blue, alpha] = pixelContext.getImageData(0, 0, 1, 1).data;
    const hex = "#" + [red, green, blue].map((level) => level.toString(16).padStart(2, "0")).join("");
    const which = isBefore ? "before" : "after";
    const text = [` ${which} ${hex}`, alpha < 255 ? ` alpha ${(alpha / 255).toFixed(2)}` : "", isBefore ? "" : nearest(red, green, blue)];
    probe.replaceChildren(swatch(hex), text.join(""));
  }

  function swatch(hex) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    svg.setAttribute("class", "swatch");
    svg.setAttribute("viewBox", "0 0 1 1");
    svg.setAttribute("aria-hidden", "true");
    rect.setAttribute("width", "1");
    rect.setAttribute("height", "1");
    rect.setAttribute("fill", hex);
    svg.append(rect);
    return svg;
  }

  function nearest(red, green, blue) {
    let best = null, least = Infinity;
    for (const color of shot().palette) {
      const [r, g, b] = [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
      const away = Math.max(Math.abs(r - red), Math.abs(g - green), Math.abs(b - blue));
      if (away < least) [best, least] = [color, away];
    }
    if (best === null) return "";
    return least === 0 ? ", a color of the key" : `, nearest of the key ${best}, ${least} levels away`;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-frame]");
    if (button && section().contains(button)) {
      stop();
      go(Number(button.dataset.frame));
      const box = stage.getBoundingClientRect();
      if (box.bottom < 120 || box.top > innerHeight - 120) {
        viewer.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
      }
      return;
    }
    const other = event.target.closest("[data-shot]");
    if (other) enter(Number(other.dataset.shot));
    const plot = event.target.closest(".plot svg");
    if (plot) {
      const box = plot.getBoundingClientRect();
      stop();
      go(Math.floor(((event.clientX - box.left) / box.width) * frames().length));
    }
    const filter = event.target.closest("[data-filter]");
    if (filter) {
      const sheet = filter.closest(".sheet"), kind = filter.dataset.filter;
      for (const other of sheet.querySelectorAll("[data-filter]")) other.setAttribute("aria-pressed", String(other === filter));
      for (const item of sheet.querySelectorAll("li")) item.hidden = kind !== "all" && !item.classList.contains(kind);
    }
    const more = event.target.closest(".show-more");
    if (more) {
      for (const item of more.parentElement.querySelectorAll(".more")) item.hidden = false;
      more.hidden = true;
    }
  });

  // --- keys ----------------------------------------------------------------------------------------------------------

  const BACKDROPS = ["white", "gray", "black", "checks"];
  const KEYS = {
    " ": () => (state.playing ? stop() : start()),
    ArrowLeft: (event) => { stop(); go(state.place - (event.shiftKey ? 10 : 1)); },
    ArrowRight: (event) => { stop(); go(state.place + (event.shiftKey ? 10 : 1)); },
    Home: () => { stop(); go(0); },
    End: () => { stop(); go(frames().length - 1); },
    n: () => nextWorth(1),
    p: () => nextWorth(-1),
    1: () => setView("before"),
    2: () => setView("wipe"),
    3: () => setView("after"),
    "[": () => setSplit(state.split - 0.05),
    "]": () => setSplit(state.split + 0.05),
    x: () => setChanges(!state.changes),
    u: () => setUnsure(!state.unsure),
    z: () => setPixels(!stage.classList.contains("pixels")),
    b: () => setBackdrop(BACKDROPS[(BACKDROPS.indexOf(stage.dataset.backdrop) + 1) % BACKDROPS.length]),
    l: () => setLoop(!state.loop),
    "?": () => by("help").showModal(),
  };

  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || by("help").open || !by("keys-on").checked) return;
    if (target.matches("select, input:not([type=range]), textarea")) return;
    // Keys that a focused control answers itself.
    if (event.key === " " && target.matches("button, summary")) return;
    if (target === stage && event.key.startsWith("Arrow")) return;
    if (target.matches("input[type=range]") && /^(Arrow|Home|End|Page)/.test(event.key) && !(target === slider && event.shiftKey)) return;
    const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
    if (!act || !frames().length) return;
    event.preventDefault();
    act(event);
  });

  by("help-open").addEventListener("click", () => by("help").showModal());

  // --- theme ---------------------------------------------------------------------------------------------------------

  const remembered = (() => { try { return localStorage.getItem("colorcli-theme"); } catch { return null; } })();
  function setTheme(name) {
    if (name === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
    by("theme").value = name;
    try { localStorage.setItem("colorcli-theme", name); } catch { /* a page from disk may not be allowed to */ }
  }
  by("theme").addEventListener("change", (event) => setTheme(event.target.value));
  setTheme(["light", "dark"].includes(remembered) ? remembered : "auto");

  // --- begin ---------------------------------------------------------------------------------------------------------

  for (const element of document.querySelectorAll(".script-only, #shot-choice")) element.hidden = false;
  rate.value = String(data.rate);
  setSplit(0.5);
  setLoop(true);
  const wanted = /^#shot-(\d+)(?:-frame-(\d+))?$/.exec(location.hash);
  enter(wanted && Number(wanted[1]) < data.shots.length ? Number(wanted[1]) : 0);
  if (wanted?.[2]) go(Number(wanted[2]));
})();

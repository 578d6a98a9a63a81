"use strict";
/**
 * What files found, drawn over the image: a picture and a table for each of them, beside one another.
 *
 * It knows labels, boxes and masks, and no task: `Found` of `values.py`, with `data`, `width` and `height` of a mask in the place of its PNG.
 */
const makePictures = (element, make, percent) => {
  const LONG_SIDE = 960; // px of a canvas
  const MOST_ROWS = 50;
  const FIRST_LABELS = 12;
  const GOLDEN = 0.618033988749895; // hues that follow one another lie far apart
  const asInCard = { score: null, moved: 0 };
  let settings = { ...asInCard, opacity: 0.55 };
  let entries = []; // {name, answer, differs}
  let image = null; // the bitmap that is asked about; null where this browser cannot show it
  let hidden = null; // places of classes whose mask is not drawn; null before anybody chose
  let changed = () => {};

  // ---- what counts ------------------------------------------------------------------------------------------------

  const least = ({ shown_score: own }) => settings.score ?? own;
  const boxesOf = (answer) => answer.boxes.filter(({ score }) => score >= least(answer));
  /** A threshold of the card, moved as logits are: 0.5 and 0.9 go the same way. */
  const moved = (threshold) => 1 / (1 + ((1 - threshold) / threshold) * Math.exp(-settings.moved));
  const isTold = ({ confidence, threshold }) => (settings.moved ? confidence >= moved(threshold) : confidence >= threshold);

  /** An answer in a few words, at the thresholds that are set. */
  const words = (answer) => {
    const parts = [];
    if (answer.boxes) {
      const counts = new Map();
      for (const { label } of boxesOf(answer)) counts.set(label, (counts.get(label) ?? 0) + 1);
      parts.push([...counts].map(([label, count]) => `${count} ${label}`).join(", ") || "nothing");
    }
    if (answer.labels) {
      const told = answer.labels.filter(isTold);
      parts.push(told.map(({ label, confidence }) => `${label} ${Math.round(100 * confidence)} %`).join(", ") || "no label");
    }
    if (answer.mask) parts.push(answer.mask.classes.slice(0, 4).map(({ label, share }) => `${label} ${Math.round(100 * share)} %`).join(", "));
    return parts.join("; ") || answer.words;
  };

  // ---- colours ----------------------------------------------------------------------------------------------------

  const channels = (index) => {
    const hue = 6 * ((index * GOLDEN) % 1);
    const ramp = (shift) => Math.min(1, Math.max(0, Math.abs(((hue + shift) % 6) - 3) - 1));
    return [ramp(0), ramp(4), ramp(2)].map((share) => Math.round(255 * (0.15 + 0.85 * share)));
  };
  const css = (index) => `rgb(${channels(index).join(" ")})`;
  const inkOn = (index) => {
    const [red, green, blue] = channels(index);
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#101416" : "#ffffff";
  };
  const swatch = (index) => {
    const made = make("span", { className: "swatch" });
    made.style.background = css(index);
    made.setAttribute("aria-hidden", "true");
    return made;
  };

  // ---- the picture ------------------------------------------------------------------------------------------------

  const paint = (canvas, answer, marked = null, isOver = false) => {
    const scale = LONG_SIDE / Math.max(answer.width, answer.height);
    const [width, height] = [answer.width, answer.height].map((side) => Math.max(1, Math.round(side * scale)));
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = scale < 3;
    if (!isOver) {
      context.fillStyle = "#80868a";
      context.fillRect(0, 0, width, height);
      if (image) context.drawImage(image, 0, 0, width, height);
    }
    if (answer.mask) paintMask(context, answer.mask, scale);
    for (const box of answer.boxes ? boxesOf(answer).reverse() : []) // the best on top
      paintBox(context, box, scale, width, marked !== null && marked !== box);
  };

  const paintMask = (context, mask, scale) => {
    const own = make("canvas", { width: mask.width, height: mask.height });
    const pixels = new ImageData(mask.width, mask.height);
    const colours = Array.from({ length: 256 }, (_, index) => (isHidden(index) ? [0, 0, 0, 0] : [...channels(index), 255]));
    mask.data.forEach((index, place) => pixels.data.set(colours[index], 4 * place));
    own.getContext("2d").putImageData(pixels, 0, 0);
    context.save();
    context.globalAlpha = settings.opacity;
    context.imageSmoothingEnabled = false;
    context.drawImage(own, mask.x1 * scale, mask.y1 * scale, (mask.x2 - mask.x1) * scale, (mask.y2 - mask.y1) * scale);
    context.restore();
  };

  const paintBox = (context, { label, index, score, x1, y1, x2, y2 }, scale, limit, isFaint) => {
    const [left, top, width, height] = [x1, y1, x2 - x1, y2 - y1].map((value) => value * scale);
    context.save();
    context.globalAlpha = isFaint ? 0.25 : 1;
    context.lineJoin = "round";
    for (const [style, thick] of [["rgb(0 0 0 / 60%)", 7], [css(index), 4]]) {
      context.strokeStyle = style;
      context.lineWidth = thick;
      context.strokeRect(left, top, width, height);
    }
    const text = `${label} ${score.toFixed(2)}`;
    context.font = "600 24px system-ui, sans-serif";
    const wide = context.measureText(text).width + 14;
    const [x, y] = [Math.max(0, Math.min(left - 2, limit - wide)), top >= 32 ? top - 32 : top];
    context.fillStyle = css(index);
    context.fillRect(x, y, wide, 32);
    context.fillStyle = inkOn(index);
    context.fillText(text, x + 7, y + 24);
    context.restore();
  };

  // ---- the table beside it ------------------------------------------------------------------------------------------

  const row = (...cells) => make("tr", {}, ...cells);
  const number = (text) => make("td", { className: "number" }, text);
  const name = (index, label) => make("th", { scope: "row" }, swatch(index), label);
  const heads = (...titles) =>
    make("thead", {}, row(...titles.map((title, place) => make("th", { scope: "col", className: place ? "number" : "" }, title))));

  const boxTable = (answer, again) => {
    const boxes = boxesOf(answer);
    const rows = boxes.slice(0, MOST_ROWS).map((box) => {
      const place = [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1].map(Math.round);
      const made = row(name(box.index, box.label), number(box.score.toFixed(2)), number(`${place[0]}, ${place[1]}`), number(`${place[2]} × ${place[3]}`));
      made.tabIndex = 0;
      for (const event of ["mouseenter", "focus"]) made.addEventListener(event, () => again(box));
      for (const event of ["mouseleave", "blur"]) made.addEventListener(event, () => again());
      return made;
    });
    return [heads("Class", "Score", "Left, top, px", "Size, px"), rows, boxes.length - rows.length];
  };

  const labelTable = ({ labels }) => {
    const told = labels.filter(isTold);
    const near = labels.filter((label) => !isTold(label)).slice(0, Math.max(3, FIRST_LABELS - told.length));
    const rows = [...told, ...near].map((each) => {
      const bar = make("span", { className: "meter" });
      bar.style.setProperty("--share", each.confidence);
      bar.style.setProperty("--threshold", moved(each.threshold));
      bar.style.setProperty("--colour", css(each.index));
      bar.setAttribute("aria-hidden", "true");
      const made = row(
        make("th", { scope: "row" }, each.label, make("span", { className: "unseen" }, isTold(each) ? ", told" : ", not told")),
        make("td", {}, bar), number(percent(each.confidence)), number(`from ${percent(moved(each.threshold))}`));
      made.classList.toggle("untold", !isTold(each));
      return made;
    });
    return [heads("Label", "", "Confidence", "Threshold"), rows, labels.length - rows.length];
  };

  const isHidden = (index) => (hidden === null ? index === 0 : hidden.has(index)); // the first most often is the ground

  const classTable = ({ mask }, again) => {
    const rows = mask.classes.slice(0, MOST_ROWS).map(({ label, index, share }) => {
      const button = make("button", { type: "button", className: "toggle" }, swatch(index), label);
      button.setAttribute("aria-pressed", String(!isHidden(index)));
      button.setAttribute("aria-label", `Draw ${label}`);
      button.addEventListener("click", () => {
        hidden ??= new Set([0]);
        hidden.has(index) ? hidden.delete(index) : hidden.add(index);
        for (const each of element("pictures").querySelectorAll("button.toggle"))
          each.setAttribute("aria-pressed", String(!isHidden(Number(each.dataset.index))));
        again();
      });
      button.dataset.index = index;
      return row(make("th", { scope: "row" }, button), number(percent(share)));
    });
    return [heads("Class", "Share of the image"), rows, mask.classes.length - rows.length];
  };

  const tableOf = (made, title) => {
    const [head, rows, left] = made;
    const table = make("table", { className: "found" }, make("caption", { className: "unseen" }, title), head, make("tbody", {}, ...rows));
    const more = left > 0 ? `and ${left} more` : rows.length ? "" : "Nothing at this threshold.";
    return [table, ...(more ? [make("p", { className: "small" }, more)] : [])];
  };

  // ---- all of them ------------------------------------------------------------------------------------------------

  let painted = []; // what paints each picture again

  const build = ({ name: title, answer, differs }) => {
    const canvas = make("canvas", { className: "picture" });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title}: ${words(answer)}`);
    const isDrawn = Boolean(answer.boxes || answer.mask);
    const again = (marked = null) => isDrawn && paint(canvas, answer, marked);
    painted.push(() => again());
    again();
    const badge = differs ? [make("span", { className: "badge differs" }, "differs")] : [];
    const caption = make("figcaption", {}, make("strong", {}, title), ...badge, make("span", { className: "below" }, words(answer)));
    const tables = [];
    const all = () => painted.forEach((each) => each());
    if (answer.labels) tables.push(tableOf(labelTable(answer), `Labels of ${title}`));
    if (answer.mask) tables.push(tableOf(classTable(answer, all), `Classes of ${title}`));
    if (answer.boxes) tables.push(tableOf(boxTable(answer, again), `Boxes of ${title}`));
    return make("li", {}, make("figure", {}, ...(isDrawn ? [canvas] : []), caption), ...tables.flat());
  };

  const render = () => {
    painted = [];
    element("pictures").replaceChildren(...entries.map(build));
    const has = (kind) => entries.some(({ answer }) => answer[kind]);
    element("found-part").hidden = !(has("boxes") || has("labels") || has("mask"));
    for (const [id, kind] of [["score", "boxes"], ["moved", "labels"], ["opacity", "mask"]]) element(`${id}-control`).hidden = !has(kind);
    element("as-in-card").hidden = !(has("boxes") || has("labels"));
    element("as-in-card").disabled = settings.score === null && settings.moved === 0;
    const own = [...new Set(entries.filter(({ answer }) => answer.boxes).map(({ answer }) => answer.shown_score))];
    if (settings.score === null && own.length) element("score").value = own[0];
    element("score-said").textContent =
      settings.score === null ? `${own.map((each) => each.toFixed(2)).join(" and ")}, as in the card` : settings.score.toFixed(2);
    element("moved").value = settings.moved;
    element("moved-said").textContent = settings.moved === 0 ? "as in the card" : `${settings.moved < 0 ? "lower" : "higher"}: 0.50 becomes ${moved(0.5).toFixed(2)}`;
    element("opacity-said").textContent = `${Math.round(100 * settings.opacity)} %`;
  };

  const set = (values) => {
    settings = { ...settings, ...values };
    render();
    changed();
  };
  element("score").addEventListener("input", (event) => set({ score: Number(event.target.value) }));
  element("moved").addEventListener("input", (event) => set({ moved: Number(event.target.value) }));
  element("opacity").addEventListener("input", (event) => set({ opacity: Number(event.target.value) }));
  element("as-in-card").addEventListener("click", () => set(asInCard));

  return {
    words,
    /** Draws what was found, and nothing else, on a canvas that lies over what was looked at. */
    over: (canvas, answer) => paint(canvas, answer, null, true),
    /** `listener` is called when a threshold was moved. */
    whenChanged: (listener) => (changed = listener),
    /** Another image: nothing is drawn until there are answers. */
    async begin(blob) {
      [image, entries] = [null, []];
      render();
      try {
        image = await createImageBitmap(blob, { imageOrientation: "from-image" });
      } catch {
        return; // a format that the server reads and this browser does not
      }
      render();
    },
    show(given) {
      entries = given;
      render();
    },
  };
};

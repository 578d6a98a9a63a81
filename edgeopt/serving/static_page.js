// The page of `edgeopt serve --static`: the files answer in the browser itself.
import { selfTest } from "./self_test.js";
import { placed } from "./placing.js";
import { decoded, normalized, pixels, shapeOf } from "./preprocessing.js";

const MOST_GUESSES = 5;
const MOST_THREADS = 4;
const mostPixels = Number(document.body.dataset.mostPixels);
const threads = crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
const site = await (await fetch("site.json")).json();
document.getElementById("unserved").remove();
const open = new Map(); // by file name: what `runtime.open` gave, with its card and what its task's module has

/** Bytes of RGB or grey as the file takes them, and their shape. */
const fed = (bytes, { input, preprocessing }) => {
  const [height, width, channels] = shapeOf(preprocessing);
  if (input.holds === "pixels") return [bytes, [1, height, width, channels]];
  const planes = normalized(bytes, preprocessing);
  if (input.shape[3] !== channels || input.shape[1] === channels) return [planes, [1, channels, height, width]];
  const last = new Float32Array(planes.length); // channels last, as some files of LiteRT take them
  const count = height * width;
  for (let index = 0; index < count; index += 1)
    for (let channel = 0; channel < channels; channel += 1) last[index * channels + channel] = planes[channel * count + index];
  return [last, [1, height, width, channels]];
};

const softmax = (logits, temperature) => {
  const most = logits.reduce((one, other) => Math.max(one, other));
  const shares = Array.from(logits, (logit) => Math.exp((logit - most) / temperature));
  const sum = shares.reduce((one, other) => one + other);
  return shares.map((share) => share / sum);
};

/** An image that is resized and cut already, as bytes of RGB or grey. */
const asCut = (image, preprocessing) => {
  const [height, width] = shapeOf(preprocessing);
  if (image.width !== width || image.height !== height)
    throw new Error(`a prepared image for this file has ${width} × ${height} pixels, not ${image.width} × ${image.height}`);
  return pixels(image, { ...preprocessing, resize: preprocessing.image_size }); // of its very size nothing is resized
};

const timed = async (call) => {
  const start = performance.now();
  const result = await call();
  return [result, performance.now() - start];
};

/** What a classifier says, by the temperature of its card where it has one. */
const likeliest = ([logits], { classes, decision }) => {
  const guesses = softmax(logits, decision?.temperature ?? 1).map((confidence, index) => ({ label: classes[index], confidence }));
  const top = guesses.sort((one, other) => other.confidence - one.confidence).slice(0, MOST_GUESSES);
  return { ...top[0], top };
};

/** What a file says of a decoded image, or {error}; with `raw`, what its task's module found. */
const answered = async (file, image, prepared) => {
  const { card, model, task } = open.get(file.name);
  let input, shape, preprocessing_ms;
  try {
    [[input, shape], preprocessing_ms] = await timed(async () =>
      fed(prepared ? asCut(image, card.preprocessing) : pixels(image, card.preprocessing), card),
    );
  } catch (error) {
    return { error: error.message };
  }
  const [outputs, file_ms] = await timed(() => model.run(input, shape));
  if (!outputs.every((values) => values.every(Number.isFinite)))
    return { error: "the file failed: it answers with numbers that are not finite" };
  if (task === null) return { ...likeliest(outputs, card), preprocessing_ms, file_ms };
  const raw = task.answer(outputs, card);
  return { ...placed(raw, image, card, prepared), raw, preprocessing_ms, file_ms };
};

const latest = new Map(); // by file name: what was found in which image, to compare others with

/** Whether a file found what the reference found in the same image; null where that cannot be said. */
const comparison = (file, reference, blob, raw) => {
  latest.set(file.name, { blob, raw });
  const other = latest.get(reference?.name);
  if (!other || other.blob !== blob) return null;
  const [own, its] = [open.get(file.name), open.get(reference.name)];
  const said = ({ card: { task, classes, preprocessing, outputs, output } }) =>
    JSON.stringify([task, classes, preprocessing, (outputs ?? [output]).map(({ shape }) => shape)]);
  return said(own) === said(its) ? own.task.alike(raw, other.raw) : null;
};

const predict = async (file, { blob, prepared }, reference) => {
  if (!open.has(file.name)) return { error: file.reason };
  const start = performance.now();
  let image, decode_ms;
  try {
    [image, decode_ms] = await timed(() => decoded(blob, open.get(file.name).card.preprocessing));
  } catch {
    return { error: "this browser reads no image in it" };
  }
  if (image.width * image.height > mostPixels)
    return { error: `it has ${image.width} × ${image.height} pixels, and at most ${mostPixels / 1e6} million are taken` };
  const { raw, ...answer } = await answered(file, image, prepared);
  if (raw) answer.alike = comparison(file, reference, blob, raw);
  return { ...answer, decode_ms, total_ms: performance.now() - start };
};

// ---- opening: one runtime after the other, and one file after the other, each tested with the images of its card ---------

const started = new Map();
const runtimeOf = (module) => {
  if (!started.has(module))
    started.set(module, import(`./${module}`).then(async (runtime) => (await runtime.start(threads), runtime)));
  return started.get(module);
};

const openFile = async (file) => {
  const [card, content] = await Promise.all([
    fetch(`${file.folder}/card.json`).then((response) => response.json()),
    fetch(`${file.folder}/${file.file}`).then((response) => (response.ok ? response.arrayBuffer() : Promise.reject(Error("it is not there")))),
  ]);
  const runtime = await runtimeOf(file.module);
  const model = await runtime.open(content);
  const task = file.task_module === null ? null : await import(`./${file.task_module}`);
  const wrong = await selfTest(card, async (bytes) => (await model.run(...fed(bytes, card)))[0]);
  if (wrong) throw new Error(wrong);
  await model.run(...fed(new Uint8Array(shapeOf(card.preprocessing).reduce((one, other) => one * other)), card)); // the first call is a slow one
  open.set(file.name, { card, model, task });
  return card.self_test != null;
};

for (const file of site.files) file.state = "opening";
const opening = (async () => {
  let passed = 0;
  for (const file of site.files)
    try {
      passed += await openFile(file);
      file.state = "ready";
    } catch (error) {
      Object.assign(file, { state: "failed", reason: error.message ?? String(error) });
    }
  if (passed && passed === open.size)
    document.getElementById("tested").textContent = "What answers has passed the self-test of its card in this browser.";
})();

startPage({
  files: async () => site.files,
  samples: async () => site.samples,
  predict: async (file, image, reference) => {
    await opening;
    return predict(file, image, reference);
  },
  watch: (file, image) => answered(file, image, false),
  opensAgain: false,
  gone: "The files of this page cannot be had.",
  silent: "the file did not answer",
});
document.getElementById("threads").textContent =
  threads > 1 ? `${threads} threads` : "1 thread, because this page is not isolated by its server's headers";

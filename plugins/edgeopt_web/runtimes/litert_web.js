// LiteRT.js for edgeopt's pages: `start` once, then `open` for each file.
import { loadAndCompile, loadLiteRt, Tensor } from "./litert_core.js";

let numThreads = 1;

/** Makes ready what all files share: the WebAssembly code, and its threads. */
export async function start(threads) {
  numThreads = threads;
  await loadLiteRt(new URL(".", import.meta.url).href, { threads: threads > 1 });
}

/** Opens a file, an ArrayBuffer. `run` takes its typed array and shape, and gives a typed array for each output. */
export async function open(model) {
  const compiled = await loadAndCompile(new Uint8Array(model), { accelerator: "wasm", cpuOptions: { numThreads } });
  const described = ({ name, dtype, shape }) => ({ name, dtype, shape: [...shape] });
  return {
    inputs: compiled.getInputDetails().map(described),
    outputs: compiled.getOutputDetails().map(described),
    async run(values, shape) {
      const given = new Tensor(values, shape);
      const returned = await compiled.run(given);
      const outputs = returned.map((tensor) => tensor.toTypedArray().slice()); // its memory is LiteRT's
      for (const tensor of [given, ...returned]) tensor.delete();
      return outputs;
    },
    close: () => compiled.delete(),
  };
}

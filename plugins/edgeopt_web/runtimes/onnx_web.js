// ONNX Runtime Web for edgeopt's pages: `start` once, then `open` for each file.
import * as ort from "./ort.wasm.bundle.min.js";

/** Makes ready what all files share: the WebAssembly code, and its threads. */
export async function start(threads) {
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = { wasm: new URL("./ort-wasm-simd-threaded.wasm", import.meta.url).href };
  ort.env.logLevel = "fatal";
  try {
    await ort.InferenceSession.create(new Uint8Array(1)); // it is no model, but the code is there before that is seen
  } catch {
    // where the code does not come up, opening a model says so again
  }
}

/** Opens a file, an ArrayBuffer. `run` takes its typed array and shape, and gives a typed array for each output. */
export async function open(model) {
  const session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"], logSeverityLevel: 4 });
  const described = ({ name, type, shape }) => ({ name, dtype: type, shape: shape.map((size) => (typeof size === "number" ? size : "batch")) });
  const [inputs, outputs] = [session.inputMetadata.map(described), session.outputMetadata.map(described)];
  const given = session.inputNames[0];
  return {
    inputs,
    outputs,
    async run(values, shape) {
      const tensor = new ort.Tensor(values instanceof Uint8Array ? "uint8" : "float32", values, shape);
      const returned = await session.run({ [given]: tensor });
      return session.outputNames.map((name) => returned[name].data);
    },
    close: () => session.release(),
  };
}

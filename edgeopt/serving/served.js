"use strict";
// The page of `edgeopt serve`: the server answers.
(() => {
  const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

  /** A mask of classes, from the grey levels of its PNG. */
  const withData = async ({ png, ...mask }) => {
    const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), { colorSpaceConversion: "none" });
    const { width, height } = bitmap;
    const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    return { ...mask, width, height, data: Uint8Array.from({ length: width * height }, (_, place) => data[4 * place]) };
  };

  const predict = async (file, { blob, prepared }, reference) => {
    const query = new URLSearchParams({ file: file.name });
    if (prepared) query.set("prepared", "true");
    if (file.task !== "classification") query.set("everything", "true");
    if (reference) query.set("reference", reference.name);
    for (let attempt = 0; ; attempt += 1) {
      const response = await fetch(`v1/predict?${query}`, { method: "POST", body: blob });
      const wait = Number(response.headers.get("retry-after") ?? 0);
      if (response.status === 503 && attempt < 2 && wait > 0 && wait <= 3) {
        await pause(wait);
        continue;
      }
      const answer = await response.json();
      if (!response.ok) return { error: answer.hint ? `${answer.error}; ${answer.hint}` : answer.error };
      return answer.mask ? { ...answer, mask: await withData(answer.mask) } : answer;
    }
  };

  startPage({
    files: async () => (await fetch("v1/files")).json(),
    samples: async () => (await fetch("v1/samples")).json(),
    predict,
    opensAgain: true,
    gone: "The server does not answer. Is it still running?",
    silent: "the server did not answer",
  });
})();

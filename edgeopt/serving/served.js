"use strict";
// The page of `edgeopt serve`: the server answers.
(() => {
  const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

  const predict = async (file, { blob, prepared }) => {
    const query = new URLSearchParams({ file: file.name });
    if (prepared) query.set("prepared", "true");
    for (let attempt = 0; ; attempt += 1) {
      const response = await fetch(`v1/predict?${query}`, { method: "POST", body: blob });
      const wait = Number(response.headers.get("retry-after") ?? 0);
      if (response.status === 503 && attempt < 2 && wait > 0 && wait <= 3) {
        await pause(wait);
        continue;
      }
      const answer = await response.json();
      return response.ok ? answer : { error: answer.hint ? `${answer.error}; ${answer.hint}` : answer.error };
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

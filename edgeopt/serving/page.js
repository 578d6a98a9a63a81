"use strict";
/**
 * The page. `backend` answers: `files()` and `samples()` list what there is, `predict(file, image)` asks a file about
 * {blob, prepared} and compares its answer with that of a third argument, the reference, and `gone` and `silent` say what it means
 * that none of them answers, or one file does not. `opensAgain` says whether a file that does not open is tried again. Where there is a
 * `watch(file, image)`, it answers for frames of the camera.
 * A classifier's answer has a `label`; any other is drawn by `drawing.js`.
 */
const startPage = (backend) => {
  const element = (id) => document.getElementById(id);
  const mostBytes = Number(document.body.dataset.mostBytes);
  const formats = { ms: new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 }) };
  const hidden = new Set(); // precisions that are not shown
  let files = [];
  let answers = new Map(); // by file name: an answer, {error}, or null while it is asked
  let truth = null; // the class of the image, where it is known
  let given = null; // the image that is asked about: {blob, run}
  let round = 0; // of asking: what an older one brings is thrown away
  let pressed = null; // the test image that is chosen

  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const size = (bytes) =>
    bytes >= 1e6 ? `${(bytes / 1e6).toFixed(2)} MB` : bytes >= 1e3 ? `${(bytes / 1e3).toFixed(1)} kB` : `${bytes} B`;
  const shown = () => files.filter((file) => !hidden.has(file.precision));
  const nameOf = (file) => `${file.export} ${file.precision}`;
  const pictures = makePictures(element, make, percent);
  const say = (...parts) => element("summary").replaceChildren(...parts);

  // ---- files and their filter ------------------------------------------------------------------------------------

  const load = async () => {
    try {
      files = await backend.files();
    } catch {
      say(backend.gone);
      return;
    }
    filter();
    if (files.every(isFinder)) {
      const [head, confidence] = document.querySelectorAll(".answers th.answer");
      Object.assign(head, { textContent: "Answer", colSpan: 2 });
      confidence.hidden = true;
    }
    draw();
    const waits = ({ state }) => state === "opening" || (state === "failed" && backend.opensAgain);
    if (files.some(waits)) setTimeout(load, 1000);
  };

  const filter = () => {
    const box = element("filter");
    const precisions = [...new Set(files.map((file) => file.precision))];
    if (box.querySelector("input") || precisions.length < 2) return;
    for (const precision of precisions) {
      const input = make("input", { type: "checkbox", checked: true, value: precision });
      input.addEventListener("change", () => {
        input.checked ? hidden.delete(precision) : hidden.add(precision);
        draw();
        tell();
        if (input.checked && given) ask(); // those that were hidden have not been asked
      });
      box.append(make("label", {}, input, precision));
    }
    box.hidden = false;
  };

  // ---- the table -------------------------------------------------------------------------------------------------

  const isFinder = ({ task }) => task !== "classification";
  const found = () => shown().filter((file) => isFinder(file) && answers.get(file.name) && !answers.get(file.name).error);
  /** The file whose answer those of others are compared with: a float one where there is one. */
  const referenceOf = (file) => {
    const same = shown().filter((each) => isFinder(each) && each.task === file.task && each.state === "ready");
    return isFinder(file) ? (same.find(({ role }) => role === "baseline") ?? same[0] ?? null) : null;
  };

  const answered = () => shown().filter((file) => answers.get(file.name)?.label !== undefined);

  /** What most files say; the float file's word decides where two answers have as many. */
  const verdict = () => {
    const votes = new Map();
    for (const file of answered()) {
      const { label } = answers.get(file.name);
      const vote = votes.get(label) ?? { label, files: 0, float: 0 };
      vote.files += 1;
      vote.float += file.role === "baseline" ? 1 : 0;
      votes.set(label, vote);
    }
    return [...votes.values()].sort((one, other) => other.files - one.files || other.float - one.float);
  };

  const draw = () => {
    const several = new Set(files.map((file) => file.run)).size > 1;
    const [most] = verdict();
    const open = new Set([...document.querySelectorAll("#files details[open]")].map((each) => each.dataset.file));
    element("files").replaceChildren(
      ...shown().map((file) => {
        const row = make("tr", { className: file.role });
        const below = [file.role, file.export === file.runtime ? "" : file.runtime, several ? file.run : ""];
        row.append(
          make("th", { scope: "row" }, `${file.export} ${file.precision}`,
            make("span", { className: "below small" }, below.filter(Boolean).join(", "))),
        );
        row.append(...cells(file, answers.get(file.name), most, open));
        if (most && answers.get(file.name)?.label !== undefined && answers.get(file.name).label !== most.label)
          row.classList.add("differs");
        if (answers.get(file.name)?.alike === false) row.classList.add("differs");
        return row;
      }),
    );
    if (document.activeElement?.closest("#pictures") === null)
      pictures.show(found().map((file) => {
        const answer = answers.get(file.name);
        return { name: several ? `${nameOf(file)}, ${file.run}` : nameOf(file), answer, differs: answer.alike === false };
      }));
  };

  const cells = (file, answer, most, open) => {
    const figure = (title, text) => {
      const cell = make("td", { className: "number" }, text);
      cell.dataset.title = title;
      return cell;
    };
    if (answer?.error || (file.state !== "ready" && answer === undefined)) {
      const text = answer?.error ?? (file.state === "opening" ? "is being opened" : `does not open: ${file.reason}`);
      const failed = answer?.error || file.state === "failed";
      return [make("td", { colSpan: 6, className: failed ? "fail" : "waiting" }, text), figure("size", size(file.size_bytes))];
    }
    if (!answer) {
      const text = answer === null ? "…" : "–";
      const empty = ["decode", "preprocessing", "file", "total"].map((title) => figure(title, text));
      return [make("td", { className: "waiting" }, text), make("td", { className: "waiting" }, text), ...empty,
        figure("size", size(file.size_bytes))];
    }
    const times = [
      figure("decode", `${formats.ms.format(answer.decode_ms)} ms`),
      figure("preprocessing", `${formats.ms.format(answer.preprocessing_ms)} ms`),
      figure("file", `${formats.ms.format(answer.file_ms)} ms`),
      figure("total", `${formats.ms.format(answer.total_ms)} ms`),
      figure("size", size(file.size_bytes)),
    ];
    if (isFinder(file)) {
      const told = make("td", { colSpan: 2 }, make("strong", {}, pictures.words(answer)));
      if (answer.alike === false) told.append(make("span", { className: "badge differs" }, "differs"));
      return [told, ...times];
    }
    const label = make("td", {}, make("strong", {}, answer.label));
    if (truth !== null) {
      const right = answer.label === truth;
      label.append(make("span", { className: `badge ${right ? "right" : "wrong"}` }, right ? "right" : "wrong"));
    }
    if (answer.label !== most.label) label.append(make("span", { className: "badge differs" }, "differs"));
    const details = make("details", { open: open.has(file.name) }, make("summary", {}, `top ${answer.top.length}`));
    details.dataset.file = file.name;
    details.append(make("ol", {}, ...answer.top.map((guess) => make("li", {}, `${guess.label} ${percent(guess.confidence)}`))));
    label.append(details);
    const bar = make("span", { className: "bar" });
    bar.style.setProperty("--share", answer.confidence.toFixed(4));
    bar.setAttribute("aria-hidden", "true");
    const confidence = make("td", {}, bar, make("span", { className: "figure" }, percent(answer.confidence)));
    return [label, confidence, ...times];
  };

  /** The outcome in a sentence, which screen readers read out. */
  const tell = () => {
    if (!given) return;
    const votes = verdict();
    const all = shown().length;
    const failed = shown().filter((file) => answers.get(file.name)?.error).length;
    const unable = failed ? ` ${failed} of ${all} could not answer.` : "";
    const classes = votes.length ? `classification: ${votes.map((vote) => `${vote.files} say ${vote.label}`).join("; ")}.` : "";
    if (found().length) return say(...toldOfFound(), classes, unable);
    if (!votes.length) return say(failed ? `No file could answer.` : "No file is asked.");
    const count = answered().length;
    const known = truth === null ? "" : ` It is ${truth}.`;
    if (votes.length === 1) {
      const who = count === 1 ? "The file says " : count === 2 ? "Both files say " : `All ${count} files say `;
      return say(who, make("strong", {}, votes[0].label), `.${known}${unable}`);
    }
    const parts = votes.map((vote) => `${vote.files} of ${count} say ${vote.label}`);
    say(make("strong", {}, "The files differ: "), `${parts.join("; ")}.${known}${unable}`);
  };

  /** What files found, in a line for each task. */
  const toldOfFound = () => {
    const tasks = [...new Set(found().map((file) => file.task))];
    return tasks.map((task) => {
      const own = found().filter((file) => file.task === task);
      const reference = own.find((file) => referenceOf(file) === file) ?? own[0];
      const words = make("strong", {}, pictures.words(answers.get(reference.name)));
      const others = own.filter((file) => file !== reference).map((file) => answers.get(file.name).alike ?? null);
      const [differ, unknown] = [false, null].map((value) => others.filter((alike) => alike === value).length);
      const alike = own.length - unknown;
      const parts = tasks.length > 1 ? [`${task}: `] : [];
      if (!others.length) parts.push("The file finds ", words, ".");
      else if (differ) parts.push(make("strong", {}, "The files differ: "), `${differ} of ${own.length} answer otherwise than ${nameOf(reference)}, which finds `, words, ".");
      else if (alike > 1) parts.push(`${own.length === 2 ? "Both" : unknown ? alike : `All ${alike}`} files find the same: `, words, ".");
      else parts.push(`${nameOf(reference)} finds `, words, ".");
      if (unknown) parts.push(` ${unknown} cannot be compared with it.`);
      return make("span", { className: "line" }, ...parts);
    });
  };
  pictures.whenChanged(() => {
    draw();
    tell();
  });

  // ---- asking ----------------------------------------------------------------------------------------------------

  const ask = async () => {
    const mine = (round += 1);
    const isReference = (file) => Number(referenceOf(file) === file);
    const left = shown().filter((file) => !answers.get(file.name)).sort((one, other) => isReference(other) - isReference(one));
    for (const file of left) answers.set(file.name, null);
    document.querySelector("table.answers").setAttribute("aria-busy", "true");
    draw();
    for (const file of left) {
      let answer;
      try {
        const image = { blob: given.blob, prepared: given.run !== null && given.run === file.run };
        answer = await backend.predict(file, image, referenceOf(file));
      } catch {
        answer = { error: backend.silent };
      }
      if (mine !== round) return;
      answers.set(file.name, answer);
      draw();
    }
    document.querySelector("table.answers").setAttribute("aria-busy", "false");
    tell();
  };

  /** Shows an image and asks about it. `run` is the run whose test image it is, or null. */
  const give = (blob, name, run = null, label = null) => {
    const refused = blob.size > mostBytes ? `it has ${size(blob.size)}, and at most ${size(mostBytes)} are read` : "";
    if (refused) return say(`${name} is not asked about: ${refused}.`);
    [given, truth, answers] = [{ blob, run }, label, new Map()];
    const preview = element("preview");
    if (preview.src) URL.revokeObjectURL(preview.src);
    preview.onload = () => preview.classList.toggle("small-image", preview.naturalWidth <= 128);
    preview.onerror = () => (preview.hidden = true);
    preview.src = URL.createObjectURL(blob);
    if (files.some(isFinder)) pictures.begin(blob);
    preview.alt = label === null ? `The image that is asked about: ${name}` : `A test image of ${label}`;
    preview.hidden = false;
    element("invitation").hidden = true;
    element("truth").hidden = label === null;
    element("truth").replaceChildren("A test image of ", make("strong", {}, label ?? ""));
    if (pressed && run === null) press(null);
    say("Asking…");
    ask();
  };

  const press = (button) => {
    pressed?.setAttribute("aria-pressed", "false");
    button?.setAttribute("aria-pressed", "true");
    pressed = button;
  };

  // ---- ways to give an image -------------------------------------------------------------------------------------

  for (const id of ["choose", "capture"])
    element(id).addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file) give(file, file.name);
      event.target.value = ""; // so that the same one can be chosen again
    });
  const drop = element("drop");
  for (const kind of ["dragenter", "dragover"])
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) give(file, file.name);
    else say("That is no file. Drop an image file.");
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) give(file, file.name || "the pasted image");
  });

  const samples = async () => {
    let kept = [];
    try {
      kept = await backend.samples();
    } catch {
      return; // `load` says so
    }
    document.querySelector(".ask").classList.toggle("alone", !kept.length);
    element("samples-part").hidden = !kept.length;
    const several = new Set(kept.map((sample) => sample.run)).size > 1;
    for (const sample of kept) {
      const image = make("img", { src: sample.image, alt: "", loading: "lazy" });
      image.addEventListener("load", () => image.classList.toggle("small-image", image.naturalWidth <= 64));
      const button = make("button", { type: "button", title: sample.truth }, image, make("span", {}, sample.truth));
      button.setAttribute("aria-pressed", "false");
      if (several) button.append(make("span", { className: "run" }, sample.run));
      const of = several ? ` of ${sample.run}` : "";
      button.setAttribute("aria-label", `Test image ${sample.index}${of}, ${sample.truth}`);
      button.addEventListener("click", async () => {
        press(button);
        try {
          const response = await fetch(sample.image);
          if (!response.ok) throw new Error(response.statusText);
          give(await response.blob(), `test image ${sample.index}`, sample.run, sample.truth);
        } catch {
          say("The test image is gone.");
        }
      });
      element("samples").append(make("li", {}, button));
    }
  };

  // ---- the camera ------------------------------------------------------------------------------------------------

  const camera = element("camera");
  const video = element("video");
  const stop = () => {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  };
  element("take").addEventListener("click", async () => {
    if (!navigator.mediaDevices?.getUserMedia) return element("capture").click(); // not over plain HTTP from elsewhere
    element("camera-message").textContent = "";
    element("shoot").disabled = true;
    camera.showModal();
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
      if (!camera.open) {
        for (const track of stream.getTracks()) track.stop();
        return;
      }
      video.srcObject = stream;
      await video.play();
      element("shoot").disabled = false;
      element("shoot").focus();
      if (backend.watch) watch();
    } catch (error) {
      element("camera-message").textContent =
        error.name === "NotAllowedError" ? "The browser was not allowed to use the camera."
          : error.name === "NotFoundError" ? "There is no camera." : `The camera cannot be used: ${error.message}`;
    }
  });
  /** What the chosen file says of what the camera sees now, as long as it is open; frames that come meanwhile are left out. */
  const watch = async () => {
    const ready = shown().filter((file) => file.state === "ready");
    const before = element("watched").value;
    element("watched").replaceChildren(
      ...ready.map((file) => make("option", { value: file.name, selected: file.name === before }, `${file.export} ${file.precision}`)),
    );
    const context = make("canvas").getContext("2d", { willReadFrequently: true });
    let [watched, times] = [null, []];
    while (video.srcObject) {
      const { videoWidth: width, videoHeight: height } = video;
      const file = ready.find((each) => each.name === element("watched").value);
      if (file && width) {
        if (file !== watched) [watched, times] = [file, []];
        Object.assign(context.canvas, { width, height });
        context.drawImage(video, 0, 0);
        const answer = await backend.watch(file, context.getImageData(0, 0, width, height));
        if (isFinder(file) && !answer.error) pictures.over(element("drawn"), answer);
        else element("drawn").width = 0; // which empties it
        times = [...times.slice(-30), answer.file_ms];
        const median = [...times].sort((one, other) => one - other)[Math.floor(times.length / 2)];
        element("live").textContent = answer.error ?? `${isFinder(file) ? pictures.words(answer) : `${answer.label}, ${percent(answer.confidence)}`}, ${formats.ms.format(median)} ms`;
      }
      await new Promise(requestAnimationFrame);
    }
    element("drawn").width = 0;
  };
  element("shoot").addEventListener("click", () => {
    const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      camera.close();
      if (blob) give(blob, "the camera's image");
    }, "image/jpeg", 0.95);
  });
  element("leave").addEventListener("click", () => camera.close());
  camera.addEventListener("close", () => {
    stop();
    element("take").focus();
  });

  load();
  samples();
};

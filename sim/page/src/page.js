"use strict";
// Reads the files that a person drops or chooses, and shows their report. Names from firmware are
// only shown by the report, in a frame that can neither use this document nor any network.
const SECONDS = 120; // Time limit of an inspection.
const BYTES = 16 << 20; // Maximum length of a file, as for the command.
const FILES = 256;
const find = (id) => document.getElementById(id);
const [input, status, save, frame] = ["files", "status", "save", "report"].map(find);
const module = Uint8Array.from(atob(find("module").textContent), (byte) => byte.charCodeAt(0));
const code = new Blob([find("worker").textContent], { type: "text/javascript" });

let machine = []; // The files that were inspected last, in the order in which they were added.
let outputs = []; // The outputs about them.
let stop = () => {}; // Ends the inspection that runs.
let latest = 0; // Number of the latest request. Reading for earlier ones goes on, without effect.

function say(text) {
  status.textContent = text;
}

/** Shows the outputs, or nothing if there are none. */
function show(results) {
  outputs = results;
  const has = results.length > 0;
  document.body.classList.toggle("filled", has);
  frame.hidden = save.hidden = !has;
  // In a document of a `blob:` URL, Chromium ignores links to the document's own parts.
  if (has) frame.srcdoc = new TextDecoder().decode(results[1]);
  else frame.removeAttribute("srcdoc");
  Array.from(save.querySelectorAll("a")).forEach((link, at) => {
    if (link.href) URL.revokeObjectURL(link.href);
    if (!has) return link.removeAttribute("href");
    const type = ["text/html", "application/json", "application/json", "image/svg+xml"][at];
    link.href = URL.createObjectURL(new Blob([results[at + 1]], { type: `${type};charset=utf-8` }));
  });
}

/** Inspects files in a worker, which is terminated after the time limit. */
function inspect(files) {
  const names = files.map((file) => file.name).join(", ");
  const address = URL.createObjectURL(code);
  const worker = new Worker(address);
  const start = performance.now();
  const timer = setTimeout(() => {
    stop();
    say(`${names}: stopped after ${SECONDS} s. The command doorbell report has no time limit.`);
  }, SECONDS * 1000);
  stop = () => {
    clearTimeout(timer);
    worker.terminate();
    URL.revokeObjectURL(address);
    stop = () => {};
  };
  const fail = (reason) => {
    stop();
    say(`${names}: not inspected, because it needs more memory than a page gets, or because of a ` +
      `bug (${reason}). Try the command doorbell report.`);
  };
  worker.onerror = ({ message }) => fail(message || "no thread could be started");
  worker.onmessage = ({ data: { outputs: results, failure } }) => {
    if (failure) return fail(failure);
    stop();
    if (results[0].length > 0) return say(new TextDecoder().decode(results[0]));
    machine = files;
    show(results);
    say(`${names}: inspected in ${((performance.now() - start) / 1000).toFixed(1)} s.`);
  };
  worker.postMessage({ module, files });
  say(`${names}: being inspected, for at most ${SECONDS} s …`);
}

/** Adds overlays to the machine, or begins with another one. */
async function open(list) {
  const added = Array.from(list);
  if (added.length === 0) return;
  const request = ++latest;
  stop();
  show([]);
  const before = added.every((file) => file.name.endsWith(".dtbo")) ? machine : [];
  const large = added.find((file) => file.size > BYTES);
  if (large) return say(`${large.name} has more than ${BYTES >> 20} MiB.`);
  if (before.length + added.length > FILES) return say(`There are more than ${FILES} files.`);
  try {
    const read = await Promise.all(added.map(async (file) => {
      const contents = file.arrayBuffer().catch(() => {
        throw new Error(`${file.name} cannot be read. If it is a folder, drop its files.`);
      });
      return { name: file.name, contents: new Uint8Array(await contents) };
    }));
    if (request !== latest) return;
    inspect([...before, ...read]);
  } catch (error) {
    if (request === latest) say(error.message);
  }
}

// Without a value, the same file can be chosen again.
input.addEventListener("click", () => { input.value = ""; });
input.addEventListener("change", () => open(input.files));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind.startsWith("drage") || kind === "dragover");
  });
}
document.addEventListener("drop", (event) => open(event.dataTransfer.files));
// The report passes on the files that are dropped on it.
addEventListener("message", ({ source, data }) => {
  if (source === frame.contentWindow) open(data);
});
// Otherwise, Chromium gives this document the focus during the first click of an inactive window,
// and takes it from the link in the report, which has another process.
focus();

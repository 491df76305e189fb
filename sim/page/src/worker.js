"use strict";
// Inspects files in a thread of its own. The numbers of the outputs are those of `Output`.
onmessage = async ({ data: { module, files } }) => {
  try {
    const unpacked = new Blob([module]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const wasm = await new Response(unpacked).arrayBuffer();
    const { instance: { exports } } = await WebAssembly.instantiate(wasm);
    for (const { name, contents } of files) {
      const label = new TextEncoder().encode(name);
      const start = exports.page_add(label.length, contents.length) >>> 0;
      const buffer = new Uint8Array(exports.memory.buffer, start, label.length + contents.length);
      buffer.set(label);
      buffer.set(contents, label.length);
    }
    exports.page_run();
    const outputs = [0, 1, 2, 3, 4].map((number) => {
      const [start, length] = [exports.page_output(number) >>> 0, exports.page_length(number)];
      return new Uint8Array(exports.memory.buffer, start, length >>> 0).slice();
    });
    postMessage({ outputs });
  } catch (error) {
    postMessage({ failure: String(error) });
  }
};

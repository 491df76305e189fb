// Drops files on the page: a list of names and contents in base64.
const transfer = new DataTransfer();
for (const [name, contents] of arguments[0]) {
  const bytes = Uint8Array.from(atob(contents), (byte) => byte.charCodeAt(0));
  transfer.items.add(new File([bytes], name));
}
document.querySelector("#status").textContent = "";
for (const kind of ["dragenter", "dragover", "drop"]) {
  const event = new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.querySelector("main").dispatchEvent(event);
}


"use strict";
// Highlights a requester's path through the picture and shows its route below. Without this script,
// the page's links still lead from findings to boxes.
(() => {
  // In a frame without an address (srcdoc), links would lead to the document around it.
  if (location.protocol === "about:") {
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a");
      if (!link) return;
      event.preventDefault();
      location.hash = ""; // Otherwise, the browser would not scroll back to the same part.
      location.hash = link.getAttribute("href");
    });
    // The document around it, which is the page that inspects files, opens dropped files.
    for (const kind of ["dragover", "drop"]) {
      document.addEventListener(kind, (event) => {
        event.preventDefault();
        if (kind === "drop") parent.postMessage(event.dataTransfer.files, "*");
      });
    }
  }
  const picture = document.querySelector("#picture svg");
  const panel = document.getElementById("panel");
  if (!picture || !panel) return;
  const hint = Array.from(panel.childNodes);
  const boxes = new Map(Array.from(picture.querySelectorAll("a.node"), (box) => [box.id, box]));
  const arrows = Array.from(picture.querySelectorAll("path[data-from]"));
  const routes = new Map(
    Array.from(document.querySelectorAll("details.route"), (route) => [route.dataset.node, route]),
  );
  let selected = null;

  /** Returns the boxes on a requester's routes; for another box, its neighbors along arrows. */
  function way(id) {
    const route = routes.get(id);
    if (route) return new Set(route.dataset.way.split(" "));
    const near = new Set([id]);
    for (const { dataset: { from, to } } of arrows) {
      if (from === id) near.add(to);
      if (to === id) near.add(from);
    }
    return near;
  }

  /** Returns the description of a box: its route, or else its own text. */
  function words(box) {
    const route = routes.get(box.id);
    const heading = document.createElement("h3");
    if (!route) {
      const [first, ...lines] = box.querySelector("title").textContent.split("\n");
      heading.textContent = first;
      const text = document.createElement("p");
      text.textContent = lines.join(", ");
      return [heading, text];
    }
    heading.textContent = route.querySelector("summary").textContent;
    const rest = Array.from(route.children).filter((child) => child.localName !== "summary");
    return [heading, ...rest.map((child) => child.cloneNode(true))];
  }

  function show(box) {
    picture.classList.toggle("lit", box !== null);
    const on = box ? way(box.id) : new Set();
    for (const [id, other] of boxes) other.classList.toggle("way", on.has(id));
    for (const arrow of arrows) {
      const { from, to } = arrow.dataset;
      arrow.classList.toggle("way", on.has(from) && on.has(to));
    }
    panel.replaceChildren(...(box ? words(box) : hint));
    panel.scrollTop = 0;
  }

  /** Scrolls to the box named by the URL's fragment; the browser moves the focus to it. */
  function select() {
    selected = boxes.get(decodeURIComponent(location.hash.slice(1))) ?? null;
    show(selected);
    selected?.scrollIntoView({ block: "center", inline: "center" });
  }

  for (const box of boxes.values()) {
    for (const event of ["mouseenter", "focus"]) box.addEventListener(event, () => show(box));
    for (const event of ["mouseleave", "blur"]) box.addEventListener(event, () => show(selected));
  }
  addEventListener("hashchange", select);
  select();
})();

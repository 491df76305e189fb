// Arguments: the color scheme and the width in which the page is shown. Returns complaints.
const [scheme, width] = arguments;
const complaints = [];
const require = (good, otherwise) => { if (!good) complaints.push(otherwise); };

/** A colour as red, green, blue from 0 to 1 and opacity. */
function colour(text) {
  const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
  return [red / 255, green / 255, blue / 255, alpha];
}

/** `above` over an opaque colour. */
function blend(above, opacity, below) {
  return [0, 1, 2].map((at) => above[at] * opacity + below[at] * (1 - opacity));
}

/** Relative luminance and contrast ratio as WCAG 2.2 defines them. */
function luminance(rgb) {
  const linear = rgb.map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}
function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

/** The colour behind an element: of the shape before it in a picture, else of its ancestors. */
function behind(element) {
  if (element.localName === "text") {
    for (let shape = element.previousElementSibling; shape; shape = shape.previousElementSibling) {
      const fill = getComputedStyle(shape).fill;
      if (["rect", "circle"].includes(shape.localName) && fill !== "none") return colour(fill);
    }
  }
  for (let at = element; at; at = at.parentElement) {
    const below = colour(getComputedStyle(at).backgroundColor);
    if (below[3] === 1) return below;
  }
  return [1, 1, 1, 1];
}

function opacity(element) {
  let product = 1;
  for (let at = element; at; at = at.parentElement) product *= Number(getComputedStyle(at).opacity);
  return product;
}

const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let legible = 0;
while (words.nextNode()) {
  const element = words.currentNode.parentElement;
  const text = words.currentNode.data.trim();
  if (!text || ["script", "style", "title"].includes(element.localName)) continue;
  if (!element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const below = behind(element);
  const above = colour(element.localName === "text" ? style.fill : style.color);
  const ratio = contrast(blend(above, above[3] * opacity(element), below), below);
  legible += 1;
  require(ratio >= 4.5, `"${text.slice(0, 40)}" has a contrast of ${ratio.toFixed(2)}`);
}
require(legible > 40, `only ${legible} texts are shown`);

const root = document.documentElement;
require(innerWidth === width, `the window is ${innerWidth} pixels wide`);
require(root.scrollWidth <= width, `the page is ${root.scrollWidth} pixels wide`);
const paper = luminance(colour(getComputedStyle(document.body).backgroundColor));
require(scheme === "dark" ? paper < 0.2 : paper > 0.8, `a paper of ${paper} in a ${scheme} page`);
const picture = document.querySelector("#picture svg");
require(picture !== null, "there is no picture");
const frame = picture?.parentElement;
// A narrow page shows the actual size first, because the whole picture would be too small to read.
const size = document.querySelector("#picture .size input");
if (width <= 760) size.click();
require(frame?.scrollWidth <= frame?.clientWidth + 1, "the picture is wider than its frame");
size.click();
require(picture?.clientWidth > 600, "the picture in its actual size is squeezed");
if (width > 760) size.click();

require(root.lang === "en", "the page does not say its language");
require(document.title.trim() !== "", "the page has no title");
for (const one of ["header", "main", "footer", "h1"]) {
  require(document.querySelectorAll(one).length === 1, `there is not one ${one}`);
}
const ids = Array.from(document.querySelectorAll("[id]"), (element) => element.id);
require(new Set(ids).size === ids.length, "an identifier is there twice");
for (const link of document.querySelectorAll("a")) {
  const target = link.getAttribute("href");
  require(target?.startsWith("#") && ids.includes(target.slice(1)), `${target} leads nowhere`);
  require(link.textContent.trim() !== "", `the link to ${target} has no name`);
}
for (const part of document.querySelectorAll("[aria-labelledby]")) {
  require(ids.includes(part.getAttribute("aria-labelledby")), "a part has no label");
}
for (const part of document.querySelectorAll("*")) {
  const handlers = part.getAttributeNames().filter((name) => name.startsWith("on") || name === "style");
  require(handlers.length === 0, `${part.localName} has ${handlers}`);
  const scrolls = part.scrollWidth > part.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(part).overflowX);
  require(!scrolls || part.tabIndex >= 0, `${part.localName} scrolls, but not by the keyboard`);
}
return complaints;

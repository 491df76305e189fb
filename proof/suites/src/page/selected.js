// Returns the defect of the box that the address's fragment selects, or null.
const box = document.getElementById(decodeURIComponent(location.hash.slice(1)));
if (!box?.matches("svg a.node")) return `${location.hash} is no box`;
if (!box.matches(":target")) return "the box is not the target";
if (document.activeElement !== box) return "the box does not have the focus";
const own = box.querySelector("rect").getBoundingClientRect();
const frame = box.closest(".scroll").getBoundingClientRect();
const panel = document.getElementById("panel").getBoundingClientRect();
const left = Math.max(0, frame.left);
const right = Math.min(innerWidth, frame.right);
const bottom = Math.min(innerHeight, frame.bottom, panel.top);
if (own.left < left - 1 || own.right > right + 1) return "the box is not in view from left to right";
if (own.top < Math.max(0, frame.top) - 1 || own.bottom > bottom + 1) return "the box is not in view from top to bottom";
return null;

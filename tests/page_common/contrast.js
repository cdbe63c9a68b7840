// The body of a function: WCAG 2 contrast of all visible text and telling shapes against the ground
// they stand on, from computed styles. Grounds are opaque colours here; others are a fault.
const numbers = (color) => color.match(/[\d.]+/g).map(Number);
const light = (color) => {
  const [r, g, b] = numbers(color).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (a, b) => {
  const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
};
const ground = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    const alpha = numbers(color)[3] ?? 1;
    if (alpha === 1) return color;
    if (alpha !== 0) return null;
  }
  return "rgb(255, 255, 255)";
};
const result = { texts: 0, least: 21, shapes: 0, least_of_shapes: 21, faults: [] };
for (const element of document.body.querySelectorAll("*")) {
  if (!element.checkVisibility({ visibilityProperty: true }) || element.closest("noscript")) continue;
  const style = getComputedStyle(element);
  if (style.clipPath !== "none" || element.closest("title")) continue;
  const under = ground(element);
  const isShape = element.matches(".beat:not(.base)[d], .place[data-filled], .logo path");
  const isText = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim() !== "");
  if (!isShape && !isText) continue;
  const color = isShape ? style.stroke : element.matches("svg text") ? style.fill : style.color;
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  const bound = isShape || large ? 3 : 4.5;
  const value = under ? ratio(color, under) : 0;
  const opaque = (numbers(color)[3] ?? 1) === 1 && style.opacity === "1";
  if (isShape) {
    result.shapes += 1;
    result.least_of_shapes = Math.min(result.least_of_shapes, value);
  } else {
    result.texts += 1;
    if (!large) result.least = Math.min(result.least, value);
  }
  if (value < bound || !opaque) {
    result.faults.push(`${element.tagName}.${element.getAttribute("class")} ` +
      `${element.textContent.slice(0, 30)}: ${color} on ${under}: ${value.toFixed(2)}`);
  }
}
return result;

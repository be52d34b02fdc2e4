"""Tests in a real browser share these helpers."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: Every shown text whose contrast with its background is below 4.5, and every shape below 3.
FAINT = """() => {
  const parse = text => {
    const n = text.match(/[\\d.]+/g).map(Number);
    return {rgb: n.slice(0, 3), a: n.length > 3 ? n[3] : 1};
  };
  const light = rgb => {
    const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgb.map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.a === 1) return colour.rgb;
    }
    return [255, 255, 255];
  };
  const faint = new Set();
  const check = (element, colour, below, least) => {
    const ratio = contrast(parse(colour).rgb, below);
    const name = `${element.tagName}.${element.getAttribute("class")}`;
    if (ratio < least) faint.add(`${ratio.toFixed(2)} ${name} ${element.textContent.slice(0, 30)}`);
  };
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility() || element.closest("svg") || element.closest(".hidden")) continue;
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (own) check(element, getComputedStyle(element).color, behind(element), 4.5);
  }
  for (const text of document.querySelectorAll("svg text")) {
    if (!text.checkVisibility()) continue;
    let below = behind(text.ownerSVGElement);
    if (text.classList.contains("count"))
      for (const rect of text.parentElement.querySelectorAll("rect")) {
        const top = parse(getComputedStyle(rect).fill).rgb;
        const alpha = Number(rect.getAttribute("fill-opacity") ?? 1);
        below = below.map((v, i) => alpha * top[i] + (1 - alpha) * v);
      }
    check(text, getComputedStyle(text).fill, below, 4.5);
  }
  for (const mark of document.querySelectorAll("svg .solid, svg .bar"))
    if (mark.checkVisibility()) check(mark, getComputedStyle(mark).fill, behind(mark.ownerSVGElement), 3);
  return [...faint];
}"""

// What is wrong with the page that it runs in, a sentence each. Opens what is folded, and tries every attack.
(least, width) => {
  const faults = [];
  const say = (text) => faults.length < 20 && faults.push(text);
  const name = (node) => `<${node.tagName.toLowerCase()}${node.className ? ` class="${node.className.baseVal ?? node.className}"` : ""}>`;
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

  const colour = (text) => {  // [red, green, blue, alpha] of any colour that CSS can write
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = "#000";
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3])).concat(1);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(colour(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const opacity = (node) => {
    let all = 1;
    for (let at = node; at; at = at.parentElement) all *= Number(getComputedStyle(at).opacity);
    return all;
  };

  const contrast = () => {
    const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (words.nextNode()) {
      const node = words.currentNode.parentElement;
      const text = words.currentNode.textContent.trim();
      if (!text || !node.checkVisibility({ visibilityProperty: true }) || node.closest(".hidden, style, title")) continue;
      const style = getComputedStyle(node);
      const ink = colour(node.closest("svg") ? style.fill : style.color);
      const ground = behind(node);
      const found = ratio(over([...ink.slice(0, 3), ink[3] * opacity(node)], ground), ground);
      if (found < least) say(`contrast ${found.toFixed(2)} of "${text.slice(0, 40)}" in ${name(node)}`);
    }
  };
  const scrolling = () => {
    const root = document.scrollingElement;
    if (root.scrollWidth <= Math.min(width, root.clientWidth)) return;
    say(`scrolls sideways: ${root.scrollWidth} pixels of ${width}`);
    for (const node of document.querySelectorAll("body *")) {
      if (node.getBoundingClientRect().right > width + 1 && !node.closest(".wide")) say(`${name(node)} sticks out`);
    }
  };
  const overlaps = () => {  // two texts of one chart on top of each other
    for (const svg of document.querySelectorAll("svg")) {
      const boxes = [...svg.querySelectorAll("text")].map((node) => [node.textContent, node.getBoundingClientRect()]);
      boxes.forEach(([one, a], i) => boxes.slice(i + 1).forEach(([other, b]) => {
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 2 && high > 3) say(`"${one}" and "${other}" overlap in a chart`);
      }));
    }
  };

  document.querySelectorAll("details").forEach((node) => (node.open = true));
  scrolling();
  contrast();
  overlaps();
  const choices = [...document.querySelectorAll("input.choice")];
  choices.forEach((choice, number) => {
    choice.click();
    document.querySelectorAll(".case").forEach((box) => {
      const seen = [...box.querySelectorAll(".under")].map((node) => node.checkVisibility());
      if (seen.filter(Boolean).length !== 1 || !seen[number]) say(`choice ${number} shows ${seen}`);
    });
    scrolling();
    contrast();
  });
  for (const image of document.images) {
    if (!image.alt) say("an image without a text");
    if (!image.complete || !image.naturalWidth) say(`${image.alt}: no picture`);
  }
  for (const head of document.querySelectorAll("th")) if (!head.scope) say("a table header without a scope");
  if (document.querySelectorAll("script").length) say("a script");
  if (document.querySelectorAll("h1").length !== 1) say("not one h1");
  return faults;
}

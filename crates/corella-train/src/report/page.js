for (const svg of document.querySelectorAll("svg[data-frame]")) {
  const frame = JSON.parse(svg.dataset.frame), cursor = svg.querySelector(".cursor"), out = svg.closest("figure").querySelector("output");
  const short = v => Math.abs(v) >= 1e6 ? (v / 1e6).toFixed(2) + "M" : Math.abs(v) >= 1e4 ? (v / 1e3).toFixed(1) + "k" : Math.abs(v) < 0.01 && v ? v.toExponential(2) : +v.toFixed(4) + "";
  const places = [...new Set(frame.series.flatMap(s => s.points.map(p => p[0])))].sort((a, b) => a - b);
  const [low, high] = frame.x;
  let at = null;
  const hide = () => { at = null; cursor.setAttribute("visibility", "hidden"); out.textContent = ""; };
  const show = x => {
    at = x;
    const place = (high > low ? (x - low) / (high - low) : 0) * svg.viewBox.baseVal.width;
    cursor.setAttribute("x1", place); cursor.setAttribute("x2", place); cursor.setAttribute("visibility", "visible");
    const nearest = points => points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a);
    out.textContent = frame.series.map(s => { const p = nearest(s.points); return `${s.name} ${short(p[1])} at ${short(p[0])}`; }).join("\n");
  };
  const follow = event => {
    const box = svg.getBoundingClientRect(), part = (event.clientX - box.left) / box.width;
    if (part >= 0 && part <= 1) show(low + part * (high - low));
  };
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerdown", follow);
  // A finger that is lifted leaves what it pointed at.
  svg.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hide(); });
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", event => {
    const last = places.length - 1, wide = event.shiftKey || event.key.startsWith("Page") ? Math.max(1, Math.round(last / 20)) : 1;
    const way = { ArrowLeft: -wide, PageDown: -wide, ArrowRight: wide, PageUp: wide }[event.key];
    const next = at === null ? 0 : places.findIndex(x => x >= at);
    if (event.key === "Escape") return hide();
    if (event.key === "Home") show(places[0]);
    else if (event.key === "End") show(places[last]);
    else if (way) show(at === null ? places[way > 0 ? 0 : last] : places[Math.min(last, Math.max(0, (next < 0 ? last : next) + way))]);
    else return;
    event.preventDefault();
  });
}

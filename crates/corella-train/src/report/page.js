for (const svg of document.querySelectorAll("svg[data-frame]")) {
  const frame = JSON.parse(svg.dataset.frame), cursor = svg.querySelector(".cursor"), out = svg.closest("figure").querySelector("output");
  const short = v => Math.abs(v) >= 1e6 ? (v / 1e6).toFixed(2) + "M" : Math.abs(v) >= 1e4 ? (v / 1e3).toFixed(1) + "k" : Math.abs(v) < 0.01 && v ? v.toExponential(2) : +v.toFixed(4) + "";
  svg.addEventListener("mousemove", event => {
    const box = svg.getBoundingClientRect(), part = (event.clientX - box.left) / box.width, at = part * svg.viewBox.baseVal.width;
    const x = frame.x[0] + part * (frame.x[1] - frame.x[0]);
    if (part < 0 || part > 1) return;
    cursor.setAttribute("x1", at); cursor.setAttribute("x2", at); cursor.setAttribute("visibility", "visible");
    const nearest = points => points.reduce((a, b) => Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a);
    out.textContent = frame.series.map(s => { const p = nearest(s.points); return `${s.name} ${short(p[1])} at ${short(p[0])}`; }).join("\n");
  });
  svg.addEventListener("mouseleave", () => { cursor.setAttribute("visibility", "hidden"); out.textContent = ""; });
}

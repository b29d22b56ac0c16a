"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const narrow = () => window.innerWidth < 640;
  let printing = false;

  const isDark = () => !printing && (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const ink = () => (isDark() ? { ink: "#e8eaed", line: "#3a3f46", ground: "#15171a" } : { ink: "#1c1e21", line: "#d4d8dd", ground: "#ffffff" });
  const specOf = (plot) => figures[Number(plot.dataset.figure)];

  function layoutOf(spec) {
    const layout = structuredClone(spec.layout);
    const { ink: color, line, ground } = ink();
    layout.font = { color, size: narrow() ? 11 : 13, family: "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif" };
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.hoverlabel = { bgcolor: ground, bordercolor: line, font: { color } };
    layout.hovermode = layout.hovermode || "closest";
    layout.dragmode = spec.kind === "relief" ? "orbit" : "zoom";
    layout.margin = spec.kind === "relief" ? { l: 0, r: 0, t: 0, b: 0 } : { l: 10, r: 10, t: 10, b: 10 };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: color };
    layout.legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 };
    layout.showlegend = layout.showlegend !== false && spec.data.filter((trace) => trace.showlegend !== false).length > 1;
    for (const [name, axis] of Object.entries(layout)) {
      if (/^[xy]axis/.test(name)) Object.assign(axis, { gridcolor: line, zerolinecolor: color, linecolor: line, automargin: true });
    }
    for (const axis of ["xaxis", "yaxis", "zaxis"]) {
      if (layout.scene) Object.assign(layout.scene[axis], { gridcolor: line, color, showbackground: false, zerolinecolor: line });
    }
    return layout;
  }

  async function draw(plot) {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "yes";
    const spec = specOf(plot);
    const config = { responsive: true, displaylogo: false, scrollZoom: false, displayModeBar: spec.kind === "chart" && !narrow() ? "hover" : false,
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
    await Plotly.newPlot(plot, structuredClone(spec.data), layoutOf(spec), config);
    // the plot is one image, with words of its own; beside it plotly measures texts out of sight
    for (const part of [...plot.children, document.getElementById("js-plotly-tester")]) part?.setAttribute("aria-hidden", "true");
    plot.on("plotly_relayout", (changed) => follow(plot, changed));
    plot.on("plotly_relayouting", (changed) => follow(plot, changed));
  }

  // a browser has few drawing contexts of three dimensions: reliefs out of sight give theirs back
  function forget(plot) {
    if (plot.dataset.drawn && specOf(plot).kind === "relief" && !printing) {
      specOf(plot).layout.scene.camera = cameraOf(plot);
      Plotly.purge(plot);
      delete plot.dataset.drawn;
    }
  }

  let following = false;
  async function follow(plot, changed) {
    const spec = specOf(plot);
    if (following || !spec.link) return;
    const kept = Object.fromEntries(Object.entries(changed).filter(([key]) => /^(scene\.camera|[xy]axis\.(range|autorange))/.test(key)));
    if (!Object.keys(kept).length) return;
    following = true;
    try {
      const others = plots.filter((other) => other !== plot && specOf(other).link === spec.link);
      for (const other of others) {
        if (other.dataset.drawn) await Plotly.relayout(other, structuredClone(kept));
        else if (kept["scene.camera"]) specOf(other).layout.scene.camera = structuredClone(kept["scene.camera"]);
      }
    } finally {
      following = false;
    }
  }

  const cameraOf = (plot) => structuredClone(plot.layout.scene.camera);
  async function turn(plot, by, up) {
    await draw(plot);
    const camera = cameraOf(plot);
    const { x, y, z } = camera.eye;
    const around = Math.atan2(y, x) + by;
    const length = Math.hypot(x, y, z);
    const height = Math.min(1.5, Math.max(-0.2, Math.asin(z / length) + up));
    camera.eye = { x: length * Math.cos(height) * Math.cos(around), y: length * Math.cos(height) * Math.sin(around), z: length * Math.sin(height) };
    await Plotly.relayout(plot, { "scene.camera": camera });
  }

  const STEPS = { left: [-0.15, 0], right: [0.15, 0], up: [0, 0.1], down: [0, -0.1] };
  const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };
  for (const figure of document.querySelectorAll("figure.relief")) {
    const plot = figure.querySelector(".plot");
    plot.addEventListener("keydown", (event) => {
      if (!KEYS[event.key]) return;
      event.preventDefault();
      turn(plot, ...STEPS[KEYS[event.key]]);
    });
    const round = figure.querySelector("[data-turn=round]");
    async function spin() {
      while (round.getAttribute("aria-pressed") === "true" && plot.isConnected) {
        await turn(plot, 0.02, 0);
        await new Promise(requestAnimationFrame);
      }
    }
    for (const press of figure.querySelectorAll("[data-turn]")) {
      press.addEventListener("click", () => {
        if (press !== round) return turn(plot, ...STEPS[press.dataset.turn]);
        const on = round.getAttribute("aria-pressed") !== "true";
        round.setAttribute("aria-pressed", String(on));
        if (on && still.matches) {
          round.setAttribute("aria-pressed", "false");
          return turn(plot, 0.6, 0);
        }
        if (on) spin();
      });
    }
  }

  const near = new IntersectionObserver(
    (entries) => entries.forEach((entry) => (entry.isIntersecting ? draw(entry.target) : forget(entry.target))),
    { rootMargin: "300px" },
  );
  plots.forEach((plot) => near.observe(plot));

  function repaint() {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(isDark()));
    return Promise.all(
      plots.filter((plot) => plot.dataset.drawn).map((plot) => {
        const layout = layoutOf(specOf(plot));
        if (layout.scene && plot.layout.scene) layout.scene.camera = cameraOf(plot);
        return Plotly.react(plot, plot.data, layout);
      }),
    );
  }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    repaint();
  });
  dark.addEventListener("change", repaint);
  window.addEventListener("beforeprint", () => {
    if (!printing) root.dataset.printed = root.dataset.theme || "";
    printing = true;
    root.dataset.theme = "light";
    for (const details of document.querySelectorAll("section > details")) details.open = true;
    plots.forEach(draw);
    repaint();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    if (root.dataset.printed) root.dataset.theme = root.dataset.printed;
    else delete root.dataset.theme;
    repaint();
  });
  repaint();
})();

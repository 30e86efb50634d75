// Draws every figure of a saereason page from the JSON beside it, once the text is on the screen.
const touched = matchMedia("(pointer: coarse)").matches;

function draw(source) {
  const { data, layout } = JSON.parse(source.textContent);
  if (touched) layout.dragmode = false; // a finger scrolls the page
  if (innerWidth < 520) {
    layout.font.size = 11;
    for (const name of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) {
      if (layout[name].title) layout[name].title.font.size = 11;
    }
  }
  Plotly.newPlot(source.dataset.figure, data, layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: touched ? false : "hover",
    modeBarButtons: [["toImage", "zoom2d", "autoScale2d", "resetScale2d"]],
  });
}

requestAnimationFrame(() => setTimeout(() => document.querySelectorAll("script[data-figure]").forEach(draw)));

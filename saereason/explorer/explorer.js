// The feature explorer: a list, a card and a bench. A notebook (anywidget) and a page on disk run this same file.
// All text of a model or a user becomes text nodes; nothing here reads HTML or makes a request.

const ROW = 30; // pixels
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0]/u;
const SAID = { "\n": "⏎", "\t": "⇥", "\r": "␍" };

// elements

function made(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

const h = (tag, attributes = {}, ...children) => made(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) =>
  made(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** A text as nodes, in which control, zero-width and direction characters are marks that one can see. */
function shown(text, lines = false) {
  const nodes = [];
  let plain = "";
  for (const c of String(text)) {
    if (!HIDDEN.test(c) || (lines && c === "\n")) {
      plain += c;
      continue;
    }
    if (plain) nodes.push(plain);
    plain = "";
    const code = c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(h("span", { class: c in SAID ? "mark space" : "mark" }, SAID[c] ?? `<U+${code}>`));
  }
  if (plain) nodes.push(plain);
  return nodes;
}

const word = (text) => h("bdi", {}, shown(text));
const plain = (text) => shown(text).map((node) => node.textContent ?? node).join("");

function figure(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return (value + 0).toLocaleString("en");
  const size = Math.abs(value);
  return size !== 0 && (size < 5e-4 || size >= 1e6) ? value.toExponential(1) : value.toFixed(3);
}

const interval = ([value, low, high]) =>
  low === null || low === undefined ? figure(value) : `${figure(value)} [${figure(low)}, ${figure(high)}]`;

const section = (title, ...children) => h("section", {}, h("h3", {}, title), ...children);

function table(header, rows, label) {
  return h("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": label },
    h("table", {},
      h("thead", {}, h("tr", {}, header.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));
}

// drawings

const scale = (from, to, low, high) => (value) => low + ((value - from) / (to - from || 1)) * (high - low);

function spark(values, own) {
  const x = scale(0, Math.max(1, values.length - 1), 2, 66), y = scale(0, 1, 18, 2);
  const points = values.map((value, n) => `${x(n).toFixed(1)},${y(Math.max(0, value)).toFixed(1)}`).join(" ");
  return s("svg", { width: 68, height: 20, "aria-hidden": "true" },
    s("polyline", { points, class: "line" }), s("circle", { cx: x(own), cy: y(values[own] ?? 0), r: 2.4, class: "dot" }));
}

function reach([value, low, high]) {
  if (low === null || low === undefined || value === null) return null;
  const x = scale(Math.min(0, low), Math.max(0, high), 4, 116);
  return s("svg", { width: 120, height: 16, "aria-hidden": "true" },
    s("line", { x1: x(0), x2: x(0), y1: 1, y2: 15, class: "rule" }),
    s("line", { x1: x(low), x2: x(high), y1: 8, y2: 8, class: "line" }),
    s("circle", { cx: x(value), cy: 8, r: 3, class: "dot" }));
}

/** Axes in a frame: `draw` gets the two scales. */
function chart({ label, x: [x0, x1], y: [y0, y1], xs, ys, xTitle, yTitle, width = 420, height = 190 }, draw) {
  const left = 60, x = scale(x0, x1, left, width - 12), y = scale(y0, y1, height - 36, 10);
  const rules = ys.map((value) => [
    s("line", { x1: left, x2: width - 12, y1: y(value), y2: y(value), class: "rule" }),
    s("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }, `${+value.toPrecision(3)}`),
  ]);
  const marks = xs.map(([value, text]) => s("text", { x: x(value), y: height - 20, "text-anchor": "middle" }, text));
  return s("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": label }, ...rules.flat(), ...marks,
    s("text", { x: (left + width - 12) / 2, y: height - 4, "text-anchor": "middle", class: "title" }, xTitle),
    s("text", { transform: `translate(11 ${(height - 26) / 2}) rotate(-90)`, "text-anchor": "middle", class: "title" }, yTitle),
    draw(x, y));
}

const whole = (first, last) => Array.from({ length: last - first + 1 }, (_, k) => first + k);

/** Round numbers from low to high. */
function round(low, high, most = 5) {
  const raw = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return whole(first, last).map((n) => n * step);
}

const some = (values, most) => values.filter((_, n) => n % Math.ceil(values.length / most) === 0);

function histogram(density) {
  const most = Math.log10(1 + Math.max(...density.map(([, , n]) => n)));
  const first = Math.log2(density[0][0]), last = Math.log2(density[density.length - 1][1]);
  const powers = some(whole(Math.ceil(first), Math.floor(last)), 8);
  return chart({
    label: "How many tokens at which activation", x: [first, last], y: [0, most], xTitle: "activation", yTitle: "tokens (log)",
    xs: powers.map((power) => [power, `${+(2 ** power).toPrecision(2)}`]), ys: [],
  }, (x, y) => density.map(([low, high, n]) => {
    const left = x(Math.log2(low)), top = y(Math.log10(1 + n));
    return s("rect", { x: left, y: top, width: Math.max(1, x(Math.log2(high)) - left - 1), height: y(0) - top, class: "bar" },
      s("title", {}, `${figure(low)} to ${figure(high)}: ${n.toLocaleString("en")} tokens`));
  }));
}

/** A value a layer; a layer without one has no point. */
function byLayer(layers, values, { label, yTitle, y = [0, 1], own = null }) {
  const points = layers.map((layer, n) => [layer, values[n]]).filter(([, value]) => typeof value === "number");
  return chart({
    label, x: [layers[0], layers[layers.length - 1]], y, xTitle: "layer", yTitle, ys: round(...y),
    xs: some(layers, 10).map((layer) => [layer, layer]),
  }, (px, py) => [
    s("polyline", { points: points.map(([layer, value]) => `${px(layer)},${py(value)}`).join(" "), class: "line" }),
    ...points.map(([layer, value]) => s("circle", { cx: px(layer), cy: py(value), r: layer === own ? 4.5 : 2.5, class: "dot" },
      s("title", {}, `layer ${layer}: ${figure(value)}`))),
  ]);
}

const LOOKS = { reasoning: "line", knowledge: "line knowledge", neutral: "line neutral" };

/** What each layer is worth to families, under one operator; a layer that costs several times the others is left off. */
function worthChart(all) {
  const curves = all.filter((curve) => curve.n), layers = [...new Set(curves.flatMap((curve) => curve.layers))].sort((a, b) => a - b);
  if (!curves.length) return h("p", { class: "soft" }, "No item has a figure at every layer.");
  const reach = (layer) => Math.max(...curves.map((curve) => Math.abs(curve.values[curve.layers.indexOf(layer)]?.[0] ?? 0)));
  const off = layers.filter((layer) => layers.length > 3 && reach(layer) > 3 * Math.max(...layers.filter((other) => other !== layer).map(reach)));
  const kept = layers.filter((layer) => !off.includes(layer));
  const ends = curves.flatMap((curve) => curve.values.filter((_, n) => !off.includes(curve.layers[n])).flat()).filter((end) => end !== null);
  const y = [Math.min(0, ...ends), Math.max(...ends, 1e-9)];
  const drawn = chart({
    label: `What each layer is worth: ${curves[0].operator}`, x: [kept[0], kept[kept.length - 1]], y, xTitle: "layer",
    yTitle: "drop, nats per token", ys: round(...y), xs: some(kept, 10).map((layer) => [layer, layer]),
  }, (px, py) => curves.flatMap((curve) => {
    const points = curve.layers.map((layer, n) => [layer, curve.values[n]]).filter(([layer]) => !off.includes(layer));
    return [
      s("polyline", { points: points.map(([layer, [value]]) => `${px(layer)},${py(value)}`).join(" "), class: LOOKS[curve.kind] }),
      ...points.filter(([, [, low]]) => low !== null)
        .map(([layer, [, low, high]]) => s("line", { x1: px(layer), x2: px(layer), y1: py(low), y2: py(high), class: LOOKS[curve.kind] })),
      ...points.map(([layer, each]) => s("circle", { cx: px(layer), cy: py(each[0]), r: 5, "fill-opacity": 0, class: points.length === 1 ? LOOKS[curve.kind] : null },
        s("title", {}, `${curve.family}, layer ${layer}: ${interval(each)}`))),
    ];
  }));
  const key = all.map((curve) => h("li", {}, s("svg", { width: 30, height: 10, "aria-hidden": "true" },
    s("line", { x1: 1, x2: 29, y1: 5, y2: 5, class: LOOKS[curve.kind] })), " ", shown(curve.family), ` (${curve.kind}, n = ${curve.n})`));
  return [h("p", { class: "soft" }, "Mean over items; bars are 95% bootstrap intervals over items."), drawn, h("ul", { class: "tokens" }, key),
    off.length ? h("p", { class: "soft" }, `Off the scale: layer ${off.join(", ")}.`) : null];
}

/** Arms that have a size. */
function doseChart(all) {
  const doses = all.filter((dose) => dose.size !== null).sort((a, b) => a.size - b.size), groups = new Map();
  if (!doses.length) return null;
  const sizes = doses.map((dose) => dose.size), clean = doses[0].clean;
  for (const dose of doses) {
    const kind = `${dose.kind}, ${dose.when}`;
    groups.set(kind, [...(groups.get(kind) ?? []), dose]);
  }
  return chart({
    label: "Accuracy by size", x: [Math.min(...sizes), Math.max(...sizes)], y: [0, 1], xTitle: "size", yTitle: "accuracy",
    xs: some([...new Set(sizes)].sort((a, b) => a - b), 7).map((size) => [size, `${+size.toPrecision(3)}`]), ys: round(0, 1),
  }, (x, y) => [
    s("line", { x1: x(Math.min(...sizes)), x2: x(Math.max(...sizes)), y1: y(clean), y2: y(clean), class: "clean" }, s("title", {}, "clean")),
    ...[...groups.values()].flatMap((group) => [
      s("polyline", { points: group.map((d) => `${x(d.size)},${y(d.accuracy[0])}`).join(" "), class: "line" }),
      ...group.flatMap((d) => [
        s("line", { x1: x(d.size), x2: x(d.size), y1: y(d.accuracy[1]), y2: y(d.accuracy[2]), class: "line" }),
        s("circle", { cx: x(d.size), cy: y(d.accuracy[0]), r: 3, class: "dot" }, s("title", {}, `${d.arm}: ${interval(d.accuracy)}`)),
      ]),
    ]),
  ]);
}

// the card

function context([tokens, acts, focus], most) {
  const parts = tokens.map((token, n) => {
    const share = Math.min(1, Math.max(0, acts[n] / (most || 1)));
    return h("bdi", {
      class: `token${n === focus ? " focus" : ""}`, style: share ? `--share: ${share.toFixed(2)}` : null,
      title: acts[n] ? `activation ${figure(acts[n])}` : null,
    }, shown(token));
  });
  return h("div", { class: "context" }, h("span", { class: "act" }, figure(acts[focus])), h("span", { dir: "ltr" }, parts));
}

function ladder(verdict) {
  const MARKS = { true: ["✓", "passed"], false: ["✗", "failed"], null: ["–", "not tried"] };
  return section([`Ladder of claims: rung ${verdict.height} as `, shown(verdict.behaviour)], h("p", {}, shown(verdict.said)),
    h("ol", { class: "ladder" }, verdict.rungs.map((rung) => {
      const [mark, said] = MARKS[rung.passed];
      const held = [rung.n ? `n = ${rung.n}` : "", rung.against.length ? `against ${rung.against.join(", ")}` : ""].filter(Boolean).join("; ");
      return h("li", { value: rung.number, class: said.replace(" ", "-") },
        h("b", {}, `${mark} ${rung.name}`), ` (${said}): `, shown(rung.said),
        rung.figure ? h("span", { class: "soft" }, ` ${interval(rung.figure)} `, shown(rung.unit)) : null,
        held ? h("span", { class: "soft" }, " (", shown(held), ")") : null);
    })));
}

function tokens(title, pairs) {
  return h("div", {}, h("h4", {}, title), h("ol", { class: "tokens" },
    pairs.map(([token, logit]) => h("li", {}, h("code", { class: "token" }, word(token)), h("span", { class: "soft" }, ` ${figure(logit)}`)))));
}

function cardOf(card, { about, number }, visit) {
  const layer = Number(card.feature.slice(1).split("/")[0]);
  const evidence = section("Evidence", table(["score", "value, 95% interval", ""],
    card.scores.map(([name, ...estimate]) => [word(name), interval(estimate), reach(estimate)]), "Evidence"),
    card.scores.some(([, , low]) => low !== null) ? h("p", { class: "soft" }, "Intervals are over prompts: Wilson's for rates, else by resampling, pairs together.")
      : h("p", { class: "soft" }, "No intervals: the search kept no block of its prompts."));
  const reads = section("What it reads", card.top.length ? card.top.map((one) => context(one, card.max_act))
    : h("p", {}, `It fires on none of the ${figure(card.n_tokens)} tokens read.`));
  const lower = card.quantiles.filter(([, some]) => some.length).map(([q, some]) =>
    [h("h4", {}, `About the ${Math.round(100 * q)}th percentile of its activations`), some.map((one) => context(one, card.max_act))]);
  const others = card.neighbours.map(([name, cosine]) => h("li", {}, number(name) >= 0
    ? h("button", { class: "link", onclick: () => visit(name) }, name) : name, h("span", { class: "soft" }, ` ${figure(cosine)}`)));
  return [
    h("p", {}, `Fires on ${(100 * card.firing_rate).toPrecision(3)}% of ${figure(card.n_tokens)} tokens, at most ${figure(card.max_act)}.`),
    evidence, card.verdict ? ladder(card.verdict) : null,
    card.doses.length ? section("Dose and response", doseChart(card.doses), table(["arm", "accuracy", "change"],
      card.doses.map((d) => [word(d.arm), interval(d.accuracy), interval(d.change)]), "Doses")) : null,
    section("What it writes (logit lens)", h("div", { class: "pair" }, tokens("raises", card.raised), tokens("lowers", card.lowered))),
    reads, lower.length ? section("And when it is weaker", ...lower) : null,
    card.density.length ? section("How strongly, how often", histogram(card.density)) : null,
    section("Through the layers", byLayer(about.layers, card.depth,
      { label: "Nearest decoder row at each layer", yTitle: "cosine of nearest row", own: layer })),
    section("Nearest decoder rows", h("ol", { class: "tokens" }, others)),
    about.worth.length ? section(`What layer ${layer} is worth, changed as a whole`, table(["family", "operator", "drop, nats per token"],
      about.worth.map((curve) => [word(curve.family), curve.operator, interval(curve.values[curve.layers.indexOf(layer)] ?? [null])]), "Worth")) : null,
  ];
}

// the list

const FILTER = "Write L14, L14/3021, a score such as difference>0.5, starred, or verdict; all must hold.";

const NUMBER = String.raw`[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?`;

/** What was typed, term by term: a column, a sign and a number, or a word. */
function termsOf(text, columns) {
  const names = Object.keys(columns).sort((a, b) => b.length - a.length).map((name) => name.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  const term = new RegExp(String.raw`\s*(?:(${names.join("|")})\s*(>=|<=|>|<|=)\s*(${NUMBER})(?=\s|$)|(\S+))`, "g");
  return [...text.matchAll(term)].map(([, name, sign, number, word]) => ({ name, sign, number: +number, word }));
}

/** A test of a row's number, from what was typed; raises an Error with what is wrong. */
function filterOf(text, columns, state) {
  const starred = state.starred(), rungs = columns[state.about.rung];
  const tests = termsOf(text, columns).map(({ name, sign, number, word }) => {
    const place = /^L(\d+)(?:\/(\d*))?$/i.exec(word ?? "");
    if (place) return (n) => columns.layer[n] === +place[1] && (!place[2] || String(columns.index[n]).startsWith(place[2]));
    if (word === "starred") return (n) => starred.has(state.name(n));
    if (word === "verdict") return (n) => rungs !== undefined && !Number.isNaN(rungs[n]);
    if (word !== undefined) throw new Error(`“${word}” is no filter. ${FILTER}`);
    const values = columns[name], b = values instanceof Float32Array ? Math.fround(number) : number; // as the column holds it
    return { ">": (n) => values[n] > b, "<": (n) => values[n] < b, ">=": (n) => values[n] >= b, "<=": (n) => values[n] <= b,
      "=": (n) => values[n] === b }[sign];
  });
  return (n) => tests.every((test) => test(n));
}

function sorted(rows, values, falling) {
  const sign = falling ? -1 : 1;
  return rows.sort((a, b) => {
    const x = values[a], y = values[b];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
    return sign * (x - y) || a - b;
  });
}

function list(state, choose) {
  const { columns, about, n } = state;
  const names = [...about.scores, ...(about.rung ? [about.rung] : [])];
  let by = about.by, falling = true, rows = new Uint32Array(0), wanted = null;
  const count = h("p", { class: "soft", role: "status" }), spacer = h("div", { class: "rows", role: "rowgroup" });
  const head = h("div", { class: "row head", role: "row", "aria-rowindex": 1 });
  const body = h("div", { class: "body", tabindex: 0, role: "grid", "aria-label": "Features" }, head, spacer);
  const box = h("input", { type: "search", placeholder: "L14  difference>0.5  starred", "aria-label": `Filter. ${FILTER}`, title: FILTER });
  const titles = ["", "feature", "by layer", ...names].map((name, k) => {
    const button = k < 3 ? name : h("button", { class: "link", title: `Sort by ${name}`, onclick: () => sortBy(name) });
    return h("span", { class: `cell${k < 3 ? ` c${k}` : ""}`, role: "columnheader" }, button);
  });
  head.append(...titles);

  function sortBy(name) {
    falling = name === by ? !falling : true;
    by = name;
    order();
  }

  function order() {
    try {
      const test = filterOf(box.value, columns, state);
      rows = sorted(Uint32Array.from({ length: n }, (_, k) => k).filter(test), columns[by], falling);
      count.textContent = `${rows.length.toLocaleString("en")} of ${n.toLocaleString("en")} features`;
      count.classList.remove("wrong");
    } catch (error) {
      count.replaceChildren(...shown(error.message));
      count.classList.add("wrong");
    }
    spacer.style.height = `${rows.length * ROW}px`;
    body.setAttribute("aria-rowcount", rows.length + 1);
    names.forEach((name, k) => {
      const title = titles[k + 3];
      title.firstChild.replaceChildren(word(name), name === by ? (falling ? " ▼" : " ▲") : "");
      title.setAttribute("aria-sort", name !== by ? "none" : falling ? "descending" : "ascending");
    });
    draw();
  }

  function row(place, starred) {
    const number = rows[place], name = state.name(number), depth = state.depth(name), star = starred.has(name);
    return h("div", {
      class: "row", role: "row", id: `${state.id}-${number}`, "aria-rowindex": place + 2, style: `top: ${place * ROW}px`,
      "aria-selected": String(name === state.selected()), onclick: () => choose(name),
    }, h("span", { class: "cell c0", role: "gridcell", "aria-label": star ? "starred" : null }, star ? "★" : ""), h("span", { class: "cell c1", role: "gridcell" }, name),
    h("span", { class: "cell c2", role: "gridcell" }, depth ? spark(depth, about.layers.indexOf(columns.layer[number])) : ""),
    ...names.map((score) => h("span", { class: "cell", role: "gridcell" }, figure(columns[score][number]))));
  }

  function draw() {
    const first = Math.max(0, Math.floor(body.scrollTop / ROW) - 5);
    const last = Math.min(rows.length, Math.ceil((body.scrollTop + (body.clientHeight || 400)) / ROW) + 5);
    const places = Array.from({ length: Math.max(0, last - first) }, (_, k) => first + k), starred = state.starred();
    spacer.replaceChildren(...places.map((place) => row(place, starred)));
    const at = rows.indexOf(state.number(state.selected()));
    if (at >= first && at < last) body.setAttribute("aria-activedescendant", `${state.id}-${rows[at]}`);
    else body.removeAttribute("aria-activedescendant");
    clearTimeout(wanted);
    wanted = setTimeout(() => state.wantDepths(places.map((place) => state.name(rows[place])), draw), 120);
  }

  /** Scrolls so far that the row is in view, under the headings, which stay at the top. */
  function show(name) {
    const at = rows.indexOf(state.number(name));
    if (at >= 0 && (at * ROW < body.scrollTop || (at + 2) * ROW > body.scrollTop + body.clientHeight)) {
      body.scrollTop = at * ROW - body.clientHeight / 2;
    }
    draw();
  }

  body.addEventListener("scroll", () => requestAnimationFrame(draw));
  body.addEventListener("keydown", (event) => {
    if (event.target !== body || event.ctrlKey || event.metaKey || event.altKey) return; // those are the browser's
    const page = Math.max(1, Math.floor(body.clientHeight / ROW) - 2), at = rows.indexOf(state.number(state.selected()));
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 };
    if (event.key === "s" && !event.repeat) state.star(state.selected());
    if (!(event.key in moves) || !rows.length) return;
    event.preventDefault();
    choose(state.name(rows[Math.min(rows.length - 1, Math.max(0, moves[event.key]))]));
  });
  let typed = null;
  box.addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(order, 100); });
  const seen = new ResizeObserver(draw);
  seen.observe(body);
  order();
  return {
    element: h("div", { class: "list" }, h("div", { class: "search" }, box, count), h("div", { class: "grid" }, body)),
    draw, show, first: () => (rows.length ? state.name(rows[0]) : null),
    stars: () => (/\bstarred\b/.test(box.value) ? order() : draw()),
    stop() { seen.disconnect(); clearTimeout(typed); clearTimeout(wanted); },
  };
}

// layers

function layerPage(state, visit) {
  const about = state.about, page = about.page, layers = page.map((one) => one.layer);
  const means = page.map((one) => one.mean), top = Math.max(...means, 0), low = Math.min(...means, 0);
  const operators = [...new Set(about.worth.map((curve) => curve.operator))];
  return h("div", { class: "layers" },
    operators.map((operator) => section(`What each layer is worth: ${operator}`, worthChart(about.worth.filter((curve) => curve.operator === operator)))),
    section(["The ten best features of each layer, mean ", word(about.by)], layers.length > 1
      ? byLayer(layers, means, { label: `Mean ${about.by} of the best ten by layer`, yTitle: plain(about.by), y: [low, top > low ? top : 1] })
      : h("p", {}, `${figure(means[0])} at layer ${layers[0]}, the only one.`)),
    section(["The best features of each layer by ", word(about.by)],
      h("p", { class: "soft" }, "The best of each layer at the top; click one, or go there with the arrows and press Enter. In the list, write L14 to see those of a layer."),
      h("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Heat map" }, heatMap(state, visit))));
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** A cell for each of the best features, by layer and rank; one is reached with Tab, the others from it with the arrows. */
function heatMap({ about, number }, visit) {
  const page = about.page, most = Math.max(...page.flatMap((one) => one.best.map(([, value]) => Math.abs(value))), 1e-12);
  const deep = Math.max(...page.map((one) => one.best.length)), width = Math.max(16, Math.min(34, 900 / page.length)), high = 14;
  const grid = page.map((one, column) => one.best.map(([index, value], k) => {
    const name = `L${one.layer}/${index}`, told = `${name}: ${about.by} ${figure(value)}`, there = number(name) >= 0;
    return s("rect", {
      x: 40 + column * width, y: 8 + k * high, width: width - 1, height: high - 1, class: `heat${value < 0 ? " below" : ""}`,
      "fill-opacity": (0.06 + (0.94 * Math.abs(value)) / most).toFixed(3), tabindex: -1, "aria-label": told,
      role: there ? "button" : "img", ...(there ? { onclick: () => visit(name), cursor: "pointer" } : {}),
    }, s("title", {}, told));
  }));
  let [reached] = grid.flat();
  reached?.setAttribute("tabindex", 0);
  const onkeydown = (event) => {
    const column = grid.findIndex((cells) => cells.includes(event.target)), [right, down] = ARROWS[event.key] ?? [0, 0];
    if (column < 0 || !(event.key in ARROWS || event.key === "Enter" || event.key === " ")) return;
    event.preventDefault();
    if (!(event.key in ARROWS)) return void event.target.dispatchEvent(new MouseEvent("click"));
    const next = grid[column + right]?.[grid[column].indexOf(event.target) + down];
    if (!next) return;
    reached.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    (reached = next).focus();
  };
  return s("svg", { width: 46 + page.length * width, height: 34 + deep * high, role: "group", "aria-label": `${about.by} by layer and rank`, onkeydown }, grid.flat(),
    page.map(({ layer }, k) => s("text", { x: 40 + (k + 0.45) * width, y: 22 + deep * high, "text-anchor": "middle" }, layer)),
    s("text", { x: 34, y: 18, "text-anchor": "end" }, "1"), s("text", { x: 34, y: 4 + deep * high, "text-anchor": "end" }, deep));
}

// what needs a kernel: own text, and the steering bench

/** `clear` forgets what was answered about another feature. */
function ownText(state) {
  const box = h("textarea", { rows: 2, "aria-label": "A text of your own" }), said = h("div", { role: "status" });
  let asked = null;
  const told = (answer) => said.replaceChildren(answer.error ? h("p", { class: "wrong" }, shown(answer.error))
    : context([answer.tokens, answer.acts, answer.focus], answer.acts.reduce((a, b) => Math.max(a, b), answer.max_act)));
  const go = h("button", { onclick: () => { clear(); said.append("reading …"); asked = state.ask({ kind: "text", text: box.value }, told); } }, "Read it");
  const clear = () => { state.forget(asked); said.replaceChildren(); };
  return { element: section("On a text of your own", box, go, said), clear };
}

function choice(label, options, value) {
  const select = h("select", {}, options.map((option) => h("option", { value: option, selected: option === value }, option)));
  return [h("label", {}, label, " ", select), () => select.value];
}

function bench(state) {
  const { about } = state;
  const prompt = h("textarea", { rows: 3, "aria-label": "Prompt" }, about.prompt);
  const [kindField, kind] = choice("intervention", about.kinds, about.kinds[0]);
  const size = h("input", { type: "number", step: "any", value: 1, "aria-label": "size" });
  const [unitField, unit] = choice("in", about.units, "largest-act");
  const [whenField, when] = choice("when", about.whens, "last-prompt-token");
  const most = h("input", { type: "number", min: 1, max: 400, value: 48, "aria-label": "tokens at most" });
  const sides = [0, 1].map(() => h("div", { class: "text", dir: "auto", "aria-live": "off" }));
  const first = h("div"), receipt = h("p", { class: "soft", role: "status" });
  let texts = ["", ""], asked = null;
  const go = h("button", {
    onclick: () => {
      clear();
      receipt.replaceChildren("generating …");
      go.disabled = true;
      asked = state.ask({ kind: "steer", prompt: prompt.value, intervention: kind(), size: size.valueAsNumber, unit: unit(), when: when(),
        tokens: most.valueAsNumber }, told);
    },
  }, "Generate");
  function clear() {
    state.forget(asked);
    texts = ["", ""];
    [...sides, first, receipt].forEach((part) => part.replaceChildren());
    receipt.classList.remove("wrong");
    go.disabled = false;
  }
  function told(answer) {
    if (answer.kind === "token") {
      texts[answer.row] += answer.text;
      sides[answer.row].replaceChildren(...shown(texts[answer.row]));
      return;
    }
    go.disabled = false;
    receipt.replaceChildren(...shown(answer.error ?? answer.receipt));
    receipt.classList.toggle("wrong", Boolean(answer.error));
    if (answer.error) return;
    answer.texts.forEach((text, row) => sides[row].replaceChildren(...shown(text)));
    first.replaceChildren(table(["first token", "clean", "steered"],
      answer.first.map(([token, clean, steered]) => [h("code", { class: "token" }, word(token)), figure(clean), figure(steered)]), "First tokens"));
  }
  const element = section("Steer it", prompt,
    h("div", { class: "fields" }, kindField, h("label", {}, "size ", size), unitField, whenField, h("label", {}, "tokens ", most), go),
    h("div", { class: "pair" }, h("div", {}, h("h4", {}, "clean"), sides[0]), h("div", {}, h("h4", {}, "steered"), sides[1])), receipt, first);
  return { element, clear };
}

// the whole

const bytes = (value) => typeof value === "string" ? Uint8Array.from(atob(value), (c) => c.charCodeAt(0)).buffer
  : value.buffer.slice(value.byteOffset, value.byteOffset + value.byteLength);

function stateOf(model) {
  const about = model.get("about"), data = model.get("data"), columns = Object.create(null);
  for (const [name, value] of Object.entries(data)) {
    columns[name] = name === "layer" || name === "index" ? new Int32Array(bytes(value)) : new Float32Array(bytes(value));
  }
  const n = columns.layer.length, numbers = new Map(), depths = new Map(), wanted = new Set(), asks = new Map();
  for (let k = 0; k < n; k += 1) numbers.set(`L${columns.layer[k]}/${columns.index[k]}`, k);
  const id = `saereason-${Math.random().toString(36).slice(2)}`;
  let count = 0;
  return {
    model, about, columns, n, id,
    name: (k) => `L${columns.layer[k]}/${columns.index[k]}`,
    number: (name) => numbers.get(name) ?? -1,
    selected: () => model.get("selected"),
    starred: () => new Set(model.get("starred")),
    depth: (name) => depths.get(name) ?? model.depth?.(name),
    /** Asks Python about the selected feature. Other views of this model hear the answers too: the number is for us. */
    ask(message, told) {
      const number = `${id}-${count += 1}`;
      asks.set(number, told);
      model.send({ ...message, id: number, feature: model.get("selected") });
      return number;
    },
    forget: (number) => asks.delete(number),
    answered(message) {
      asks.get(message.id)?.(message);
      if (message.kind !== "token") asks.delete(message.id);
    },
    star(name) {
      if (!about.live || !name) return;
      const now = this.starred();
      if (!now.delete(name)) now.add(name);
      model.set("starred", [...now].sort());
      model.save_changes();
    },
    wantDepths(names, told) {
      const fresh = about.live ? names.filter((name) => !depths.has(name) && !wanted.has(name)) : [];
      fresh.forEach((name) => wanted.add(name));
      if (!fresh.length) return;
      this.ask({ kind: "depths", features: fresh }, (answer) => {
        fresh.forEach((name) => wanted.delete(name));
        Object.entries(answer.depths ?? {}).forEach(([name, depth]) => depths.set(name, depth));
        told();
      });
    },
  };
}

/** The notes on one feature, kept half a second after the last key and when the box is left. */
function notes({ model, about }, name) {
  const held = () => model.get("notes")[name] ?? "";
  if (!about.live) return { element: held() ? h("p", { class: "note" }, shown(held(), true)) : null, keep() {}, show() {} };
  const box = h("textarea", { rows: 2, "aria-label": "Notes", oninput: () => wait(500), onchange: () => keep(),
    placeholder: about.kept ? "Notes, kept with the run" : "Notes, lost with the kernel: there is no run to keep them in" });
  let typing = null;
  function wait(time) {
    clearTimeout(typing);
    typing = setTimeout(keep, time);
  }
  function keep() {
    clearTimeout(typing);
    typing = null;
    if (box.value === held()) return;
    model.set("notes", { ...model.get("notes"), [name]: box.value });
    model.save_changes();
  }
  box.value = held();
  return { element: box, keep, show() { if (typing === null) box.value = held(); } };
}

function starButton(state, name) {
  const button = h("button", { class: "star", "aria-label": "Star", disabled: !state.about.live, onclick: () => state.star(name) });
  function show() {
    const on = state.starred().has(name);
    button.textContent = on ? "★" : "☆";
    button.setAttribute("aria-pressed", String(on));
    button.title = on ? "Take the star away" : "Star it";
  }
  show();
  return { element: button, show };
}

/** The card of the selected feature. What was typed into the bench stays for the next one. */
function cardView(state, visit) {
  const element = h("article", { class: "card", tabindex: -1, "aria-label": "Feature" });
  const tools = state.about.live ? [ownText(state), bench(state)] : [];
  let drawn = null, star = null, note = null;
  function draw() {
    const name = state.selected(), card = state.model.get("card"), ready = Boolean(name) && card?.feature === name;
    if (ready && card === drawn) return;
    note?.keep();
    tools.forEach((tool) => tool.clear());
    drawn = ready ? card : null;
    star = ready ? starButton(state, name) : null;
    note = ready ? notes(state, name) : null;
    if (!name) element.replaceChildren(h("p", { class: "soft" }, "Choose a feature."));
    else if (!ready) element.replaceChildren(h("h2", {}, name), h("p", { class: "soft", role: "status" }, "reading …"));
    else {
      element.replaceChildren(h("h2", {}, name, " ", star.element), ...[note.element, ...(card.error
        ? [h("p", { class: "wrong", role: "status" }, shown(card.error))] : [...cardOf(card, state, visit), ...tools.map((tool) => tool.element)])].filter(Boolean));
    }
  }
  return { element, draw, stars: () => star?.show(), notes: () => note?.show(), stop: () => note?.keep() };
}

/** Tabs and their panels; the arrow keys go from tab to tab. */
function tabbed(views, id, looked) {
  const names = Object.keys(views);
  const tabs = names.map((name) => h("button", { role: "tab", id: `${id}-tab-${name}`, "aria-controls": `${id}-${name}`, onclick: () => look(name) }, name));
  names.forEach((name) => made(views[name], { role: "tabpanel", id: `${id}-${name}`, "aria-labelledby": `${id}-tab-${name}` }, []));
  function look(name) {
    tabs.forEach((tab, k) => { tab.setAttribute("aria-selected", String(names[k] === name)); tab.tabIndex = names[k] === name ? 0 : -1; });
    names.forEach((each) => { views[each].hidden = each !== name; });
    looked();
  }
  const bar = h("div", { role: "tablist", class: "tabs", onkeydown: (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], at = tabs.indexOf(event.target);
    if (!step || at < 0) return;
    const next = (at + step + tabs.length) % tabs.length;
    look(names[next]);
    tabs[next].focus();
  } }, tabs);
  return { bar, look };
}

function render({ model, el }) {
  const state = stateOf(model);
  const choose = (name) => {
    if (name === null || name === state.selected()) return;
    model.set("selected", name);
    model.save_changes();
  };
  const visit = (name) => { tabs.look("Features"); choose(name); card.element.focus(); };
  const features = list(state, choose), card = cardView(state, visit), kept = h("p", { class: "wrong", role: "status" });
  const views = { Features: h("div", { class: "split" }, features.element, card.element), Layers: layerPage(state, visit) };
  const tabs = tabbed(views, state.id, features.draw);
  const changes = {
    "change:selected": () => { features.show(state.selected()); card.draw(); }, "change:card": card.draw,
    "change:starred": () => { features.stars(); card.stars(); }, "change:notes": card.notes,
    "msg:custom": (message) => {
      if (message.kind === "kept") kept.replaceChildren(...shown(message.error ?? ""));
      else state.answered(message);
    },
  };
  for (const [event, change] of Object.entries(changes)) model.on(event, change);
  const root = h("div", { class: "saereason" }, tabs.bar, kept, ...Object.values(views));
  el.append(root);
  tabs.look("Features");
  card.draw();
  if (!state.selected()) choose(features.first());
  return () => {
    for (const [event, change] of Object.entries(changes)) model.off(event, change);
    features.stop();
    card.stop();
    root.remove();
  };
}

export default { render };

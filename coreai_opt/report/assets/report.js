"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const narrow = () => window.innerWidth < 600;
  const symbols = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"];
  const dashes = ["solid", "dash", "dot", "dashdot"];

  // Plotly reads labels as a kind of HTML, and what stands between two dollars as mathematics.
  const plain = (text) => String(text).replace(/[&<>$]/g, (one) => `&#${one.charCodeAt(0)};`);
  const tail = (text, length) => (text.length > length ? "…" + text.slice(-length) : text);
  const percent = (share, digits = 2) => (100 * share).toFixed(digits) + " %";
  const shown = (value) => (data.share ? percent(value) : String(Number(value.toPrecision(4))));
  const spread = (value) =>
    value === null ? "" : data.share ? (100 * value).toFixed(2) : String(Number(value.toPrecision(3)));
  const scaled = (value) => (data.share ? 100 * value : value);
  const metric = data.metric + (data.share ? ", %" : "");
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const std = (values) => {
    if (values.length < 2) return null;
    const middle = mean(values);
    return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
  };

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const series = (index) => colour("--c" + (index % 8));
  const faded = (hex, alpha) => hex + Math.round(255 * alpha).toString(16).padStart(2, "0");

  const layout = (more) => {
    const axis = {
      gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--faint"),
      tickcolor: colour("--faint"), automargin: true,
    };
    const { xaxis, yaxis, ...rest } = more;
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: { color: colour("--ink"), size: narrow() ? 12 : 13, family: "system-ui, sans-serif" },
      margin: { l: 56, r: 16, t: 12, b: 48 }, height: narrow() ? 340 : 420, hovermode: "closest",
      hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
    };
  };
  const title = (text) => ({ title: { text: plain(text), standoff: 8 } });
  const draw = (id, traces, more) =>
    Plotly.react(id + "-plot", traces, layout(more), { responsive: true, displayModeBar: false });

  // The legend is a list of our own: it wraps, and keys reach it.
  const hidden = {};
  const legend = (id, entries, redraw) => {
    const list = byId(id + "-legend");
    const off = (hidden[id] ??= new Set());
    const focused = [...list.querySelectorAll("button")].indexOf(document.activeElement);
    list.replaceChildren(...entries.map((entry) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(!off.has(entry.name)));
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("viewBox", "0 0 26 12");
      svg.setAttribute("aria-hidden", "true");
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const set = { x1: 1, x2: 25, y1: 6, y2: 6, stroke: entry.colour, "stroke-width": entry.width ?? 3 };
      for (const [key, value] of Object.entries(set)) line.setAttribute(key, value);
      const dash = { dash: "6 4", dot: "2 3", dashdot: "6 3 2 3" }[entry.dash];
      if (dash) line.setAttribute("stroke-dasharray", dash);
      svg.append(line);
      button.append(svg, entry.name);
      button.addEventListener("click", () => {
        off.has(entry.name) ? off.delete(entry.name) : off.add(entry.name);
        redraw();
      });
      const item = document.createElement("li");
      item.append(button);
      return item;
    }));
    if (focused >= 0) list.querySelectorAll("button")[focused]?.focus();
    return (name) => !off.has(name);
  };

  const fill = (id, headers, rows) => {
    const table = byId(id + "-table");
    table.querySelectorAll("thead th").forEach((cell, index) => { cell.textContent = headers[index]; });
    table.tBodies[0].replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr");
      row.forEach((text, index) => {
        const cell = document.createElement(index ? "td" : "th");
        if (!index) cell.scope = "row";
        else if (table.tHead.rows[0].cells[index].classList.contains("number")) cell.className = "number";
        cell.textContent = text;
        line.append(cell);
      });
      return line;
    }));
  };

  const band = (points, ink) => {
    const deviation = (index) => points.std[index] ?? 0;
    const x = points.x.map((value) => 100 * value);
    const high = points.y.map((value, index) => scaled(value + deviation(index)));
    const low = points.y.map((value, index) => scaled(value - deviation(index)));
    return {
      x: [...x, ...x.toReversed()], y: [...high, ...low.toReversed()], fill: "toself", mode: "lines",
      line: { width: 0 }, fillcolor: faded(ink, 0.13), hoverinfo: "skip",
    };
  };
  const accuracy = () => {
    const { series: all, dense, front } = data.accuracy;
    const ink = colour("--ink");
    const entries = all.map((one, index) => ({ name: one.name, colour: series(index) }));
    if (dense.x.length) entries.unshift({ name: "dense control", colour: ink, dash: "dash", width: 2 });
    if (front.x.length > 1) entries.push({ name: "Pareto front", colour: colour("--faint"), width: 2 });
    const visible = legend("accuracy", entries, accuracy);
    const traces = [];
    const shapes = [];
    if (visible("Pareto front") && front.x.length > 1) {
      traces.push(band(front, colour("--faint")), {
        x: front.x.map((value) => 100 * value), y: front.y.map(scaled), mode: "lines",
        line: { color: colour("--faint"), width: 2 }, hoverinfo: "skip",
      });
    }
    const all_y = [...all.flatMap((one) => one.y), ...dense.y];
    if (visible("dense control")) {
      dense.y.forEach((value, index) => {
        const deviation = dense.std[index] ?? 0;
        const across = { xref: "paper", x0: 0, x1: 1, layer: "below" };
        shapes.push(
          { ...across, type: "rect", y0: scaled(value - deviation), y1: scaled(value + deviation),
            fillcolor: faded(ink, 0.1), line: { width: 0 } },
          { ...across, type: "line", y0: scaled(value), y1: scaled(value), line: { color: ink, width: 1.5, dash: "dash" } },
        );
      });
      traces.push(points(dense, "dense control", ink, "circle-open"));
    }
    all.forEach((one, index) => {
      if (visible(one.name)) traces.push(points(one, one.name, series(index), symbols[index % symbols.length]));
    });
    const title_y = all_y.length ? metric : data.metric;
    draw("accuracy", traces, { shapes, xaxis: { ...title("sparsity of all weights, %") }, yaxis: title(title_y) });
  };
  const points = (one, name, ink, symbol) => ({
    x: one.x.map((value) => 100 * value), y: one.y.map(scaled), mode: "markers", type: "scatter", name: plain(name),
    marker: { color: ink, size: 9, symbol, line: { width: symbol.endsWith("open") ? 2 : 0 } },
    error_y: { type: "data", array: one.std.map((value) => scaled(value ?? 0)), color: ink, thickness: 1.5, width: 4 },
    hoverinfo: "text",
    hovertext: one.x.map((value, index) => plain(one.label[index]) + "<br>" +
      plain(data.metric) + " " + shown(one.y[index]) +
      (one.std[index] === null ? "" : " ± " + spread(one.std[index])) + ", " +
      one.n[index] + (one.n[index] === 1 ? " run" : " runs") + "<br>sparsity " + percent(value)),
  });

  const heatmap = (event) => {
    const [x, y] = ["x", "y"].map((name) => Number(byId("heatmap-" + name).value));
    const across = data.heatmap.knobs[x];
    const up = data.heatmap.knobs[y];
    const cells = up.values.map(() => across.values.map(() => []));
    const only = data.heatmap.knobs.map((_, index) => {
      const select = byId("heatmap-only-" + index);
      const isAxis = index === x || index === y;
      select.parentElement.hidden = isAxis;
      return isAxis || select.value === "" ? null : Number(select.value);
    });
    for (const group of data.heatmap.groups) {
      const fits = only.every((value, index) => value === null || group.at[index] === value);
      if (fits && group.at[x] >= 0 && group.at[y] >= 0) cells[group.at[y]][group.at[x]].push(...group.values);
    }
    const wanted = byId("heatmap-text").value;
    const number = (values) => (data.share ? (100 * mean(values)).toFixed(2) : shown(mean(values)));
    const written = (values) =>
      ({ mean: number(values), n: String(values.length), both: number(values) + "<br>n = " + values.length })[wanted];
    const axis = (knob) => {
      const stride = Math.ceil(knob.values.length / (narrow() ? 12 : 30));
      const ticks = knob.values.map((_, index) => index).filter((index) => index % stride === 0);
      return {
        ...title(knob.name), showgrid: false, range: [-0.5, knob.values.length - 0.5], tickvals: ticks,
        ticktext: ticks.map((index) => plain(tail(knob.values[index], narrow() ? 10 : 22))),
      };
    };
    const means = cells.flat().filter((values) => values.length).map(mean);
    const [low, high] = [Math.min(...means), Math.max(...means)];
    const inked = (values) => {
      const isLight = high === low || (mean(values) - low) / (high - low) > 0.45;
      return `<span style="color:${isLight ? "#000000" : "#ffffff"}">${written(values)}</span>`;
    };
    const few = across.values.length * up.values.length <= (narrow() ? 60 : 240);
    draw("heatmap", [{
      type: "heatmap", z: cells.map((row) => row.map((values) => (values.length ? scaled(mean(values)) : null))),
      x: across.values.map((_, index) => index), y: up.values.map((_, index) => index), colorscale: "Cividis",
      text: cells.map((row) => row.map((values) => (values.length ? inked(values) : ""))), texttemplate: few ? "%{text}" : undefined,
      textfont: { size: narrow() ? 11 : 13 }, hoverongaps: false, xgap: 2, ygap: 2,
      hovertext: cells.map((row, j) => row.map((values, i) => values.length
        ? plain(up.name + "=" + up.values[j] + " " + across.name + "=" + across.values[i]) + "<br>" +
          shown(mean(values)) + (std(values) === null ? "" : " ± " + spread(std(values))) + ", " + values.length + " runs" : "")),
      hoverinfo: "text",
      colorbar: { thickness: 12, outlinewidth: 0, title: { text: plain(metric), side: "right" } },
    }], { xaxis: axis(across), yaxis: axis(up) });
    const found = up.values.flatMap((value, j) => across.values.flatMap((other, i) => cells[j][i].length
      ? [{ at: up.name + "=" + value + " " + across.name + "=" + other, mean: mean(cells[j][i]) }] : []));
    if (event) {
      const limits = only.map((value, index) => [value, data.heatmap.knobs[index]]).filter(([value]) => value !== null)
        .map(([value, knob]) => " and " + knob.name + "=" + knob.values[value]).join("");
      const sign = data.mode === "max" ? 1 : -1;
      const best = found.length ? found.reduce((one, two) => (sign * two.mean > sign * one.mean ? two : one)) : null;
      byId("heatmap-caption").textContent = "A cell is the mean of all runs with its two values" + limits + "." +
        (best ? " The best is " + best.at + ": " + shown(best.mean) + "." : " There is no such run.");
    }
    fill("heatmap", [up.name, across.name, data.metric, "std", "runs"], up.values.flatMap((value, j) =>
      across.values.flatMap((other, i) => {
        const values = cells[j][i];
        return values.length ? [[value, other, shown(mean(values)), spread(std(values)), String(values.length)]] : [];
      })));
  };
  const apart = (changed, other) => {
    const [one, two] = [byId("heatmap-" + changed), byId("heatmap-" + other)];
    if (one.value === two.value) two.value = [...two.options].map((option) => option.value).find((value) => value !== one.value);
    heatmap(true);
  };

  const schedules = () => {
    const look = (index) => ({ colour: series(index), dash: dashes[Math.floor(index / 8) % 4] });
    const visible = legend("schedules",
      data.schedules.curves.map((curve, index) => ({ name: curve.name, ...look(index) })), schedules);
    const traces = data.schedules.curves.flatMap((curve, index) => visible(curve.name) ? [{
      x: curve.x, y: curve.y.map((value) => 100 * value), mode: "lines", name: plain(curve.name),
      line: { color: look(index).colour, dash: look(index).dash, width: 2 }, hoverinfo: "text",
      hovertext: curve.x.map((x, i) => plain(curve.name) + "<br>" + x + " " + plain(data.schedules.unit) + ": " + percent(curve.y[i])),
    }] : []);
    draw("schedules", traces, {
      xaxis: { ...title(data.schedules.unit), rangemode: "tozero" }, yaxis: { ...title("sparsity asked for, %"), rangemode: "tozero" },
    });
  };

  const layers = (event) => {
    const group = data.layers[Number(byId("layers-group").value)];
    const all = group.layers;
    draw("layers", [{
      type: "bar", orientation: "h", x: all.map((one) => 100 * one[2]), y: all.map((_, index) => index),
      error_x: { type: "data", array: all.map((one) => 100 * (one[3] ?? 0)), color: colour("--ink"), thickness: 1.5 },
      marker: { color: series(0) }, hoverinfo: "text",
      hovertext: all.map((one) => plain(one[0]) + "<br>" + percent(one[2]) + " of " + one[1].toLocaleString("en")),
      text: all.map((one) => percent(one[2], 1)), textposition: "inside", insidetextanchor: "start",
      textfont: { color: colour("--ground") },
    }], {
      height: Math.max(narrow() ? 260 : 320, 26 * all.length + 90), bargap: 0.25,
      xaxis: { ...title("sparsity, %"), range: [0, 104] },
      yaxis: { tickvals: all.map((_, index) => index), autorange: "reversed", showgrid: false,
        ticktext: all.map((one) => plain(tail(one[0], narrow() ? 16 : 34))) },
    });
    if (event) {
      byId("layers-caption").textContent = "Zeros counted, mean over seeds. " + group.label + " has " + all.length +
        (all.length === 1 ? " layer" : " layers") + " of " + percent(mean(all.map((one) => one[2])), 1) + " on average.";
    }
    fill("layers", ["layer", "weights", "sparsity", "std"], all.map((one) => [
      one[0], one[1].toLocaleString("en"), percent(one[2]), one[3] === null ? "" : (100 * one[3]).toFixed(2),
    ]));
  };

  const parallel = () => {
    const { axes, lines } = data.parallel;
    const traces = lines.map((line, index) => {
      const isBest = index === lines.length - 1;
      const strength = 0.1 + 0.6 * line.at.at(-1) ** 2;
      return {
        x: axes.map((_, place) => place), y: line.at, mode: "lines", type: "scatter", name: plain(line.label),
        line: { color: isBest ? series(1) : faded(series(0), strength), width: isBest ? 3 : 1.5 }, hoverinfo: "text",
        hovertext: axes.map(() => plain(line.label) + "<br>" + plain(data.metric) + " " + shown(line.mean)),
      };
    });
    const marks = axes.flatMap((axis, place) => axis.ticks.map(([at, text]) => ({
      x: place, y: at, text: plain(tail(text, narrow() ? 8 : 16)), showarrow: false, xanchor: "left", xshift: 4,
      font: { size: 11, color: colour("--ink") }, bgcolor: faded(colour("--ground"), 0.7), borderpad: 1,
    })));
    draw("parallel", traces, {
      annotations: marks, margin: { l: 16, r: 16, t: 12, b: 48 },
      shapes: axes.map((_, place) => ({ type: "line", x0: place, x1: place, y0: 0, y1: 1, line: { color: colour("--faint"), width: 1 } })),
      xaxis: { range: [-0.1, axes.length - 0.5], showgrid: false, zeroline: false, tickvals: axes.map((_, place) => place),
        ticktext: axes.map((axis) => plain(tail(axis.name, narrow() ? 9 : 20))) },
      yaxis: { range: [-0.05, 1.05], showgrid: false, zeroline: false, showticklabels: false },
    });
  };

  const importance = () => {
    const all = data.importance;
    draw("importance", [{
      type: "bar", orientation: "h", x: all.map((one) => 100 * one[1]), y: all.map((_, index) => index), marker: { color: series(0) },
      hoverinfo: "text", hovertext: all.map((one) => plain(one[0]) + ": " + percent(one[1], 1)),
      text: all.map((one) => percent(one[1], 1)), textposition: "auto", textfont: { color: colour("--ink") },
      insidetextfont: { color: colour("--ground") },
    }], {
      height: Math.max(200, 34 * all.length + 90), bargap: 0.25,
      xaxis: { ...title("share of the importance, %"), range: [0, 104] },
      yaxis: { tickvals: all.map((_, index) => index), autorange: "reversed", showgrid: false,
        ticktext: all.map((one) => plain(tail(one[0], narrow() ? 16 : 34))) },
    });
  };

  const charts = { accuracy, heatmap, parallel, importance, schedules, layers };
  const drawAll = () => {
    for (const [id, drawOne] of Object.entries(charts)) if (data[id]) drawOne();
  };

  // Numbers before words, what is empty last, in either direction.
  const compare = (one, two) => {
    const [a, b] = [Number(one), Number(two)];
    if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
    if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
    return one.localeCompare(two, "en", { numeric: true });
  };
  const sortable = (table) => {
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
      const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      headers.forEach((other) => other.setAttribute("aria-sort", other === header ? direction : "none"));
      const sign = direction === "ascending" ? 1 : -1;
      const keyed = [...table.tBodies[0].rows].map((row) => [row.cells[column].dataset.key, row]);
      keyed.sort(([a], [b]) => (a === "") - (b === "") || sign * compare(a, b));
      table.tBodies[0].append(...keyed.map(([, row]) => row));
    }));
  };
  const filterable = () => {
    const rows = [...byId("runs").tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
    const narrowDown = () => {
      const words = byId("runs-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
      const status = byId("runs-status").value;
      let count = 0;
      for (const [row, text] of rows) {
        const fits = (!status || row.dataset.status === status) && words.every((word) => text.includes(word));
        row.hidden = !fits;
        count += fits;
      }
      byId("runs-count").textContent = `${count} of ${rows.length} runs are shown`;
    };
    byId("runs-filter").addEventListener("input", narrowDown);
    byId("runs-status").addEventListener("change", narrowDown);
    byId("runs-choices").hidden = false;
    narrowDown(); // a page that is loaded anew may keep what was typed
  };

  const preference = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : preference.matches);
  const themed = () => {
    byId("theme").textContent = isDark() ? "Light colours" : "Dark colours";
    drawAll();
  };
  byId("theme").hidden = false;
  byId("theme").addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; themed(); });
  preference.addEventListener("change", themed);
  matchMedia("(max-width: 600px)").addEventListener("change", drawAll);

  document.querySelectorAll("#leaderboard, #comparison-table, #runs").forEach(sortable);
  filterable();
  if (data.heatmap) {
    byId("heatmap-x").addEventListener("change", () => apart("x", "y"));
    byId("heatmap-y").addEventListener("change", () => apart("y", "x"));
    document.querySelectorAll("#heatmap-text, [id^=heatmap-only-]").forEach((select) =>
      select.addEventListener("change", heatmap));
  }
  if (data.layers) byId("layers-group").addEventListener("change", layers);
  themed();
})();

(() => {
  const { runs, metrics, config, environment } = JSON.parse(document.getElementById("data").textContent).pair;
  if (runs.length < 2) return;
  const byId = (id) => document.getElementById(id);
  const text = (value) => (value === null ? "" : String(Number(value.toPrecision(6))));
  const row = (cells, numbers) => {
    const line = document.createElement("tr");
    cells.forEach((content, index) => {
      const cell = document.createElement(index ? "td" : "th");
      if (!index) cell.scope = "row";
      else if (numbers) cell.className = "number";
      cell.textContent = content;
      line.append(cell);
    });
    return line;
  };
  const show = () => {
    const [one, two] = ["pair-one", "pair-two"].map((id) => Number(byId(id).value));
    byId("pair-metrics").tBodies[0].replaceChildren(...metrics.flatMap(({ name, values }) => {
      const [first, second] = [values[one], values[two]];
      if (first === null && second === null) return [];
      const difference = first === null || second === null ? "" : (second > first ? "+" : "") + text(second - first);
      return [row([name, text(first), text(second), difference], true)];
    }));
    const differing = (columns) => columns.filter(({ at }) => at[one] !== at[two]).map(({ name, values, at }) =>
      row([name, ...[at[one], at[two]].map((place) => (place < 0 ? "(not there)" : values[place]))], false));
    const [of_config, of_environment] = [config, environment].map(differing);
    byId("pair-values").tBodies[0].replaceChildren(...of_config, ...of_environment);
    byId("pair-count").textContent =
      `${of_config.length} keys of the config and ${of_environment.length} of the environment differ.`;
  };
  for (const [id, chosen] of [["pair-one", 0], ["pair-two", 1]]) {
    byId(id).append(...runs.map((name, index) => new Option(name, String(index), index === chosen, index === chosen)));
    byId(id).addEventListener("change", show);
  }
  byId("pair").hidden = false;
  show();
})();

(() => {
  // Asks whether there is a newer page, and takes what was chosen over to it.
  const KEY = "report";
  const root = document.documentElement;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const theme = () => document.getElementById("theme");

  const state = () => ({
    choices: all("select[id], input[id]").map((field) =>
      [field.id, field.tagName === "SELECT" ? field.selectedOptions[0]?.textContent : field.value]),
    open: all("details").flatMap((one, index) => (one.open ? [index] : [])),
    hidden: all(".legend button[aria-pressed=false]").map((one) => [one.closest("ul").id, one.textContent]),
    sorted: all("th[aria-sort=ascending], th[aria-sort=descending]").map((one) =>
      [one.closest("table").id, one.textContent, one.getAttribute("aria-sort")]),
    theme: root.dataset.theme ? theme().textContent : null,
    scrolled: all(".scroll").map((one) => [one.scrollTop, one.scrollLeft]),
    at: [window.scrollX, window.scrollY],
    focused: document.activeElement?.id,
  });

  const choose = ([id, chosen]) => {
    const field = document.getElementById(id);
    if (!field) return;
    if (field.tagName === "SELECT") {
      const option = [...field.options].find((one) => one.textContent === chosen);
      if (!option || option.selected) return;
      field.value = option.value;
    } else {
      if (field.value === chosen) return;
      field.value = chosen;
    }
    for (const name of ["input", "change"]) field.dispatchEvent(new Event(name, { bubbles: true }));
  };
  const restore = (kept) => {
    if (kept.theme && theme().textContent !== kept.theme) theme().click();
    kept.choices.forEach(choose);
    for (const [id, name] of kept.hidden) {
      all(`#${id} button[aria-pressed=true]`).find((one) => one.textContent === name)?.click();
    }
    for (const [id, name, direction] of kept.sorted) {
      const header = all(`#${id} thead th`).find((one) => one.textContent === name);
      for (let turn = 0; header && turn < 2 && header.getAttribute("aria-sort") !== direction; turn += 1) {
        header.querySelector("button").click();
      }
    }
    const details = all("details");
    kept.open.forEach((index) => { if (details[index]) details[index].open = true; });
    document.getElementById(kept.focused)?.focus({ preventScroll: true });
    all(".scroll").forEach((one, index) => one.scrollTo(...(kept.scrolled[index] ?? [0, 0]).toReversed()));
    window.scrollTo(...kept.at);
  };

  const ask = async () => {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      const version = await answer.text();
      if (answer.ok && version !== root.dataset.version) {
        sessionStorage.setItem(KEY, JSON.stringify(state()));
        location.reload();
        return;
      }
      document.getElementById("live-status").textContent = "Live: the page is made anew when a record changes.";
    } catch {
      document.getElementById("live-status").textContent = "The server has ended: the page stays as it is.";
    }
    setTimeout(ask, 1000);
  };

  const kept = sessionStorage.getItem(KEY);
  if (kept) {
    sessionStorage.removeItem(KEY);
    restore(JSON.parse(kept));
  }
  setTimeout(ask, 1000);
})();

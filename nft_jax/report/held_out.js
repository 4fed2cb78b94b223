// Answers to held-out problems: by stage of this run, and beside those of other runs.

function mark(correct, text) {
  return make("td", { className: correct ? "correct" : "incorrect", textContent: `${correct ? "✓" : "✗"} ${visible(text)}` });
}

function drawHeldOut() {
  for (const [split, rows] of Object.entries(data.heldOut)) {
    const stages = Object.keys(rows[0] ?? {}).filter((name) => Array.isArray(rows[0][name]));
    const table = make("table", { className: "answers" }, [makeRow(["problem", ...stages, "reference"], "th")]);
    for (const row of rows) {
      const cells = stages.map((stage) => mark(row[stage][0].correct, row[stage][0].text));
      table.append(makeRow([shortPrompt(row.prompt), ...cells, visible(row.reference)]));
    }
    const summary = make("summary", { textContent: `${split}: greedy answers to ${rows.length} problems` });
    $("held").append(make("details", { open: false }, [summary, make("div", { className: "long" }, [table])]));
  }
  if (!Object.keys(data.heldOut).length) $("held").textContent = "Saved at the end of a run.";
}

// One run's answers beside another's: the outcome, and, where problems have kinds, the kind can be chosen.
function drawAgainst(comparison, place) {
  const kinds = [...new Set(comparison.answers.map((row) => row.kind))].sort();
  const outcome = make("select", {}, ["all that differ", "fixed", "broken", "both correct", "both incorrect"].map(
    (textContent) => make("option", { textContent })));
  const kind = make("select", {}, ["all kinds", ...kinds].map((textContent) => make("option", { textContent })));
  const search = make("input", { type: "search", placeholder: "text of problems and answers" });
  const count = make("span", { className: "soft" });
  const table = make("table", { className: "answers" });
  const draw = () => {
    const words = search.value.toLowerCase();
    const rows = comparison.answers.filter((row) =>
      (outcome.selectedIndex ? row.outcome === outcome.value : !row.outcome.startsWith("both")) &&
      (kind.selectedIndex === 0 || row.kind === kind.value) &&
      [row.prompt, row.here, row.there].some((text) => text.toLowerCase().includes(words)));
    table.replaceChildren(makeRow(["outcome", ...(kinds.length > 1 ? ["kind"] : []), "problem", "this run", "that run", "reference"], "th"));
    for (const row of rows) {
      const correct = { here: ["fixed", "both correct"].includes(row.outcome), there: ["broken", "both correct"].includes(row.outcome) };
      table.append(makeRow([row.outcome, ...(kinds.length > 1 ? [visible(row.kind)] : []), shortPrompt(row.prompt),
        mark(correct.here, row.here), mark(correct.there, row.there), visible(row.reference)]));
    }
    const shown = comparison.answers.length < comparison.problems ? ` (of the ${comparison.answers.length} kept here)` : "";
    count.textContent = `${rows.length} of ${comparison.problems} problems${shown}`;
  };
  for (const input of [outcome, kind, search]) input.oninput = draw;
  const labels = [["show", outcome], ...(kinds.length > 1 ? [["kind", kind]] : []), ["search", search]];
  const bar = make("div", { className: "bar" }, [...labels.map(([name, input]) => make("label", { textContent: name }, [input])), count]);
  $(`against-${place}`).append(bar, make("div", { className: "long" }, [table]));
  draw();
}

drawHeldOut();
data.against.forEach(drawAgainst);

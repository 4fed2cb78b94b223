// Answers to held-out problems: by stage of this run, and beside those of other runs.

function mark({ correct, text, extracted, reason }) {
  const found = describeFinding(extracted, reason);
  const cell = make("td", { className: correct ? "correct" : "incorrect" }, [correct ? "✓ " : "✗ ", ...textNodes(text)]);
  if (found.length) cell.append(make("div", { className: "soft" }, found));
  return cell;
}

function cellOf(text) {
  return make("td", {}, textNodes(text));
}

function makeSelect(values) {
  return make("select", {}, values.map((textContent) => make("option", { textContent })));
}

function makeBar(inputs, count) {
  return make("div", { className: "bar" }, [...inputs.map(([name, input]) => make("label", { textContent: name }, [input])), count]);
}

// Tables that are drawn again when texts are to be read in another way.
const heldOutTables = [];

function drawHeldOut([split, rows]) {
  const stages = Object.keys(rows[0] ?? {}).filter((name) => Array.isArray(rows[0][name]));
  const [table, count] = [make("table", { className: "answers" }), make("span", { className: "soft" })];
  const change = makeSelect(["all", "learned", "lost", "changed its answer", "never correct"]);
  const search = make("input", { type: "search", placeholder: "text of problems and answers" });
  const of = (row, place) => row[stages.at(place)][0];
  const kinds = [
    () => true,
    (row) => !of(row, 0).correct && of(row, -1).correct,
    (row) => of(row, 0).correct && !of(row, -1).correct,
    (row) => of(row, 0).text !== of(row, -1).text,
    (row) => stages.every((stage) => !row[stage][0].correct),
  ];
  const draw = () => {
    const words = search.value.toLowerCase();
    const chosen = rows.filter((row) => kinds[change.selectedIndex](row) &&
      [row.prompt, ...stages.map((stage) => row[stage][0].text)].some((text) => text.toLowerCase().includes(words)));
    table.replaceChildren(makeRow(["problem", ...stages.map(nameStage), "reference"], "th"));
    for (const row of chosen) table.append(makeRow([cellOf(promptText(row.prompt)), ...stages.map((stage) => mark(row[stage][0])), cellOf(row.reference)]));
    count.textContent = `${chosen.length} of ${rows.length} problems`;
  };
  for (const input of [change, search]) input.oninput = draw;
  const summary = make("summary", { textContent: `${split}: greedy answers to ${rows.length} problems` });
  const details = make("details", { open: false }, [summary, makeBar([["show", change], ["search", search]], count), make("div", { className: "long" }, [table])]);
  // A closed table is not built: a page with several hundred problems opens sooner.
  details.ontoggle = () => { if (details.open) draw(); };
  heldOutTables.push(() => { if (details.open) draw(); });
  $("held").append(details);
}

function nameStage(stage) {
  return stage.replace(/^step0*/, "step ");
}

// One run's answers beside another's: the outcome, and, where problems have kinds, the kind can be chosen.
function drawAgainst(comparison, place) {
  const kinds = [...new Set(comparison.answers.map((row) => row.kind))].sort();
  const outcome = makeSelect(["all that differ", "fixed", "broken", "both correct", "both incorrect"]);
  const kind = makeSelect(["all kinds", ...kinds]);
  const search = make("input", { type: "search", placeholder: "text of problems and answers" });
  const count = make("span", { className: "soft" });
  const table = make("table", { className: "answers" });
  const draw = () => {
    const words = search.value.toLowerCase();
    const rows = comparison.answers.filter((row) =>
      (outcome.selectedIndex ? row.outcome === outcome.value : !row.outcome.startsWith("both")) &&
      (kind.selectedIndex === 0 || row.kind === kind.value) &&
      [row.prompt, row.here.text, row.there.text].some((text) => text.toLowerCase().includes(words)));
    table.replaceChildren(makeRow(["outcome", ...(kinds.length > 1 ? ["kind"] : []), "problem", "this run", "that run", "reference"], "th"));
    for (const row of rows) {
      table.append(makeRow([row.outcome, ...(kinds.length > 1 ? [visible(row.kind)] : []), cellOf(promptText(row.prompt)),
        mark(row.here), mark(row.there), cellOf(row.reference)]));
    }
    const shown = comparison.answers.length < comparison.problems ? ` (of the ${comparison.answers.length} kept here)` : "";
    count.textContent = `${rows.length} of ${comparison.problems} problems${shown}`;
  };
  for (const input of [outcome, kind, search]) input.oninput = draw;
  const labels = [["show", outcome], ...(kinds.length > 1 ? [["kind", kind]] : []), ["search", search]];
  $(`against-${place}`).append(makeBar(labels, count), make("div", { className: "long" }, [table]));
  heldOutTables.push(draw);
  draw();
}

Object.entries(data.heldOut).forEach(drawHeldOut);
if (!Object.keys(data.heldOut).length) $("held").textContent = "Saved at the end of a run, and where it evaluates on the way.";
data.against.forEach(drawAgainst);
$("typeset").oninput = () => {
  reading.typeset = $("typeset").checked;
  for (const draw of heldOutTables) draw();
  if (data.rollouts.length) drawGroup();
};

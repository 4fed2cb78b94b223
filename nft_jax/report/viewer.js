// The viewer of the sampled answers of a run.

// ---- state ----

let shown = [];
let selected = 0;

function groupsOfStep() {
  return groupsOf(Number($("step").value));
}

function surprise(group) {
  return mean((group.tokens ?? []).map(answerSurprise));
}

function answerSurprise(tokens) {
  return -mean(tokens.sampler ?? []);
}

const SORTS = {
  order: () => 0,
  rate: (group) => group.rate,
  length: (group) => -mean(group.lengths),
  surprise: (group) => -surprise(group),
};

// The order of a group's answers.
const ANSWER_SORTS = {
  order: () => 0,
  verdict: (group, k) => -Number(isCorrect(group, k)),
  length: (group, k) => -group.lengths[k],
  surprise: (group, k) => -answerSurprise(group.tokens?.[k] ?? {}),
};

function sortAnswers(group) {
  const key = ANSWER_SORTS[$("sort-answers").value];
  return group.answers.map((_, k) => [key(group, k), k]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((row) => row[1]);
}

const SHOWN = {
  "": () => true,
  mixed: (group) => group.rate > 0 && group.rate < 1,
  correct: (group) => group.rate === 1,
  incorrect: (group) => group.rate === 0,
  tokens: (group) => Boolean(group.tokens),
};

// ---- drawing ----

function drawList() {
  const words = $("search").value.toLowerCase();
  const matches = (group) => !words || [group.prompt, ...group.answers, ...(group.extracted ?? [])].some((text) => text?.toLowerCase().includes(words));
  const key = SORTS[$("sort").value];
  shown = groupsOfStep().filter((group) => SHOWN[$("show").value](group) && matches(group));
  shown = shown.map((group, place) => [key(group), place, group]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((row) => row[2]);
  selected = Math.min(selected, Math.max(shown.length - 1, 0));
  $("prompts").replaceChildren(...shown.map((group, place) => {
    const marks = group.verdicts.map((_, k) => (isCorrect(group, k) ? "✓" : "✗")).join("");
    const line = `${marks} ${group.tokens ? "◆ " : ""}${shortPrompt(group.prompt)}`;
    const item = make("li", { textContent: line.slice(0, 160), onclick: () => select(place) });
    item.setAttribute("role", "option");
    return item;
  }));
  drawGroup();
}

// Shows a group of a step, whatever the list shows now.
function showGroup(step, group) {
  $("step").value = step;
  fitGap(groupsOfStep());
  drawLegend();
  [$("show").value, $("search").value] = ["", ""];
  drawList();
  select(shown.indexOf(group));
  $("prompt").scrollIntoView({ block: "nearest" });
}

// Begins with a group whose tokens can be colored.
function drawStep() {
  fitGap(groupsOfStep());
  drawLegend();
  drawList();
  select(Math.max(shown.findIndex((group) => group.tokens), 0));
}

function select(place) {
  selected = Math.max(0, Math.min(place, shown.length - 1));
  drawGroup();
}

// Scrolls the list alone, so that the page opens at its beginning and stays where it is.
function showInList(item) {
  const list = $("prompts");
  if (!item) return;
  const top = item.offsetTop - list.offsetTop;
  list.scrollTop = Math.min(Math.max(list.scrollTop, top + item.offsetHeight - list.clientHeight), top);
}

function drawGroup() {
  [...$("prompts").children].forEach((item, place) => item.setAttribute("aria-selected", String(place === selected)));
  showInList($("prompts").children[selected]);
  const group = shown[selected];
  $("prompt").replaceChildren(...(group ? textNodes(group.prompt) : ["no prompt matches"]));
  const update = group?.update === undefined || group.update === null ? "" : `; trained by update ${group.update + 1} of the step`;
  $("group").replaceChildren(...(group ? ["reference ", ...textNodes(group.reference), `; success rate ${group.rate}${update}`] : []));
  $("answers").replaceChildren(...(group ? sortAnswers(group).map((k) => drawAnswer(group, k)) : []));
  drawElsewhere(group);
  drawSilent();
}

function drawAnswer(group, k) {
  const correct = isCorrect(group, k);
  const reward = group.rewards ? `, reward ${group.rewards[k]}` : "";
  const title = `${correct ? "✓" : "✗"} ${group.verdicts[k]}${reward}${group.truncated[k] ? ", cut" : ""}, ${group.lengths[k]} tokens`;
  const body = make("div", { className: "tokens" });
  if (group.tokens && !reading.typeset) body.append(...group.tokens[k].texts.map((text, index) => drawToken(group, k, text, index)));
  else body.append(...textNodes(group.answers[k]));
  const found = make("span", { className: "found" }, describeFinding(group.extracted?.[k], group.reasons?.[k]));
  const head = make("div", { className: "head soft" }, [`${title} `, found]);
  return make("div", { className: `card ${correct ? "correct" : "incorrect"}` }, [head, body]);
}

function drawToken(group, k, text, index) {
  const values = tokenValues(group, k, index);
  const token = make("span", { className: "token", textContent: visible(text) });
  const color = $("color").value;
  if (color) token.style.background = tint(color, values[color]);
  Object.assign(token.dataset, { answer: k, index, multiplier: values.multiplier ?? "" });
  return token;
}

// One listener for all tokens of the group.
function pointToken(event) {
  const { answer, index } = event.target.dataset;
  if (index === undefined) return;
  $("numbers").textContent = describeToken(shown[selected], answer, index);
}

// The same prompt at other steps, with what its answers were read as: so one sees a misconception die.
function drawElsewhere(group) {
  const same = data.rollouts.flatMap((rollout) => rollout.groups.filter((other) => other.prompt === group?.prompt).map((other) => [rollout.step, other]));
  const rows = same.map(([step, other]) => {
    const button = make("button", { textContent: `step ${step}: ${percent(other.rate)}`, disabled: other === group, onclick: () => showGroup(step, other) });
    return make("div", {}, [button, countFindings(other)]);
  });
  $("elsewhere").replaceChildren(...(same.length > 1 ? ["This prompt at ", ...rows] : []));
}

// The extracted answers of a group, the most frequent first.
function countFindings(group) {
  const counts = new Map();
  (group.extracted ?? []).forEach((text, k) => {
    const key = `${isCorrect(group, k) ? "✓" : "✗"} ${visible(text ?? "nothing").slice(0, 40)}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  });
  return [...counts].sort((a, b) => b[1] - a[1]).map(([text, count]) => `${text} ×${count}`).join(" · ");
}

// Counted again only for another step or other settings.
const counted = { key: "", shares: null };

function silentShares() {
  const key = JSON.stringify([$("step").value, { ...options, loss: "" }]);
  if (counted.key !== key) Object.assign(counted, { key, shares: countSilent(groupsOfStep()) });
  return counted.shares;
}

function drawSilent() {
  const { total, counts, stored } = silentShares();
  const share = (name) => `${name.toUpperCase()} ${percent(counts[name] / total)}`;
  const ratios = (data.ratios[$("step").value] ?? []).map((ratio) => (ratio === null ? "–" : ratio.toFixed(2)));
  const updates = ratios.length ? ` Largest R inside each update of the step: ${ratios.join(", ")}.` : "";
  const where = { update: "at R in the update", start: "at R = 1", end: "at R after the step" }[options.at];
  $("silent").textContent = (total
    ? `Tokens without any weight ${where}: ${Object.keys(counts).map(share).join(", ")}; in the update itself ${percent(stored / total)} (of ${total} recorded tokens that trained).`
    : "No token that trained is recorded at this step.") + updates;
}

// ---- events ----

function bindOption(id) {
  const input = $(id);
  const output = input.parentElement.querySelector("output");
  const show = () => { if (output) output.textContent = input.value; };
  input.value = options[id];
  show();
  input.oninput = () => {
    options[id] = input.type === "range" ? Number(input.value) : input.value;
    show();
    drawGroup();
  };
}

function chooseLoss(name) {
  $("loss").value = name;
  options.loss = name;
  drawGroup();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (["INPUT", "SELECT"].includes(event.target.tagName)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const actions = {
    j: () => select(selected + 1), k: () => select(selected - 1), ArrowDown: () => select(selected + 1), ArrowUp: () => select(selected - 1),
    n: () => chooseLoss("nft"), g: () => chooseLoss("grpo"), d: () => chooseLoss("dapo"), "/": () => $("search").focus(),
    t: () => $("typeset").click(),
  };
  const inList = event.target === $("prompts");
  if (!(event.key in actions) || (event.key.startsWith("Arrow") && !inList)) return;
  event.preventDefault();
  actions[event.key]();
}

if (data.rollouts.length) {
  fillSelect("step", data.rollouts.map((rollout) => rollout.step));
  $("step").value = data.rollouts[data.rollouts.length - 1].step;
  ["at", "loss", "omega", "epsilon", "lambda", "clipLow", "clipHigh"].forEach(bindOption);
  ["show", "sort", "search"].forEach((id) => { $(id).oninput = drawList; });
  $("sort-answers").oninput = drawGroup;
  $("step").oninput = drawStep;
  $("color").oninput = () => { drawLegend(); drawGroup(); };
  $("answers").onmouseover = pointToken;
  document.addEventListener("keydown", press);
  drawStep();
}

// The viewer of the sampled answers of a run.

// ---- the values of a token ----

// log R at which the weight is shown: the change by the whole step, or 0, at which the first update is taken.
function weightRatio(tokens, index) {
  return options.at === "start" ? 0 : tokens.new[index] - tokens.old[index];
}

function tokenValues(group, answer, index) {
  const tokens = group.tokens[answer];
  const reward = Number(isCorrect(group, answer));
  const logRatio = tokens.new[index] - tokens.old[index];
  const multiplier = MULTIPLIERS[options.loss](weightRatio(tokens, index), reward, group.rate, options);
  return { multiplier, logRatio, surprise: -tokens.old[index], entropy: tokens.entropy[index], old: tokens.old[index], new: tokens.new[index] };
}

// The value at which a color is full; entropy and surprise have one sign and a hue of their own.
const FULL = { multiplier: 1, logRatio: 0.5, surprise: 4, entropy: 2 };
const UNSIGNED = ["surprise", "entropy"];

function tint(name, value) {
  const strength = Math.min(Math.abs(value) / FULL[name], 1);
  const hue = UNSIGNED.includes(name) ? "neutral" : value >= 0 ? "good" : "bad";
  return `rgba(var(--${hue}), ${(0.75 * strength).toFixed(3)})`;
}

function drawLegend() {
  const name = $("color").value;
  const steps = !name ? [] : (UNSIGNED.includes(name) ? [0, 0.5, 1] : [-1, -0.5, 0, 0.5, 1]).map((part) => part * FULL[name]);
  $("legend").replaceChildren(...steps.map((value) => {
    const sample = make("span", { className: "sample", textContent: Math.abs(value) === FULL[name] ? `${value < 0 ? "≤" : "≥"}\u202f${value}` : value });
    sample.style.background = tint(name, value);
    return sample;
  }));
}

// ---- state ----

const options = { at: "end", loss: "nft", omega: "one_minus_rate", epsilon: 1, lambda: 1, clipLow: 0.2, clipHigh: 0.2, ...data.options };
let shown = [];
let selected = 0;

function groupsOfStep() {
  return groupsOf(Number($("step").value));
}

function surprise(group) {
  const values = (group.tokens ?? []).flatMap((tokens) => tokens.old.map((value) => -value));
  return mean(values);
}

const SORTS = {
  order: () => 0,
  rate: (group) => group.rate,
  length: (group) => -mean(group.lengths),
  surprise: (group) => -surprise(group),
};

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
  const matches = (group) => !words || [group.prompt, ...group.answers].some((text) => text.toLowerCase().includes(words));
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
  [$("show").value, $("search").value] = ["", ""];
  drawList();
  select(shown.indexOf(group));
  $("prompt").scrollIntoView({ block: "nearest" });
}

// Begins with a group whose tokens can be colored.
function drawStep() {
  drawList();
  select(Math.max(shown.findIndex((group) => group.tokens), 0));
}

function select(place) {
  selected = Math.max(0, Math.min(place, shown.length - 1));
  drawGroup();
}

function drawGroup() {
  [...$("prompts").children].forEach((item, place) => item.setAttribute("aria-selected", String(place === selected)));
  $("prompts").children[selected]?.scrollIntoView({ block: "nearest" });
  const group = shown[selected];
  $("prompt").textContent = group ? visible(group.prompt) : "no prompt matches";
  $("group").textContent = group ? `reference ${visible(group.reference)}; success rate ${group.rate}` : "";
  $("answers").replaceChildren(...(group ? group.answers.map((_, k) => drawAnswer(group, k)) : []));
  drawElsewhere(group);
  drawSilent();
}

function drawAnswer(group, k) {
  const correct = isCorrect(group, k);
  const reward = group.rewards ? `, reward ${group.rewards[k]}` : "";
  const head = `${correct ? "✓" : "✗"} ${group.verdicts[k]}${reward}${group.truncated[k] ? ", cut" : ""}, ${group.lengths[k]} tokens`;
  const body = make("div", { className: "tokens" });
  if (group.tokens) body.append(...group.tokens[k].texts.map((text, index) => drawToken(group, k, text, index)));
  else body.textContent = visible(group.answers[k]);
  return make("div", { className: `card ${correct ? "correct" : "incorrect"}` }, [make("div", { className: "soft", textContent: head }), body]);
}

function drawToken(group, k, text, index) {
  const values = tokenValues(group, k, index);
  const token = make("span", { className: "token", textContent: visible(text) });
  const color = $("color").value;
  if (color) token.style.background = tint(color, values[color]);
  Object.assign(token.dataset, { answer: k, index, multiplier: values.multiplier });
  return token;
}

// One listener for all tokens of the group.
function pointToken(event) {
  const { answer, index } = event.target.dataset;
  if (index === undefined) return;
  const text = shown[selected].tokens[answer].texts[index];
  const values = tokenValues(shown[selected], answer, index);
  const numbers = { weight: values.multiplier, "R after the step": Math.exp(values.logRatio), "log-prob when sampled": values.old,
    "log-prob after the step": values.new, "entropy in nats": values.entropy };
  const parts = Object.entries(numbers).map(([name, value]) => `${name} ${value.toFixed(3)}`);
  $("numbers").textContent = [`“${visible(text)}”`, ...parts].join(" · ");
}

// The same prompt at other steps, one key away: so one sees a misconception die.
function drawElsewhere(group) {
  const same = data.rollouts.flatMap((rollout) => rollout.groups.filter((other) => other.prompt === group?.prompt).map((other) => [rollout.step, other]));
  const buttons = same.map(([step, other]) => make("button", {
    textContent: `step ${step}: ${percent(other.rate)}`, disabled: other === group, onclick: () => showGroup(step, other) }));
  $("elsewhere").replaceChildren(...(same.length > 1 ? ["This prompt at ", ...buttons] : []));
}

// The share of tokens that each loss would not train at all, over all groups of the step that have tokens; counted
// again only for another step or other settings.
const counted = { key: "", shares: null };

function silentShares() {
  const key = JSON.stringify([$("step").value, { ...options, loss: "" }]);
  if (counted.key !== key) Object.assign(counted, { key, shares: countSilent() });
  return counted.shares;
}

function countSilent() {
  const counts = Object.fromEntries(Object.keys(MULTIPLIERS).map((name) => [name, 0]));
  let total = 0;
  for (const group of groupsOfStep().filter((each) => each.tokens && each.rate > 0 && each.rate < 1)) {
    group.tokens.forEach((tokens, k) => {
      const reward = Number(isCorrect(group, k));
      tokens.new.forEach((_, index) => {
        total += 1;
        for (const [name, multiplier] of Object.entries(MULTIPLIERS)) {
          counts[name] += multiplier(weightRatio(tokens, index), reward, group.rate, options) === 0;
        }
      });
    });
  }
  return { total, counts };
}

function drawSilent() {
  const { total, counts } = silentShares();
  const share = (name) => `${name.toUpperCase()} ${percent(counts[name] / total)}`;
  const ratios = (data.ratios[$("step").value] ?? []).map((ratio) => (ratio === null ? "–" : ratio.toFixed(2)));
  const updates = ratios.length ? ` Largest R inside each update of the step: ${ratios.join(", ")}.` : "";
  const where = options.at === "start" ? "at R = 1" : "at R after the step";
  $("silent").textContent = (total
    ? `Tokens of mixed groups without any weight ${where}: ${Object.keys(counts).map(share).join(", ")} (of ${total} tokens).`
    : "No token of a mixed group is recorded at this step.") + updates;
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
  $("step").oninput = drawStep;
  $("color").oninput = () => { drawLegend(); drawGroup(); };
  drawLegend();
  $("answers").onmouseover = pointToken;
  document.addEventListener("keydown", press);
  drawStep();
}

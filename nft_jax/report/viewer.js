// The viewer of rollouts and held-out answers. All text of prompts and answers goes through textContent: it is never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

function make(tag, properties = {}, children = []) {
  const node = document.createElement(tag);
  Object.assign(node, properties);
  node.append(...children);
  return node;
}

function mean(values) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : 0;
}

// ---- the values of a token ----

function isCorrect(group, k) {
  return group.verdicts[k] === "correct" && !group.truncated[k];
}

function tokenValues(group, answer, index) {
  const tokens = group.tokens[answer];
  const reward = Number(isCorrect(group, answer));
  const logRatio = tokens.new[index] - tokens.old[index];
  const multiplier = MULTIPLIERS[options.loss](logRatio, reward, group.rate, options);
  return { multiplier, logRatio, surprise: -tokens.old[index], entropy: tokens.entropy[index], old: tokens.old[index], new: tokens.new[index] };
}

// The value at which a color is full.
const FULL = { multiplier: 1, logRatio: 0.5, surprise: 4, entropy: 2 };

function tint(name, value) {
  const strength = Math.min(Math.abs(value) / FULL[name], 1);
  return `rgba(var(--${value >= 0 ? "good" : "bad"}), ${(0.75 * strength).toFixed(3)})`;
}

// Line ends and tabs are shown; control and format characters are escaped, as nft_jax/printing.py does.
function visible(text) {
  const escaped = text.replace(/(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
    (sign) => `\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`);
  return escaped.replace(/\n/g, "⏎\n").replace(/\t/g, "→\t");
}

// ---- state ----

const options = { loss: "nft", omega: "one_minus_rate", epsilon: 1, lambda: 1, clipLow: 0.2, clipHigh: 0.2, ...data.options };
let shown = [];
let selected = 0;

function groupsOfStep() {
  return (data.rollouts.find((rollout) => String(rollout.step) === $("step").value) ?? { groups: [] }).groups;
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
    const line = `${marks} ${group.tokens ? "◆ " : ""}${data.questions[group.prompt] ?? group.prompt}`;
    const item = make("li", { textContent: visible(line.slice(0, 160)), onclick: () => select(place) });
    item.setAttribute("role", "option");
    return item;
  }));
  drawGroup();
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
  const head = `${correct ? "✓" : "✗"} ${group.verdicts[k]}${group.truncated[k] ? ", cut" : ""}, ${group.lengths[k]} tokens`;
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
  token.dataset.multiplier = values.multiplier;
  token.onmouseenter = () => {
    $("numbers").textContent = `“${visible(text)}”  weight ${values.multiplier.toFixed(3)}  R ${Math.exp(values.logRatio).toFixed(3)}  ` +
      `log-prob when sampled ${values.old.toFixed(3)}, after the step ${values.new.toFixed(3)}  entropy ${values.entropy.toFixed(3)} nats`;
  };
  return token;
}

function drawElsewhere(group) {
  const same = group ? data.rollouts.filter((rollout) => rollout.groups.some((other) => other.prompt === group.prompt)) : [];
  const rates = same.map((rollout) => `step ${rollout.step}: ${rollout.groups.find((other) => other.prompt === group.prompt).rate}`);
  $("elsewhere").textContent = same.length > 1 ? `Success rate of this prompt at ${rates.join(", ")}` : "";
}

// The share of tokens that each loss would not train at all, over all groups of the step that have tokens.
function silentShares() {
  const counts = Object.fromEntries(Object.keys(MULTIPLIERS).map((name) => [name, 0]));
  let total = 0;
  for (const group of groupsOfStep().filter((each) => each.tokens && each.rate > 0 && each.rate < 1)) {
    group.tokens.forEach((tokens, k) => {
      const reward = Number(isCorrect(group, k));
      tokens.new.forEach((value, index) => {
        total += 1;
        for (const [name, multiplier] of Object.entries(MULTIPLIERS)) {
          counts[name] += multiplier(value - tokens.old[index], reward, group.rate, options) === 0;
        }
      });
    });
  }
  return { total, counts };
}

function drawSilent() {
  const { total, counts } = silentShares();
  const share = (name) => `${name.toUpperCase()} ${((100 * counts[name]) / total).toFixed(1)} %`;
  $("silent").textContent = total
    ? `Tokens of mixed groups without any weight at R after the step: ${Object.keys(counts).map(share).join(", ")} (of ${total} tokens)`
    : "No token of a mixed group is recorded at this step.";
}

function drawHeld() {
  for (const [split, rows] of Object.entries(data.heldOut)) {
    const stages = Object.keys(rows[0] ?? {}).filter((name) => Array.isArray(rows[0][name]));
    const table = make("table", { className: "held" });
    table.append(make("tr", {}, ["problem", ...stages, "reference"].map((name) => make("th", { textContent: name }))));
    for (const row of rows) {
      const cells = stages.map((stage) => {
        const first = row[stage][0];
        return make("td", { textContent: `${first.correct ? "✓" : "✗"} ${visible(first.text)}` });
      });
      table.append(make("tr", {}, [make("td", { textContent: visible(row.problem) }), ...cells, make("td", { textContent: visible(row.reference) })]));
    }
    $("held").append(make("details", { open: false }, [make("summary", { textContent: `${split}: greedy answers to ${rows.length} problems` }), table]));
  }
  if (!Object.keys(data.heldOut).length) $("held").textContent = "Saved at the end of a run.";
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

drawHeld();
if (data.rollouts.length) {
  $("step").append(...data.rollouts.map((rollout) => make("option", { value: rollout.step, textContent: rollout.step })));
  $("step").value = data.rollouts[data.rollouts.length - 1].step;
  ["loss", "omega", "epsilon", "lambda", "clipLow", "clipHigh"].forEach(bindOption);
  ["step", "show", "sort", "search"].forEach((id) => { $(id).oninput = drawList; });
  $("color").oninput = drawGroup;
  document.addEventListener("keydown", press);
  drawList();
}

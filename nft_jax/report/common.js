// What the parts of the page share. All text of prompts and answers goes through textContent: it is never markup.

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

// Line ends and tabs are shown; control and format characters are escaped, as nft_jax/printing.py does.
function visible(text) {
  const escaped = text.replace(/(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
    (sign) => `\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`);
  return escaped.replace(/\n/g, "⏎\n").replace(/\t/g, "→\t");
}

// The nodes of a text of a model: as written, or with its mathematics typeset.
const reading = { typeset: false };

function textNodes(text) {
  return reading.typeset ? typeset(text) : [visible(text)];
}

// What the grader took for the answer, and why that is not correct; nothing where neither is known.
function describeFinding(extracted, reason) {
  const isFormula = /[\\^_]/.test(extracted ?? "") && !/[A-Za-z]{3,} [A-Za-z]{2,}/.test(extracted);
  const read = extracted ? ["read as “", reading.typeset && isFormula ? formula(extracted) : visible(extracted), "”"] : [];
  return [...read, reason ? `${read.length ? "; " : ""}${visible(reason)}` : ""].filter((part) => part !== "");
}

// A prompt without the template around it.
function promptText(prompt) {
  return (data.questions[prompt] ?? prompt).trim();
}

function shortPrompt(prompt) {
  return visible(promptText(prompt));
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function isCorrect(group, k) {
  return group.verdicts[k] === "correct" && !group.truncated[k];
}

function groupsOf(step) {
  return (data.rollouts.find((rollout) => rollout.step === step) ?? { groups: [] }).groups;
}

function fillSelect(id, values) {
  $(id).replaceChildren(...values.map((value) => make("option", { value, textContent: value })));
}

// A table row of cells: texts, or nodes.
function makeRow(cells, tag = "td") {
  return make("tr", {}, cells.map((cell) => (cell instanceof Node ? cell : make(tag, { textContent: cell }))));
}

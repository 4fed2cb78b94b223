// The values of tokens, as the update that trained them saw them, and their colors.

const options = { at: "update", loss: "nft", omega: "one_minus_rate", epsilon: 1, lambda: 1, clipLow: 0.2, clipHigh: 0.2, ...data.options };

// log R at which the loss of the sliders is taken: inside the update, 0, or by the weights after the step.
const RATIOS = {
  update: (values) => values.logRatio,
  start: () => 0,
  end: (values) => values.change,
};

// All numbers of a token; one that is not known is undefined: no update trained it, or none was computed.
function tokenValues(group, answer, index) {
  const tokens = group.tokens[answer];
  const of = (name) => tokens[name]?.[index];
  const less = (one, other) => (one === undefined || other === undefined ? undefined : one - other);
  const [sampler, after, now] = [of("sampler"), of("after"), of("new")];
  const values = { sampler, after, new: now, stored: of("multiplier"), entropy: of("entropy"), gap: of("gap"),
    logRatio: less(now, of("old")), change: less(after, sampler), surprise: less(0, sampler) };
  values.multiplier = weigh(options.loss, group, answer, values);
  return values;
}

function weigh(loss, group, answer, values) {
  const logRatio = values.new === undefined ? undefined : RATIOS[options.at](values);
  return logRatio === undefined ? undefined : MULTIPLIERS[loss](logRatio, Number(isCorrect(group, answer)), group.rate, options);
}

// The value at which a color is full, and the name of the number; those of one sign have a hue of their own.
const COLORS = {
  multiplier: { full: 1, name: "weight by the sliders" },
  stored: { full: 1, name: "weight in the update" },
  logRatio: { full: 0.5, name: "log R in the update" },
  change: { full: 0.5, name: "log R after the step" },
  gap: { full: 1, name: "Δ sampler − trainer" },
  surprise: { full: 4, name: "surprise", unsigned: true },
  entropy: { full: 2, name: "entropy in nats", unsigned: true },
};

function tint(name, value) {
  if (value === undefined) return "";
  const { full, unsigned } = COLORS[name];
  const strength = Math.min(Math.abs(value) / full, 1);
  const hue = unsigned ? "neutral" : value >= 0 ? "good" : "bad";
  return `rgba(var(--${hue}), ${(0.75 * strength).toFixed(3)})`;
}

// Sampler and trainer differ by 1e-7 or by 0.1, by their precision: the color is full at the step's largest difference.
function fitGap(groups) {
  const sizes = groups.flatMap((group) => (group.tokens ?? []).flatMap((tokens) => (tokens.gap ?? []).map(Math.abs)));
  COLORS.gap.full = sizes.reduce((most, size) => Math.max(most, size), 0) || 1;
}

function drawLegend() {
  const name = $("color").value;
  const { full, unsigned } = COLORS[name] ?? {};
  const steps = !name ? [] : (unsigned ? [0, 0.5, 1] : [-1, -0.5, 0, 0.5, 1]).map((part) => part * full);
  $("legend").replaceChildren(...steps.map((value) => {
    const text = formatNumber(value);
    const sample = make("span", { className: "sample", textContent: Math.abs(value) === full ? `${value < 0 ? "≤" : "≥"}\u202f${text}` : text });
    sample.style.background = tint(name, value);
    return sample;
  }));
}

function formatNumber(value) {
  if (value === undefined) return "–";
  return value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : String(Number(value.toFixed(3)));
}

// One line with all numbers of a token.
function describeToken(group, answer, index) {
  const values = tokenValues(group, answer, index);
  const ratio = (log) => (log === undefined ? undefined : Math.exp(log));
  const numbers = { "weight by the sliders": values.multiplier, "weight in the update": values.stored, "R in the update": ratio(values.logRatio),
    "R after the step": ratio(values.change), "log-prob when sampled": values.sampler, "in the update": values.new,
    "after the step": values.after, "Δ sampler − trainer": values.gap, "entropy in nats": values.entropy };
  const parts = Object.entries(numbers).map(([name, value]) => `${name} ${formatNumber(value)}`);
  return [`“${visible(group.tokens[answer].texts[index])}”`, ...parts].join(" · ");
}

// The share of tokens that each loss would not train at all, and that the update did not, over all groups of a step
// that have tokens.
function countSilent(groups) {
  const counts = Object.fromEntries(Object.keys(MULTIPLIERS).map((name) => [name, 0]));
  let [total, stored] = [0, 0];
  for (const group of groups.filter((each) => each.tokens)) {
    group.tokens.forEach((tokens, k) => (tokens.new ?? []).forEach((_, index) => {
      const values = tokenValues(group, k, index);
      if (values.multiplier === undefined) return;
      total += 1;
      stored += values.stored === 0;
      for (const name of Object.keys(MULTIPLIERS)) counts[name] += weigh(name, group, k, values) === 0;
    }));
  }
  return { total, counts, stored };
}

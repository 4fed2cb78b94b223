// How strongly a loss trains a token: minus the derivative of its loss by the token's log-prob, as a function of log R,
// the verdict (1 correct, 0 incorrect) and the success rate of its group. nft_jax/losses has the same formulas in Python.

const MAX_LOG_RATIO = 10;
const RATE_BOUNDS = [0.02, 0.98];
const SMALLEST_EPSILON = 1e-8;

const OMEGAS = {
  one: () => 1,
  one_minus_rate: (rate) => 1 - rate,
  sqrt_odds: (rate) => (rate > 0 ? Math.sqrt((1 - rate) / rate) : 0),
};

function clip(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

// NFT: ω [r log R + λ (1 − r) log max_v((1 − r̂ R) / (1 − r̂), ε)].
function nftMultiplier(logRatio, reward, rate, options) {
  const trained = clip(rate, ...RATE_BOUNDS);
  const omega = OMEGAS[options.omega](trained);
  if (reward > 0) return omega * reward;
  const bounded = logRatio > MAX_LOG_RATIO;
  const ratio = Math.exp(Math.min(logRatio, MAX_LOG_RATIO));
  const negative = (1 - trained * ratio) / (1 - trained);
  const slope = bounded ? 0 : (-trained * ratio) / (1 - trained);
  return (omega * options.lambda * slope) / Math.max(negative, options.epsilon, SMALLEST_EPSILON);
}

// GRPO and DAPO: min(R A, clip(R) A), whose derivative is R A where the clip does not act, and 0 where it does.
function clippedMultiplier(logRatio, reward, rate, options) {
  const deviation = Math.sqrt(rate * (1 - rate));
  const advantage = deviation > 0 ? (reward - rate) / deviation : 0;
  const ratio = Math.exp(Math.min(logRatio, MAX_LOG_RATIO));
  if (logRatio > MAX_LOG_RATIO) return 0;
  if (advantage > 0 && ratio > 1 + options.clipHigh) return 0;
  if (advantage < 0 && ratio < 1 - options.clipLow) return 0;
  return advantage * ratio;
}

const MULTIPLIERS = { nft: nftMultiplier, grpo: clippedMultiplier, dapo: clippedMultiplier };

if (typeof module !== "undefined") module.exports = { MULTIPLIERS };

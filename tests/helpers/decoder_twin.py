"""The decoder in plain NumPy: one row, a loop over layers, heads and tokens, everything in float64."""

import numpy as np


def forward(weights, config, token_T, segment_T, position_T):
    """Logits `[T, V]` of one packed row."""
    weights = _as_float64(weights)
    x_TD = weights["embedding"][token_T] * (config.width**0.5 if config.embedding_scaled else 1)
    for layer in range(config.layers):
        block = {name: stacked[layer] for name, stacked in weights["blocks"].items()}
        kind = config.layer_kinds[layer % len(config.layer_kinds)]
        theta = {"f": config.rope_theta, "w": config.window_rope_theta}[kind]
        window = config.window if kind == "w" and config.window else len(token_T)
        x_TD = _layer(block, config, theta, window, x_TD, segment_T, position_T)
    table_VD = weights["embedding"] if config.tied_embedding else weights["head"]
    return np.stack([norm(x_D, weights["norm"], config) @ table_VD.T for x_D in x_TD])


def _layer(weights, config, theta, window, x_TD, segment_T, position_T):
    H, share = config.head_size, config.heads // config.kv_heads

    def normed(name, x):
        """Each row with the norm, if the layer has it; a norm that is shorter than the row is that of each head."""
        if name not in weights:
            return x
        parts = x.reshape(-1, len(weights[name]))
        return np.stack([norm(part, weights[name], config) for part in parts]).reshape(x.shape)

    normed_TD = normed("attention_norm", x_TD)
    query, key, value = (
        normed(f"{name}_norm", normed_TD @ weights[name] + weights.get(f"{name}_bias", 0))
        for name in ("query", "key", "value")
    )
    attended = np.zeros_like(query)
    for head in range(config.heads):
        own = slice(head * H, (head + 1) * H)
        shared = slice(head // share * H, (head // share + 1) * H)
        for t in range(len(x_TD)):
            seen = [s for s in range(max(t + 1 - window, 0), t + 1) if segment_T[s] == segment_T[t]]
            rotated = rotate(query[t, own], position_T[t], theta)
            score = np.array([rotated @ rotate(key[s, shared], position_T[s], theta) for s in seen])
            weight = np.exp((score - score.max()) / np.sqrt(config.query_scalar or H))
            attended[t, own] = weight / weight.sum() @ value[seen][:, shared]
    x_TD = x_TD + normed("attention_out_norm", attended @ weights["output"])
    normed_TD = normed("mlp_norm", x_TD)
    gate = normed_TD @ weights["gate"]
    if config.activation == "silu":
        active = gate / (1 + np.exp(-gate))
    else:
        active = gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) / 2
    return x_TD + normed("mlp_out_norm", (active * (normed_TD @ weights["up"])) @ weights["down"])


def norm(x_D, scale_D, config):
    return x_D / np.sqrt(np.mean(x_D**2) + config.norm_epsilon) * (config.norm_offset + scale_D)


def rotate(x_H, position, theta):
    """Each pair (i, i + H/2) as a complex number, rotated by its angle."""
    half = len(x_H) // 2
    number = x_H[:half] + 1j * x_H[half:]
    number = number * np.exp(1j * position * theta ** (-np.arange(half) / half))
    return np.concatenate([number.real, number.imag])


def _as_float64(tree):
    if isinstance(tree, dict):
        return {name: _as_float64(value) for name, value in tree.items()}
    return np.asarray(tree, np.float64)

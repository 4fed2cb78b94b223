"""The table that a run prints before it compiles anything: what it is going to do, and the sizes that follow."""

from collections.abc import Iterator

import jax

from nft_jax.config import Config
from nft_jax.config.sizes import row_tokens
from nft_jax.data.dataset import Dataset, name_set, unreadable_answers
from nft_jax.data.prompts import PromptTable, template_notes
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.experiment import Experiment
from nft_jax.machine.memory import slots_per_shard
from nft_jax.models.bitwise import BLOCK_COLUMNS, BLOCK_ROWS
from nft_jax.models.lora import split_weights
from nft_jax.models.sharded import count_weights
from nft_jax.run.fingerprint import own_code

MIB = 2**20
_WIDTH, _MOST_TOKENS = 110, 72


def describe(experiment: Experiment) -> str:
    """Returns the settings of a run that decide most, and the numbers that follow from them, a line or two for each."""
    config = experiment.config
    train = experiment.dataset.tables["train"]
    first = train.length_Q[0]
    lines = [
        *_describe_machine(experiment),
        *_describe_adapters(experiment),
        *_describe_teacher(experiment),
        *_describe_sampler(experiment),
        *_describe_bitwise(experiment),
        *_describe_problems(experiment),
        f"prompt    template {config.data.template!r}; the first one has {first} tokens (between │), the "
        f"longest {train.length_Q.max()} of {config.data.max_prompt_tokens}:",
        *(f"{'':10}{line}" for line in mark_tokens(experiment.tokenizer, train.token_QP[0, :first].tolist())),
        *template_notes(config.data.template, experiment.tokenizer),
        f"ends      an answer ends with {_name_ends(experiment.tokenizer)}; after {config.rollout.max_answer_tokens} "
        f"tokens it is cut and counts as incorrect",
        f"grader    {experiment.verifier.description}",
        *_describe_own_code(config),
        *_describe_step(experiment),
    ]
    return "\n".join(lines)


def mark_tokens(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    r"""Returns lines with the texts of tokens, special ones included, and │ between them, as in `│1│ +│\n│`.

    Of more than 72 tokens, those in the middle are left out.
    """
    texts = [text.replace("\n", "\\n").replace("\t", "\\t") for text in tokenizer.token_texts(ids)]
    if len(texts) > _MOST_TOKENS:
        half = _MOST_TOKENS // 2
        texts = [*texts[:half], f" … {len(texts) - 2 * half} tokens … ", *texts[-half:]]
    lines = ["│"]
    for text in texts:
        if len(lines[-1]) > 1 and len(lines[-1]) + len(text) >= _WIDTH:
            lines.append("│")
        lines[-1] += f"{text}│"
    return lines


def _name_ends(tokenizer: Tokenizer) -> str:
    texts = tokenizer.token_texts(list(tokenizer.eos_ids))
    ends = [f"{text} ({number})" for text, number in zip(texts, tokenizer.eos_ids, strict=True)]
    return ", ".join([*ends, *(f"the text {text!r}" for text in tokenizer.stop_texts)])


def _describe_own_code(config: Config) -> list[str]:
    """Returns the user's own losses, graders and templates with digests of their sources, if there are any."""
    if not (codes := own_code(config)):
        return []
    named = ", ".join(f"config.{name} ({digest})" for name, digest in codes.items())
    rule = "it may change (config.record.allow_other_code)" if config.record.allow_other_code else "it must not change"
    return [f"own code  {named}; when the run resumes, {rule}"]


def _describe_adapters(experiment: Experiment) -> list[str]:
    """Returns what trains and what is frozen, for a run with adapters."""
    lora, (trained, frozen) = experiment.config.lora, split_weights(experiment.model.shapes)
    if frozen is None:
        return []
    counts = count_weights(trained), experiment.model.parameters
    formats = {"model": "", "int8": "int8 (the layers' matrices) and "}[lora.base] + experiment.config.model.dtype
    sizes = [sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) for tree in (trained, frozen)]
    return [
        f"adapters  rank {lora.rank}, alpha {lora.alpha:g}, on {', '.join(lora.target_names)}",
        f"          {counts[0]:,} weights train, {100 * counts[0] / sum(counts):.2f} % of all: {sizes[0] / MIB:,.1f} "
        f"MiB; the others are frozen in {formats}: {sizes[1] / MIB:,.1f} MiB",
    ]


def _describe_teacher(experiment: Experiment) -> list[str]:
    """Returns the model of a distillation, if there is one, and what it trains beside."""
    config, teacher = experiment.config.distillation, experiment.teacher
    if teacher is None:
        return []
    beside = "alone" if config.alone else f"beside {experiment.loss.name}"
    return [
        f"teacher   {teacher.parameters:,} weights, {teacher.config.layers} layers, frozen in {teacher.config.dtype}, "
        f"from {config.teacher}; {config.kl} of weight {config.weight:g}, {beside}"
    ]


def _describe_sampler(experiment: Experiment) -> list[str]:
    """Returns what the sampler reads, where that is not the trained weights in the compute dtype."""
    config = experiment.config
    if config.rollout.weights == "model":
        return []
    shapes = jax.eval_shape(experiment.engine.sampling_weights, experiment.model.shapes)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    return [f"sampler   the layers' matrices in {config.rollout.weights}: {size / MIB:,.1f} MiB of weights in all"]


def _describe_bitwise(experiment: Experiment) -> list[str]:
    """Returns by which blocks sampler and trainer compute alike, where they have to."""
    if not experiment.config.model.bitwise:
        return []
    return [
        f"bitwise   sampler and trainer compute {BLOCK_ROWS} rows at a time and read keys by {BLOCK_COLUMNS}; a "
        f"rehearsal compares their log-probs before the first step"
    ]


def _describe_machine(experiment: Experiment) -> Iterator[str]:
    config, model = experiment.config, experiment.model
    platform = model.mesh.devices.flat[0].platform
    origin = config.base or config.model.path or f"random weights of seed {config.seed}"
    if config.warm_start.steps and not config.base:
        origin += f", after a warm start of {config.warm_start.steps} updates"
    yield (
        f"model     {model.parameters:,} weights, {config.model.layers} layers, {config.model.dtype}, vocabulary "
        f"{model.vocabulary} of {config.model.vocab} rows; from {origin}"
    )
    if platform == "cpu" and config.model.dtype != "float32":
        yield f"          CPUs emulate {config.model.dtype}: config.model.dtype=auto takes float32, faster here"
    yield f"mesh      {dict(model.mesh.shape)} on {platform}, attention {model.attention.name}"


def _describe_problems(experiment: Experiment) -> Iterator[str]:
    config, dataset = experiment.config, experiment.dataset
    for name, table in dataset.tables.items():
        known = dataset.sets.get(name)
        source = known.source if known is not None else name_set(config, name)
        dropped = _describe_dropped(table) if table.dropped else ""
        yield f"{'problems' if name == 'train' else '':<9} {name}: {len(table.answers)} from {source}{dropped}"
        if known is not None and known.layout:
            yield f"{'':10}{known.layout}"
        if known is not None and known.left_out:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in known.left_out.items())
            yield f"{'':10}of {known.given:,} left out: {reasons}"
    yield from dataset.notes
    yield from unreadable_answers(config.verify.grader, dataset.tables)
    yield f"evaluates {_describe_evaluation(config, dataset)}"


def _describe_dropped(table: PromptTable) -> str:
    return f", {table.dropped} more are too long (config.data.max_prompt_tokens={table.longest} keeps all)"


def _describe_evaluation(config, dataset: Dataset) -> str:
    """Returns how many problems are answered, and when."""

    def count(table: PromptTable) -> int:
        return min(len(table.answers), config.evaluation.max_problems or len(table.answers))

    counts = {name: count(table) for name, table in dataset.tables.items() if name != "train"}
    if not counts:
        return "nothing: neither config.data.validation nor config.data.test names problems"
    answers = f"1 greedy and {config.evaluation.answers_per_problem} sampled answers each"
    every = config.evaluation.every_steps
    between = f", validation also every {every} steps" if every else ""
    if every and "validation" not in counts:
        between = f", none every {every} steps: config.data.validation names none, and none are cut from training"
    listed = " and ".join(f"{count} {name}" for name, count in counts.items())
    return f"{listed} problems before and after the run{between}; {answers}"


def _describe_step(experiment: Experiment) -> Iterator[str]:
    config, loss = experiment.config, experiment.loss
    Q, K, U = config.prompts_per_step, config.answers_per_prompt, config.updates_per_step
    rows, tokens = config.packing.rows_per_micro_batch, row_tokens(config, loss.unit, config.prompts_are_shared)
    yield (
        f"a step    {Q} prompts × {K} answers = {Q * K} answers, from at most {config.selection.max_rounds} rounds of "
        f"{config.candidates_per_round} prompts; {slots_per_shard(experiment)} at a time on a data shard"
    )
    yield (
        f"          {U} updates of {Q // U} prompts = {Q // U * K} answers each, in micro-batches of "
        f"{rows} rows of {tokens} tokens"
    )
    yield (
        f"loss      {loss.name} {config.loss.options}, normalizer {config.loss.normalizer or loss.normalizer}, old "
        f"log-probs: {config.old_logp}"
    )
    warmup, updates = config.optimizer.warmup_updates, config.steps * U
    never = f"never reached: config.optimizer.warmup_updates={warmup}"
    reached = never if warmup > updates else f"reached after {warmup}"
    yield (
        f"optimizer {config.optimizer.name} at {config.optimizer.learning_rate:g}, {reached} of {updates} updates in "
        f"{config.steps} steps"
    )


def describe_warm_start(experiment: Experiment) -> str:
    """Returns what a supervised phase is going to do."""
    warm, dataset = experiment.config.warm_start, experiment.dataset
    count = len(dataset.examples.prompt_length_Q)
    epochs = warm.steps * warm.examples_per_update / count
    lines = [
        f"warm start: {warm.steps} updates of {warm.examples_per_update} examples, {epochs:.3g} epochs of {count} "
        f"({dataset.examples.dropped} too long)"
    ]
    if dataset.held_out_examples is not None:
        held_out = dataset.held_out_examples
        lines.append(f"validation: {len(held_out.prompt_length_Q)} examples ({held_out.dropped} too long)")
    elif warm.validate_every_steps:
        lines.append("validation: none; config.data.validation names no problems with worked solutions")
    return "\n".join(lines)

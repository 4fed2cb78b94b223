"""The sections for the host's side: data, verifier, warm start, evaluation, files of a run, comparisons."""

from dataclasses import dataclass

from nft_jax.config.sections import OptimizerConfig
from nft_jax.config.setting import Phase, section, setting
from nft_jax.verify.pool import isolation

NONE = Phase.NONE
TRACKERS = ("tensorboard", "wandb", "trackio")
MONTH = 30 * 24 * 3600  # s: longer times are a fault, and beyond what timers of the operating system take


@dataclass(frozen=True)
class DataConfig:
    """Problems, prompts and tokenizer. Sets of problems are named as in nft_jax/data/benchmarks.py."""

    train: str = setting(
        "",
        "training problems: a file, folder or set; of a generated set (arithmetic), validation and test are used too "
        "where these are empty. Empty: arithmetic, but refused with model.path",
        decides=NONE,
    )
    validation: str = setting(
        "", "validation problems; empty: those of a generated set, else cut from the training problems", decides=NONE
    )
    validation_size: int = setting(
        128,
        "problems cut from the training problems where validation is empty, at most a twentieth of them; 0: none",
        at_least=0,
        decides=NONE,
    )
    test: str = setting("", "test problems; empty: none, unless generated", decides=NONE)
    folder: str = setting("", "folder with the files of named sets; empty: the Hugging Face hub", decides=NONE)
    hygiene: bool = setting(
        True,
        "whether training problems are left out that overlap with validation, test or exclude, repeat another or "
        "contradict another; generated problems stay",
        decides=NONE,
    )
    exclude: str = setting("", "further sets whose problems hygiene leaves out, comma between them", decides=NONE)
    tokenizer: str = setting(
        "",
        "tokenizer folder or file; empty: that of model.path, or one trained on the generated problems",
        decides=NONE,
    )
    template: str = setting(
        "plain",
        "prompt template, one of nft_jax/data/prompts.py, or a file of your own, FILE.jinja, with `problem` and, if it "
        "uses them, `system` and `shots` (items with `problem` and `response`)",
    )
    system: str = setting("", "system message; needs the template chat, or a file that uses `system`")
    shots: str = setting(
        "",
        "problems that every prompt shows with their worked solutions before its own, as a file or set; needs the "
        "template chat, or a file that uses `shots`",
        decides=NONE,
    )
    train_fields: str = setting(
        "",
        "fields of problem, answer and, if there is one, worked solution in the training file, comma between them; a "
        "deeper one by dots, as in prompt.0.content. Empty: recognized (nft_jax/data/schemas.py)",
        decides=NONE,
    )
    validation_fields: str = setting("", "the same for the validation file", decides=NONE)
    test_fields: str = setting("", "the same for the test file, --problems and exclude", decides=NONE)
    max_prompt_tokens: int = setting(64, "most tokens of a prompt; prompts are never cut", at_least=1)
    long_prompts: str = setting(
        "drop", "longer prompts are dropped and counted, or refused with an error", choices=("drop", "refuse")
    )
    arithmetic_max_operand: int = setting(
        6, "largest number in the generated arithmetic problems", at_least=1, at_most=30
    )


@dataclass(frozen=True)
class VerifyConfig:
    """The grader and its worker processes."""

    grader: str = setting("boxed_exact", "grader of this package, or your own as module:function")
    correct_from: float = setting(
        0.0,
        "smallest reward of a correct answer, for a grader of your own that returns rewards from 0 to 1; 0: it gives "
        "verdicts alone",
        at_least=0,
        at_most=1,
    )
    answers_per_submission: int = setting(
        8,
        "ended answers that a data shard hands to the workers together while it decodes others; 0: all, at the end "
        "of the round",
        at_least=0,
        decides=NONE,
    )
    second_grader: str = setting(
        "", "grader whose differences from the first are a metric and nothing else; empty: none", decides=NONE
    )
    isolation: str = setting(
        "auto",
        "whether the kernel keeps workers from writing files, opening sockets and starting processes. auto: where it "
        "can, but not for your own grader; required: else the run is refused; off: never",
        choices=isolation.MODES,
        decides=NONE,
    )
    workers: int = setting(2, "worker processes of each grader on each host", at_least=1, at_most=4096, decides=NONE)
    seconds_per_answer: float = setting(5.0, "time limit of an answer, s", above=0, at_most=MONTH, decides=NONE)
    seconds_per_round: float = setting(
        600.0, "time limit of the grading of a round, s", above=0, at_most=MONTH, decides=NONE
    )
    worker_memory_mib: int = setting(2048, "memory limit of a worker, MiB", at_least=64, decides=NONE)

    @property
    def graded(self) -> bool:
        """Whether the grader returns rewards beside its verdicts."""
        return self.correct_from > 0


@dataclass(frozen=True)
class WarmStartConfig:
    """The supervised phase on worked solutions before the first step."""

    steps: int = setting(0, "updates; 0: no warm start", at_least=0)
    examples_per_update: int = setting(
        64, "worked solutions of an update; each epoch takes them all in another order", at_least=1
    )
    checkpoint_every_steps: int = setting(
        100, "updates from one checkpoint to the next; 0: only the last", at_least=0, decides=NONE
    )
    validate_every_steps: int = setting(
        100,
        "updates from one loss of worked solutions of the validation problems to the next, beside the first and last; "
        "0: never",
        at_least=0,
        decides=NONE,
    )
    validation_examples: int = setting(256, "most worked solutions of that loss", at_least=1, decides=NONE)
    arithmetic_examples: int = setting(65536, "worked solutions that are generated", at_least=1, at_most=10**7)
    incorrect_share: float = setting(
        0.0, "share of the generated solutions that follow a misconception", at_least=0, at_most=1
    )
    optimizer: OptimizerConfig = section(OptimizerConfig)


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation: for each problem one greedy answer and several sampled ones."""

    every_steps: int = setting(
        0, "steps from one evaluation to the next; 0: before and after the run", at_least=0, decides=NONE
    )
    answers_per_problem: int = setting(4, "sampled answers of a problem", at_least=1)
    max_problems: int = setting(512, "most problems of a split; 0: all", at_least=0)
    problems_per_batch: int = setting(64, "problems whose answers are sampled at a time", at_least=1, decides=NONE)
    temperature: float = setting(1.0, "temperature of the sampled answers", at_least=0.001, at_most=1000)
    top_p: float = setting(1.0, "share of the probability mass that tokens are drawn from", above=0, at_most=1)
    top_k: int = setting(0, "number of most probable tokens that are drawn from; 0: all", at_least=0)
    pass_at: str = setting(
        "", "the k of pass@k and maj@k, comma between them; empty: 1, 2, 4, … and answers_per_problem"
    )

    @property
    def ks(self) -> tuple[int, ...]:
        """The numbers of `pass_at`."""
        return tuple(int(k) for k in self.pass_at.split(",") if k.strip())


@dataclass(frozen=True)
class RecordConfig:
    """What a run writes, and how it ends."""

    rollouts_every_steps: int = setting(
        10, "steps from one saved rollout to the next, beside the first and last step; 0: only those two", at_least=0
    )
    trackers: str = setting(
        "tensorboard",
        "what shows the numbers of metrics.jsonl, comma between the names: tensorboard, and, if their packages are "
        "installed, wandb and trackio; empty: none",
    )
    token_prompts: int = setting(
        4,
        "prompts of a saved rollout whose answers are kept token by token, with what the update that trained them saw: "
        "log-probs, entropies and weights; for the page of the run; 0: none",
        at_least=0,
    )
    checkpoint_every_steps: int = setting(
        10, "steps from one checkpoint to the next; 0: only the last step", at_least=0
    )
    keep_checkpoints: int = setting(2, "newest checkpoints that are kept", at_least=1)
    best_by: str = setting(
        "greedy",
        "validation score by which the best evaluated step is kept beside the newest checkpoints; none: no such step",
        choices=("greedy", "sampled", "none"),
    )
    nonfinite_steps: int = setting(
        3, "steps in a row in which no update was finite, after which the run ends; 0: it goes on", at_least=0
    )
    idle_steps: int = setting(
        3, "steps in a row in which nothing trained, after which the run says why, once; 0: never", at_least=0
    )
    grace_seconds: float = setting(
        25.0,
        "time that a run which is stopped (SIGTERM, Ctrl-C) waits for the running step, s",
        at_least=0,
        at_most=MONTH,
    )
    hang_factor: float = setting(
        10.0,
        "a step hangs if it takes longer than hang_factor × the median step and longer than hang_seconds; the run then "
        "prints where each thread is and goes on",
        above=0,
        at_most=10**6,
    )
    hang_seconds: float = setting(60.0, "shortest duration of a step that hangs, s", above=0, at_most=MONTH)
    allow_other_code: bool = setting(
        False,
        "whether a run goes on although the code of an own loss, grader or template has changed; the steps before had "
        "the code before",
    )

    @property
    def tracker_names(self) -> tuple[str, ...]:
        """The names of `trackers`, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.trackers.split(",") if name.strip()))


@dataclass(frozen=True)
class CompareConfig:
    """What `python -m nft_jax.compare` compares; no other program reads it."""

    losses: str = setting(
        "nft; rft; grpo; dr_grpo; dapo; dpo; contrast",
        "losses with their options, semicolon between them, as in `nft; nft omega=one epsilon=0.1; my_losses:mine`. "
        "The others are compared with the first. normalizer=NAME is an option too. Other settings of the section loss "
        "hold for all",
    )
    updates_per_rollout: str = setting(
        "1",
        "updates of a rollout, comma between the values; 1 is strictly on-policy. The prompts of an update stay those "
        "of the config",
    )
    sampled_tokens: int = setting(300_000, "sampled tokens after which each run ends", at_least=1)
    updates: int = setting(0, "updates after which each run ends, in place of sampled_tokens; 0: by tokens", at_least=0)
    seeds: str = setting("0, 1, 2", "seeds of the runs that are reported, comma between them")
    learning_rates: str = setting(
        "", "learning rates that each loss tries, comma between them; empty: that of the optimizer"
    )
    tuning_seeds: str = setting("", "seeds of the runs that choose a learning rate and are not reported")

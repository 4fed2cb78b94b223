r"""On-policy distillation: a smaller model with the misconception of `tiny` learns from the trained model of `tiny`.

Claim    The student's own samples and the teacher's log-probs of them are enough; verdicts are only reported.
Task     That of `tiny`; the student has two layers of width 96, after the same warm start.
Teacher  The model that `tiny` has trained, exported. Real models: a student and a teacher of one family, such as
         Qwen2.5-0.5B and Qwen2.5-7B-Instruct, by config.model.path and config.distillation.teacher.
Cost     Not measured; a smaller student than `tiny`, and a teacher that reads each sample once.
Command  python -m nft_jax.export --workdir=runs/tiny --output=teacher
         python -m nft_jax.train --config=tiny_distilled --workdir=runs/distilled
         and beside NFT with --config.distillation.alone=false
"""

from nft_jax import config_files


def get_config():
    config = config_files.config("tiny")
    config.model.layers, config.model.unrolled_layers = 2, 2
    config.model.width, config.model.mlp_width = 96, 288
    config.model.heads, config.model.kv_heads, config.model.head_size = 3, 1, 32

    config.distillation.teacher, config.distillation.alone = "teacher", True
    return config

"""lm-evaluation-harness (`lm_eval`), the library of many published evaluations, takes prompts as models.

`model.SoftPromptLM` is the plug-in, and `run` is behind `softprompt eval --harness`. Only `arguments`,
`generation` and `likelihood` know nothing of `lm_eval`. `sentence_module` is for sentence-transformers and
its evaluators.
"""

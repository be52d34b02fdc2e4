"""Compare this version with an earlier one of it, in turns in one run: answers, cached steps, the demo.

    git worktree add --detach /tmp/earlier COMMIT
    python -m benchmarks.earlier /tmp/earlier [--only answers steps demo] [--repeats 3] [--share 0.2] [--cpu]

Each side runs in processes of its own, with the modules of its own folder; loading the model is not counted
in answers and steps, and is in the demo. A line has the medians of both and their ratio. `--share` is how
much of the demo is run: its rows and steps, without the limit of ten minutes, which would make both take as
long. `--short` runs everything once, on a tiny model. `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2
FBGEMM_ENABLE_INSTRUCTIONS=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2` imitates a processor that has AVX2 alone.
"""

"""Every family of the installed transformers, made tiny from its configuration, and held to running exactly.

    python -m benchmarks.families                       # all of them; some minutes
    python -m benchmarks.families causal:llama4_text seq2seq:led encoder:fnet

`small.py` makes the models, `checks.py` says what is asked of each.
"""

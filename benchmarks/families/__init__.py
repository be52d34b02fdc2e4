"""Check that every family of the installed transformers runs exactly, on a tiny model of each.

    python -m benchmarks.families                       # all of them; some minutes
    python -m benchmarks.families causal:llama4_text seq2seq:led encoder:fnet

`small.py` builds the models, `checks.py` has the checks.
"""

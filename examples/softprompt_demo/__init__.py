"""The demo that `softprompt demo` runs: prompts and prefixes tuned on real rows, in ten minutes.

It is written as a user's program: it calls what a user's own recipe would call. `corpus` makes its rows,
`plan` fits it to the machine, `run` runs it, `table` prints the result.
"""

"""The demo that `softprompt demo` runs: `corpus` makes its rows.

Nothing is imported here, so that the command line stays quick to start.
"""

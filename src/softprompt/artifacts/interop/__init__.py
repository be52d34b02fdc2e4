"""Tuned prompts in the file formats of other libraries and engines, one package each.

Nothing here trains. What a format cannot hold exactly is refused with the reason, never approximated.
"""

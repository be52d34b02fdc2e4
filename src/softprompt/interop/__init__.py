"""Tuned prompts in the file formats of other libraries, one package a library, both ways.

Nothing here trains. What a format cannot hold exactly is refused with the reason, never approximated.
"""

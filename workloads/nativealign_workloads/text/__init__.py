"""Pure functions on text: folding for keys, scripts and languages, boilerplate, chunks, repairs.

Called by clean, dedup, annotate, rewrite, assess, the guards and the rules engine. Everything here takes and returns
`str`; nothing reads a file or keeps state.
"""

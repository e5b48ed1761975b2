"""Benchmarks of the native-alignment suite: what is asked, how an answer is read, what a score is worth.

    benchmarks  names, files and default shots        tasks    benchmark + folder -> prompts -> lm-eval task
    loaders     published file formats -> items       run      a model through lm-eval, one file of rows per benchmark
    protocols   prompt building, answer extraction    scores   rows -> scores with intervals and defect views
    intervals   bootstrap and tests                   compare  rows + baseline rows -> paired tests and the gate

lm-eval stays behind `tasks` and `run`; everything else is pure.
"""

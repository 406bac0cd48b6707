"""Timing that can be believed: rivals are timed in turn, pass a correctness gate first, and need an idle machine.

    cpu_load.py         the CPU use of other processes, and the refusal to measure when there is some
    environment.py      the process that measures (malloc's settings, threads), and a description of the machine
    timing.py           medians of rivals that are timed in turn
    cases.py            the registry, with one row for each kernel and size that is timed
    prepared_cases.py   a case of one operation made ready: inputs, true result, bytes moved, rivals
    steps.py            a step of a sampler outside its network, and its rivals
    measure.py          the gate, the rivals and the triad of one case, as one record
    text_report.py      records as a table of text
    command.py          ``ccfast bench``, the short form

The long form, which writes ``bench/results/*.json``, is the ``bench`` folder beside this package.
"""

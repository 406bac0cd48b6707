"""Timing that can be believed: interleaved rivals behind a correctness gate, on a machine that is seen to be idle.

    cpu_load.py         CPU use of other processes, and the refusal to report when there is some
    environment.py      malloc settings (a process of its own), threads, what machine this is
    timing.py           interleaved medians
    cases.py            the registry: one row a kernel and a case
    prepared_cases.py   a case made ready: inputs, truth, bytes moved, rivals
    steps.py            the step outside the network, and its rivals
    measure.py          gate, rivals and triad of one case, as one record
    command.py          ``ccfast bench``, the short form

The long form, which writes ``bench/results/*.json``, is the ``bench`` folder beside this package.
"""

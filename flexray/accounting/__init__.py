"""Who held what for how long, how much of it was used, and how much would have been enough.

Pure: events, commands and measurements go in (``fold.py``), hourly sums come out (``ledger.py``). The same fold runs in
the scheduler and over a journal.
"""

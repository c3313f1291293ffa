"""The simulator: a virtual clock around the production core, traces and reports.

The second shell around ``build_scheduler``: ``clock.py`` owns virtual time and plays the
nodes and the clients, ``scenario.py`` reads what to run, ``result.py`` says what became
of it. ``openb.py``, ``table.py``, ``azure.py`` and ``journal.py`` read other sources,
``serving.py`` sends calls to replicas, ``report.py`` and ``page.py`` draw.
"""

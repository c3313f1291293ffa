"""Turns: slices of a device use it one after the other, step by step, each for its share of the time.

``book.py`` says whose turn is next, ``server.py`` is the process that hands the turns of a node out,
``keeper.py`` is how the node agent starts and asks it. The slice's side is ``flexray/runtime/turn_gate.py``.
"""

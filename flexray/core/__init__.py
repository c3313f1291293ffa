"""The sans-I/O scheduler: events in, commands out. No Ray, no clock, no I/O, no randomness.

Follow a request through the room: ``scheduler.py`` takes events and runs cycles,
``books.py`` keeps what is free and held, ``placement.py`` filters and scores,
``reclaim.py`` chooses what makes room, ``deadlock.py`` finds waits that cannot end,
``views.py`` shows, ``explaining.py`` explains, ``estimate.py`` foresees, ``journal.py`` records and replays.
"""

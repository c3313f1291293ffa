"""Watches what goes into the core and what comes out of it: what is counted, traced and accounted for."""

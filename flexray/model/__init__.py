"""The nouns of flexray: frozen dataclasses and integer arithmetic, standard library only."""

"""How scores fall when the patches of unseen patients are stained, focused, compressed, lit or turned otherwise."""

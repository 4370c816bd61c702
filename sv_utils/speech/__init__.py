"""From archives to one store of int16 samples at 16 kHz. Knows files and numpy."""

"""Speaker verification on VoxCeleb, reproducible end to end."""

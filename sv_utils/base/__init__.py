"""The ground: errors, paths, progress, downloads, the terminal. Knows nothing of speech."""

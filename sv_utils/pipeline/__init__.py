"""From a params file to stages, content keys and records."""

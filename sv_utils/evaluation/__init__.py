"""From scores to error rates. Knows numpy alone."""

"""From a store to a trained encoder. Knows models, losses and batches."""

"""Training heads, one a module: a formula and the registered layer that holds its weights; import the one you want."""

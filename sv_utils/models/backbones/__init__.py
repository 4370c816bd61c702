"""Networks between the front end and the pooling; import the module of the one you want."""

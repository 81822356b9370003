"""From the log to a data set: what is read, filtered, grouped and split."""

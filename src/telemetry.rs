//! Names of metrics and log fields, and the metrics themselves.

//! Faults read from a file.

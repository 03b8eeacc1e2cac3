//! Bodies that are cut or garbled on their way.

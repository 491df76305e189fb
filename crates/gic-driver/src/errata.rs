//! Errata, keyed by `IIDR`.

//! An empty library. The package exists for its lock file, which pins osdemo's version and hash for
//! `cargo vendor`. The package cannot depend on osdemo, which has no library.
#![no_std]

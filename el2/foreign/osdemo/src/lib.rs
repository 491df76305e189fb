//! An empty library. The package exists for its lock file, which pins osdemo's version and hash for
//! `cargo vendor`. The library cannot use osdemo, because osdemo is a program without a library.
#![no_std]

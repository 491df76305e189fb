//! An empty library, because cargo requires one. The package's lock file states the version and the
//! hash of osdemo, which `cargo vendor` downloads. The package cannot use osdemo, which is a
//! program without a library.
#![no_std]

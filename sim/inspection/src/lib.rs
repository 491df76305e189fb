//! What firmware says about interrupts: contents, a picture, findings, and one HTML page.
//!
//! All functions take bytes that were read before, so they need no operating system.
//!
//! Context: task; may sleep.
//!
//! ```
//! use doorbell_inspection::Source;
//!
//! let error = Source::devicetree("board.dtb".into(), b"text".to_vec(), None).unwrap_err();
//! assert!(error.to_string().starts_with("board.dtb is not a flattened devicetree"));
//! ```
#![forbid(unsafe_code)]

#[cfg(test)]
mod any_machine;
mod dump;
pub mod graph;
#[cfg(test)]
mod hostile;
pub mod inspect;
pub mod json;
pub mod lint;
mod location;
mod overlaid;
pub mod report;
pub mod requesters;
mod source;
mod wording;
mod work;

pub use location::{Locate, Location};
pub use overlaid::{Overlays, is_overlay};
pub use source::{
    CpuClusters, MAX_BYTES, Raw, Source, is_blob, is_devicetree_source, is_stdin, is_table_source,
};
pub use wording::{coherence, counted};

//! One HTML file that inspects firmware in a browser, without a network.
//!
//! [`assemble`] puts the page together from its script, its styles and this package itself,
//! compiled for `wasm32-unknown-unknown`. There, the functions of [`interface`] pass files in and
//! text out.
//!
//! Context: task; may sleep.

mod html;
pub mod interface;
mod work;

pub use html::assemble;
pub use work::{Output, Outputs, inspect};

//! Failures of machines.

use std::error::Error;

/// Failure of a machine itself, rather than of its guest.
pub type Failure = Box<dyn Error + Send + Sync>;

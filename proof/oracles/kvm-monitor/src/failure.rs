//! Errors of the monitor.

use std::error::Error;

/// A failure of the machine or of one of its devices.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

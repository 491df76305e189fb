//! The errors that the VMM reports.

use std::error::Error;

/// A failure of the machine or one of its devices.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

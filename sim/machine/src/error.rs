//! The errors that abort a run.

/// An error that aborts a run. Driver errors are quoted as text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A driver could not bring up its controller.
    #[error("{controller} could not be brought up: {reason}")]
    BringUp {
        /// The controller's name in firmware.
        controller: String,
        /// The driver's error.
        reason: String,
    },
    /// A driver failed while the machine ran.
    #[error("{operation} failed: {reason}")]
    Driver {
        /// The operation that failed.
        operation: String,
        /// The driver's error.
        reason: String,
    },
    /// No device was granted vectors.
    #[error(
        "none of the machine's {devices} devices got a vector; the first was refused: {reason}"
    )]
    NoVectors {
        /// Number of devices.
        devices: usize,
        /// The reason why the first device was denied vectors.
        reason: String,
    },
    /// The interrupt controller's state could not be saved or restored.
    #[error("the interrupt controller could not be moved: {0}")]
    NotMoved(String),
}

impl RunError {
    /// Returns the error of a disturbance that failed.
    pub(crate) fn of_disturbance(reason: String) -> Self {
        Self::Driver { operation: "a change while the machine was busy".to_owned(), reason }
    }
}

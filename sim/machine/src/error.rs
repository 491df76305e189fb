//! The reasons why a run is aborted.

/// The reason why a run was aborted. Drivers' errors are quoted as text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A driver could not bring its controller up.
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
    /// Every device was refused its vectors.
    #[error(
        "none of the machine's {devices} devices got a vector; the first was refused: {reason}"
    )]
    NoVectors {
        /// The number of devices.
        devices: usize,
        /// The reason for the first refusal.
        reason: String,
    },
    /// The interrupt controller's state could not be saved and restored.
    #[error("the interrupt controller could not be moved: {0}")]
    NotMoved(String),
}

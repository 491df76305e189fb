//! The reasons for which a run breaks off.

/// The reason for which a run broke off. The drivers' own reasons are quoted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A driver could not bring its controller up.
    #[error("{controller} could not be brought up: {reason}")]
    BringUp {
        /// Firmware's name of the controller.
        controller: String,
        /// The driver's reason.
        reason: String,
    },
    /// A driver failed while the machine ran.
    #[error("{operation} failed: {reason}")]
    Driver {
        /// The operation that failed.
        operation: String,
        /// The driver's reason.
        reason: String,
    },
    /// No device got a vector.
    #[error(
        "none of the machine's {devices} devices got a vector; the first was refused: {reason}"
    )]
    NoVectors {
        /// The number of devices.
        devices: usize,
        /// The first refusal.
        reason: String,
    },
    /// The interrupt controller could not be saved and restored.
    #[error("the interrupt controller could not be moved: {0}")]
    NotMoved(String),
}

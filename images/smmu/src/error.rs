//! Errors of the SMMU driver.

use crate::stream_id::StreamId;
use thiserror::Error;

/// Reason why an SMMU cannot be used, or did not execute a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SmmuError {
    /// The SMMU's registers are not mapped.
    #[error("the SMMU's registers are not mapped")]
    NotMapped,
    /// The SMMU lacks a feature that the driver requires.
    #[error("the SMMU does not support {0}, which this driver requires")]
    Lacks(&'static str),
    /// Memory for one of the SMMU's tables could not be allocated.
    #[error("the platform has no memory for the SMMU's {0}")]
    NoMemory(&'static str),
    /// The SMMU did not respond in time.
    #[error("the SMMU did not respond to {0}")]
    Timeout(&'static str),
    /// The SMMU rejected a command with this `CMDQ_CONS.ERR`.
    #[error("the SMMU rejected a command with error {0:#x}")]
    BadCommand(u32),
    /// The stream exceeds the range of the SMMU.
    #[error("stream {0} exceeds the range of the SMMU")]
    StreamRange(StreamId),
}

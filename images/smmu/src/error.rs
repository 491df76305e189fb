//! Errors.

use crate::stream_id::StreamId;
use thiserror::Error;

/// Reason for which an SMMU cannot be used, or did not carry out a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SmmuError {
    /// Its registers are not mapped.
    #[error("the SMMU's registers are not mapped")]
    NotMapped,
    /// It lacks a feature.
    #[error("this driver needs an SMMU with {0}")]
    Lacks(&'static str),
    /// There is no memory for one of its tables.
    #[error("the platform has no memory for the SMMU's {0}")]
    NoMemory(&'static str),
    /// It does not answer in time.
    #[error("the SMMU does not answer to {0}")]
    Timeout(&'static str),
    /// It refuses a command, with this `CMDQ_CONS.ERR`.
    #[error("the SMMU refuses a command with error {0:#x}")]
    BadCommand(u32),
    /// It does not have the stream.
    #[error("stream {0} is beyond the SMMU's")]
    StreamRange(StreamId),
}

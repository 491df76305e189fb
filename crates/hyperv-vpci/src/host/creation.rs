//! Creation of the host's end.

use super::offer_table::OfferTable;
use super::{Host, HostConfig, HostError, Injection};
use crate::protocol::MAX_MESSAGE;
use alloc::vec::Vec;

impl Host {
    /// Creates a bus without functions.
    ///
    /// # Errors
    /// Returns [`HostError::NoMemory`] if the host's heap is exhausted.
    pub fn new(config: HostConfig, injection: Injection) -> Result<Self, HostError> {
        let mut buffer = Vec::new();
        // The list of functions is built in one half of the buffer and emitted to the other half.
        buffer.try_reserve_exact(2 * MAX_MESSAGE).map_err(|_| HostError::NoMemory)?;
        buffer.resize(2 * MAX_MESSAGE, 0);
        Ok(Self {
            config,
            injection,
            version: None,
            window: None,
            capacity: usize::MAX,
            functions: OfferTable::default(),
            relations_pending: false,
            reply: None,
            buffer,
        })
    }
}

//! Creation of an MSI-X table.

use super::guest::Guest;
use super::vector::MsixVector;
use super::{BadTableSize, MsixLayout, MsixTable, VectorObserver};
use crate::lock::{self, Mutex};
use crate::sync::AtomicBool;
use crate::{MessageSink, Sender};
use alloc::sync::Arc;
use msi_types::pci::MSIX_MAX_VECTORS;

impl MsixTable {
    /// Creates a table in its reset state: disabled, with every vector masked.
    ///
    /// # Errors
    /// Returns [`BadTableSize`] if `vectors` is not between 1 and 2048.
    pub fn new(
        vectors: u16,
        sender: Sender,
        sink: Arc<dyn MessageSink>,
    ) -> Result<Self, BadTableSize> {
        if !(1..=MSIX_MAX_VECTORS).contains(&vectors) {
            return Err(BadTableSize(vectors));
        }
        let guest = Mutex::new(Guest::new(vectors, sender));
        let layout = MsixLayout::of(vectors);
        let vectors = (0..vectors).map(|_| MsixVector::new()).collect();
        let (is_enabled, idle) = (AtomicBool::new(false), lock::WaitQueue::default());
        Ok(Self { vectors, sink, observer: None, layout, is_enabled, guest, idle })
    }

    /// Sets the observer of the open vectors.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn VectorObserver>) -> Self {
        self.observer = Some(observer);
        self
    }
}

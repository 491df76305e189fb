//! Handlers on the heap.

use crate::irq::flow::{IrqContext, IrqReturn};
use crate::shared::Shared;
use alloc::collections::TryReserveError;

/// A handler, in the form that dispatch calls.
pub(crate) type Handler = Shared<dyn Fn(&IrqContext<'_>) -> IrqReturn + Send + Sync>;

impl Handler {
    /// Moves a handler to the heap.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The allocator has no memory for it. The handler is dropped.
    pub(crate) fn try_handler<R: Into<IrqReturn>>(
        run: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<Self, TryReserveError> {
        Self::try_unsized(move |context: &IrqContext<'_>| run(context).into(), |block| block)
    }
}

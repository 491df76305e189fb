//! Functions whose state a machine saves: MSI-X tables, MSI capabilities and virtio notifiers.

use core::time::Duration;
use irq_routing::msi::MsiCapability;
use irq_routing::msix::MsixTable;
use irq_routing::saved_state::{MsiState, MsixState, StateError, VirtioState};
use irq_routing::virtio::VirtioNotifier;
use irq_routing::{Attachment, Unsettled};

/// Saved state of a [`Function`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum FunctionState {
    /// An MSI-X table.
    Msix(MsixState),
    /// An MSI capability.
    Msi(MsiState),
    /// A virtio device's vectors.
    Virtio(VirtioState),
}

/// Reason why a function cannot be in a saved state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FunctionError {
    /// The function is of another kind.
    #[error("the state is of another kind of function")]
    OtherKind,
    /// The function is of the same kind, but cannot be in this state.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Interrupt capability of a PCI function that has a saved state.
pub trait Function: Send + Sync {
    /// Waits until every signal from before this call has been sent or is pending.
    ///
    /// # Errors
    /// Returns [`Unsettled`] if a signal is still being served after `limit`.
    fn settle(&self, limit: Duration) -> Result<(), Unsettled>;
    /// Returns the function's membership in the parts of its machine, if it has one. A save then
    /// finds parts of the machine that are left out.
    fn attachment(&self) -> Option<&Attachment> {
        None
    }
    /// Returns the function's state.
    fn save(&self) -> FunctionState;
    /// Checks that the function can be in a state.
    ///
    /// # Errors
    /// Returns the reason why it cannot.
    fn check(&self, state: &FunctionState) -> Result<(), FunctionError>;
    /// Restores a state, and sends pending messages that are not masked.
    ///
    /// # Errors
    /// Returns the same errors as [`check`](Self::check), and then changes nothing.
    fn restore(&self, state: &FunctionState) -> Result<(), FunctionError>;
}

/// Implements [`Function`] for a type whose state is a variant of [`FunctionState`].
macro_rules! function {
    ($function:ty, $variant:ident, $settle:expr) => {
        impl Function for $function {
            fn settle(&self, limit: Duration) -> Result<(), Unsettled> {
                $settle(self, limit)
            }

            fn attachment(&self) -> Option<&Attachment> {
                Some(self.attachment())
            }

            fn save(&self) -> FunctionState {
                FunctionState::$variant(self.save())
            }

            fn check(&self, state: &FunctionState) -> Result<(), FunctionError> {
                let FunctionState::$variant(state) = state else {
                    return Err(FunctionError::OtherKind);
                };
                Ok(self.check_restorable(state)?)
            }

            fn restore(&self, state: &FunctionState) -> Result<(), FunctionError> {
                let FunctionState::$variant(state) = state else {
                    return Err(FunctionError::OtherKind);
                };
                Ok(self.restore(state)?)
            }
        }
    };
}

function!(MsixTable, Msix, Self::settle);
function!(MsiCapability, Msi, Self::settle);
// A notifier has no signals of its own: settling its table suffices.
function!(VirtioNotifier, Virtio, |_, _| Ok(()));

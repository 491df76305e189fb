//! Results of dispatch.

/// Result of dispatch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dispatched {
    /// The handler ran.
    Handled,
    /// The handler did not run yet, but the arrival is not lost.
    Deferred(Deferral),
    /// The vector has no handler, or the handler found nothing to do.
    Unhandled(Unhandled),
}

/// The reason why a handler did not run immediately. No arrival is lost: an edge or message is sent
/// again through the controller, to the interrupt's target at that time, and a level stays
/// asserted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Deferral {
    /// The handler is already running on another CPU (or on this one, in the context that the
    /// caller interrupted). The interrupt is sent again when the handler returns.
    Running,
    /// The interrupt is disabled, and is sent again when it is enabled.
    Disabled,
}

/// The reason why an arrival was not handled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Unhandled {
    /// The vector no longer has a handler. The arrival was already in flight when the handler was
    /// dropped.
    Released,
    /// The vector never had a handler; this is a spurious interrupt.
    Unknown,
    /// The handler ran, but found nothing to do: [`IrqReturn::None`](crate::IrqReturn::None).
    IrqNone,
    /// The CPU number is not below the number of CPUs in the core's configuration.
    UnknownCpu,
}

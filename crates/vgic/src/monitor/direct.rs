//! The seam to hardware that injects messages directly (GICv4).

use gic_arch::Lpi;
use gic_arch::its::Command;
use gic_arch::lpi::Config;
use msi_types::{Cpu, DeviceId, EventId};

/// Translation of an event to which messages are delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DirectTarget {
    /// The event's LPI.
    pub lpi: Lpi,
    /// vCPU to which the LPI is routed.
    pub cpu: Cpu,
    /// The LPI's enable bit and priority.
    pub config: Config,
    /// `true` if the LPI was pending in the model. It no longer is, so the caller must make the
    /// virtual LPI pending, or signal the message to the model again.
    pub pending: bool,
}

/// The LPI of an event is in a list register, so it is unknown whether it is still pending. The
/// vCPU has been kicked, and the lookup succeeds after the vCPU has exited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the LPI is in a list register")]
pub struct InListRegister;

/// Looks up an event. Returns `None` if its messages are dropped.
pub type Translate<'a> =
    dyn FnMut(DeviceId, EventId) -> Result<Option<DirectTarget>, InListRegister> + 'a;

/// Delivers the messages of some events by hardware. The model does not see them, so the
/// implementation must follow the guest's commands.
///
/// The implementation must take all events back, and signal their pending state to the model,
/// before the model is saved or reset and before the guest disables an ITS or a vCPU's LPIs.
///
/// The model may hold its locks during a call. An implementation may signal messages to the model,
/// but must not call it otherwise.
#[doc(alias = "kvm_vgic_v4_set_forwarding")]
pub trait DirectInjection: Send + Sync {
    /// Called before an ITS executes a command, on the thread that executes it, but not before
    /// SYNC, which changes no event. Returns `true` for an INT command of a direct event, which the
    /// implementation has executed; the model then skips the command. The model always executes
    /// CLEAR, because a message may have arrived before the event was direct.
    fn before(&self, command: Command) -> bool;

    /// Called after an ITS has executed a command other than SYNC, on the thread that executed it,
    /// before the guest can observe its completion. `None` means that the command failed, and
    /// changed nothing. A command for one event also changes the configuration of the other events
    /// that are mapped to its LPI. Returns the number of events that it had to follow. Each counts
    /// as another command, so that the guest cannot make an exit take long.
    ///
    /// # Errors
    /// [`InListRegister`] if a lookup failed. The command completes after another call.
    fn after(
        &self,
        command: Option<Command>,
        translate: &mut Translate<'_>,
    ) -> Result<u32, InListRegister>;

    /// Returns `true` if hardware delivers the messages of an event that is mapped to this LPI. The
    /// model then doesn't know whether the LPI is pending.
    fn is_direct(&self, lpi: Lpi) -> bool;
}

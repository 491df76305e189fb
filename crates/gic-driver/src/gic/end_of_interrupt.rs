//! Ends and deactivates interrupts, with workarounds for GIC errata.

use super::Gic;
use crate::cpu_interface::{Acknowledged, Active, EoiMode, SplitEoi};
use crate::errata::{Erratum, ErratumEntry};
use crate::{CpuInterface, GicPlatform, Route, SystemRegisters, barrier};
use gic_arch::IntId;

impl<P: GicPlatform> Gic<P> {
    /// Returns this GIC's errata. Each [`Erratum`] states whether the driver or the kernel must
    /// work around it.
    pub fn errata(&self) -> impl Iterator<Item = &'static ErratumEntry> {
        self.errata.iter()
    }

    /// Calls [`CpuInterface::end`] with the workarounds for this GIC's errata. Must be called on
    /// the interface's CPU.
    ///
    /// Context: any.
    pub fn end<S: SystemRegisters, E: EoiMode>(
        &self,
        interface: &CpuInterface<S, E>,
        interrupt: Acknowledged,
    ) -> E::Ended {
        let intid = interrupt.intid();
        let ended = interface.end(interrupt);
        if !E::SPLIT && self.wakes_another_cpu(intid) {
            // Wait until the deactivation at the CPU interface has taken effect.
            barrier::complete();
            self.deactivate_at_distributor(intid);
        }
        ended
    }

    /// Calls [`CpuInterface::deactivate`] with the workarounds for this GIC's errata. Must be
    /// called on the interface's CPU.
    ///
    /// Context: any.
    pub fn deactivate<S: SystemRegisters>(
        &self,
        interface: &CpuInterface<S, SplitEoi>,
        interrupt: Active,
    ) {
        let intid = interrupt.intid();
        if self.wakes_another_cpu(intid) {
            self.deactivate_at_distributor(interrupt.hand_over());
        } else {
            interface.deactivate(interrupt);
        }
    }

    /// Returns `true` if Arm erratum 2941627 applies: the SPI is routed to a CPU other than the one
    /// that ends it. A GIC without errata costs a load and a branch per interrupt.
    #[inline]
    fn wakes_another_cpu(&self, intid: IntId) -> bool {
        !self.errata.is_empty() && self.loses_wake_of(intid)
    }

    #[cold]
    fn loses_wake_of(&self, intid: IntId) -> bool {
        self.errata.has(Erratum::SpiWakeLostOnDeactivation)
            && intid.is_shared()
            && self.affinity(self.platform.cpu()).map(Route::To)
                != self.distributor.route(intid).ok()
    }

    fn deactivate_at_distributor(&self, intid: IntId) {
        if let Ok(interrupt) = self.distributor.interrupt(intid) {
            interrupt.deactivate();
        }
    }
}

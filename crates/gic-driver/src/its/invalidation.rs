//! Invalidation of an LPI's cached configuration: by `GICR_INVLPIR` if its redistributor has the
//! register, by the INV command otherwise.
//!
//! The register requires neither the command queue nor its lock, so CPUs that mask LPIs of
//! different redistributors do not contend for it.
//!
//! Invariant: on return, the LPI's redistributor uses the configuration that was stored before the
//! call. A move that is posted later posts its own INV after its MOVI. A move in progress has
//! already changed the route, and its INV may have read the old configuration: the redistributor
//! that the route names may not have the LPI yet. Therefore the route is read first, then the
//! number of moves in progress. Unless that number is 0, INV is used, which the queue orders after
//! their commands.

use super::Its;
use super::collections::cpu_of;
use super::error::{ItsError, fault};
use super::register_invalidation::RegisterInvalidation;
use crate::platform::{GicPlatform, wait_until};
use crate::redistributor::Invalidation;
use core::sync::atomic::{Ordering, fence};
use gic_arch::Lpi;
use gic_arch::its::Command;
use msi_types::Cpu;

impl<P: GicPlatform> Its<P> {
    /// Invalidates an LPI's configuration at its redistributor.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`], [`ItsError::Fault`].
    pub fn invalidate(&self, lpi: Lpi) -> Result<(), ItsError> {
        match self.invalidate_by_register(lpi) {
            Some(()) => Ok(()),
            None => self.run_on_event(lpi, |device, event| Command::Inv { device, event }),
        }
    }

    /// Invalidates an LPI by its redistributor's register. `None` if the register cannot be used,
    /// or does not suffice.
    fn invalidate_by_register(&self, lpi: Lpi) -> Option<()> {
        let RegisterInvalidation { access, moves } = &self.invalidation;
        // A move that is not counted below is posted after the configuration was stored.
        fence(Ordering::SeqCst);
        let cpu = cpu_of(self.routes.of(lpi)?.collection);
        if moves.load(Ordering::SeqCst) != 0 {
            return None;
        }
        let _user = access.get(cpu.index())?.enter()?;
        let redistributor = self.gic.redistributor_frames(cpu).ok()?;
        let one = core::iter::once(Invalidation::One(lpi));
        redistributor.invalidate(self.platform(), one).ok()
    }

    /// Allows invalidations to use the registers of a CPU that is on, if its redistributor has
    /// them.
    pub(super) fn open_registers(&self, cpu: Cpu) {
        let Some(access) = self.invalidation.access.get(cpu.index()) else { return };
        let redistributor = self.gic.redistributor_frames(cpu);
        if redistributor.is_ok_and(crate::Redistributor::can_invalidate) {
            access.open();
        }
    }

    /// Ends all use of a CPU's registers, after which its redistributor may be put to sleep.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if a user does not finish. The registers are then open again.
    pub(super) fn close_registers(&self, cpu: Cpu) -> Result<(), ItsError> {
        let Some(access) = self.invalidation.access.get(cpu.index()) else { return Ok(()) };
        if !access.is_open() {
            return Ok(());
        }
        access.close();
        wait_until(self.platform(), "the last user of its registers", || !access.is_used()).map_err(
            |late| {
                access.open();
                fault(self.frame.base, "INVLPIR", late.0)
            },
        )
    }

    /// Calls [`open_registers`](Self::open_registers) for all CPUs that are on.
    pub(super) fn open_all_registers(&self) {
        self.collections.mapped().for_each(|cpu| self.open_registers(cpu));
    }

    /// Calls [`close_registers`](Self::close_registers) for all CPUs; closes all or none.
    pub(super) fn close_all_registers(&self) -> Result<(), ItsError> {
        let closed = self.collections.mapped().try_for_each(|cpu| self.close_registers(cpu));
        closed.inspect_err(|_| self.open_all_registers())
    }
}

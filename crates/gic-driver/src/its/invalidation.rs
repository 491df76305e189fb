//! Invalidation of an LPI's cached configuration: by `GICR_INVLPIR` at its redistributor where that
//! has the register, by the INV command otherwise.
//!
//! The register takes neither the command queue nor its lock. CPUs that mask LPIs of different
//! redistributors have nothing in common.
//!
//! Invariant: on return, the LPI's redistributor goes by the configuration that was stored before.
//! A move that is posted later sends an INV of its own, behind its MOVI. A move that is under way
//! has changed the route already, and its INV may have read the old configuration: the
//! redistributor that the route names may not have the LPI yet. So the route is read first, then
//! the number of moves under way; unless that is 0, INV is used, which the queue puts behind them.

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
    /// Makes an LPI's redistributor read its configuration byte again.
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

    /// `None` if the register is not usable, or does not suffice.
    fn invalidate_by_register(&self, lpi: Lpi) -> Option<()> {
        let RegisterInvalidation { access, moves } = &self.invalidation;
        // A move that is not seen below is posted after the configuration was stored.
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

    /// Lets invalidations use the registers of a CPU that is on, where its redistributor has them.
    pub(super) fn open_registers(&self, cpu: Cpu) {
        let Some(access) = self.invalidation.access.get(cpu.index()) else { return };
        let redistributor = self.gic.redistributor_frames(cpu);
        if redistributor.is_ok_and(crate::Redistributor::can_invalidate) {
            access.open();
        }
    }

    /// Ends all use of the registers of a CPU: its redistributor may be put to sleep then.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if a user does not end: they are open again then.
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

    /// [`open_registers`](Self::open_registers) of all CPUs that are on.
    pub(super) fn open_all_registers(&self) {
        self.collections.mapped().for_each(|cpu| self.open_registers(cpu));
    }

    /// [`close_registers`](Self::close_registers) of all CPUs; all or none.
    pub(super) fn close_all_registers(&self) -> Result<(), ItsError> {
        let closed = self.collections.mapped().try_for_each(|cpu| self.close_registers(cpu));
        closed.inspect_err(|_| self.open_all_registers())
    }
}

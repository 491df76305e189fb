//! Doorbells of vPEs (GICv4.0; IHI 0069, "virtual LPIs"): physical LPIs that wake the vCPUs.
//!
//! A virtual LPI that becomes pending while its vPE is not resident makes the vPE's doorbell
//! pending at the redistributor to which the vPE is mapped. The doorbells also belong to events of
//! a *proxy*, a DeviceID that no device has, because the ITS moves LPIs by their events.

use super::Its;
use super::error::ItsError;
use super::mapping::EventRequest;
use crate::platform::GicPlatform;
use core::num::NonZeroU16;
use gic_arch::Lpi;
use msi_types::{Attachment, Cpu, DeviceId, HwIrqBlock};

/// The doorbells of a set of vPEs, in the vPEs' order. They are always enabled.
#[derive(Debug)]
pub(super) struct Doorbells {
    proxy: Attachment,
    lpis: HwIrqBlock,
}

impl Doorbells {
    /// Maps `count` doorbells to the CPUs of their vPEs, of which there may be `room` at this ITS.
    /// On error, nothing is mapped.
    pub(super) fn map<P: GicPlatform>(
        its: &Its<P>,
        proxy: DeviceId,
        room: u32,
        (count, cpus): (NonZeroU16, impl Fn(u16) -> Cpu),
    ) -> Result<Self, ItsError> {
        let proxy = its.attach_shared(proxy, count.get().into(), room)?;
        let request = EventRequest::new(count, cpus(0));
        let lpis = match its.map_events(&proxy, request) {
            Ok(lpis) => lpis,
            Err(error) => {
                its.detach(proxy);
                return Err(error);
            }
        };
        let doorbells = Self { proxy, lpis };
        let mut all = (0..count.get()).filter_map(|vpe| Some((doorbells.of(vpe)?, cpus(vpe))));
        match all.try_for_each(|(doorbell, cpu)| its.move_event(doorbell, cpu).map(|_| ())) {
            Ok(()) => Ok(doorbells),
            Err(error) => {
                doorbells.unmap(its);
                Err(error)
            }
        }
    }

    /// Unmaps the doorbells. No event may use them any more.
    pub(super) fn unmap<P: GicPlatform>(self, its: &Its<P>) {
        its.release(self.proxy, &mut core::iter::once(self.lpis));
    }

    /// Returns a vPE's doorbell.
    pub(super) fn of(&self, vpe: u16) -> Option<Lpi> {
        Lpi::try_from(self.lpis.hwirq(vpe)?.get()).ok()
    }

    /// Returns the vPE that has this doorbell.
    pub(super) fn vpe_of(&self, lpi: Lpi) -> Option<u16> {
        let index = u16::try_from(lpi.get().checked_sub(self.lpis.first().get())?).ok()?;
        (index < self.lpis.count().get()).then_some(index)
    }
}

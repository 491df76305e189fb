//! Translations for direct injection by hardware.

use super::control::Control;
use super::mapping::ItsIndex;
use super::shared::Location;
use crate::monitor::direct::DirectTarget;
use gic_arch::lpi::Config;
use msi_types::Cpu;

impl Control {
    /// Looks up an event whose messages are delivered, according to the command state. A sweep may
    /// not have updated the event's entry yet.
    pub(crate) fn direct_target(
        &self,
        its: ItsIndex,
        device: u32,
        event: u32,
    ) -> Option<DirectTarget> {
        let found = self.event(its, device, event)?;
        let location = Location::Event(found.index());
        let entry = self.shared.load(location);
        let route = self.route_of(location, entry)?;
        let (vcpu, lpi) = (route.target(), entry.lpi());
        let tables = self.enabled.get(vcpu).filter(|tables| tables.covers(lpi))?;
        let (enabled, level) = self.settings(vcpu, &tables, lpi);
        let config = Config::new().with_enable(enabled).with_priority(level.configured());
        let target = DirectTarget { lpi, cpu: Cpu::new(vcpu), config };
        route.is_open().then_some(target)
    }
}

//! Steps that concern wired interrupts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{Bench, ID_BITS, Shape};
use crate::guest::program::wired::{AFFINITIES, LINKED, SECURE, SHARED};
use crate::guest::program::{Field, Observation, Step, Wired};
use crate::guest::{Half, Interface};
use gic_arch::gicd::{self, Irouter};
use gic_arch::gicr::{self, Waker};
use gic_arch::{Affinity, IntId};
use msi_types::{Cpu, Delivery, Level, Line, SetLine};
use std::sync::atomic::Ordering::SeqCst;
use vgic::{AccessWidth, PhysicalInterrupts as _, SecurityView, VgicConfig};

impl Shape {
    pub(super) fn wired_config(self, wired: Wired, work: u32) -> VgicConfig {
        let mut config = VgicConfig::new(self.cpus)
            .with_spis(64)
            .with_extended_spis(32)
            .with_extended_ppis(32)
            .with_message_based_spis(!self.is_direct)
            .with_direct_lpi(self.is_direct)
            .with_lpi_id_bits(self.is_direct.then_some(ID_BITS))
            .with_lpi_work_per_access(work)
            .with_one_of_n(wired.one_of_n)
            .with_priority_bits(wired.bits);
        if wired.is_non_secure {
            let secure = SECURE.into_iter().map(IntId::new).collect();
            config = config.with_security(SecurityView::NonSecure).with_secure_interrupts(secure);
        }
        for (cpu, affinity) in config.cpus.iter_mut().zip(AFFINITIES) {
            cpu.affinity = affinity;
        }
        config
    }
}

impl Step {
    pub(super) fn changes_linked_trigger(self) -> bool {
        let Self::Field { field: Field::Trigger, intid, .. } = self else { return false };
        LINKED.contains(&intid)
    }
}

impl Bench {
    /// Returns the inputs that are linked at first.
    pub(super) fn first_links(shape: Shape) -> impl Iterator<Item = Line> {
        let cpus = 0..usize::from(shape.wired.map_or(0, |_| shape.cpus));
        cpus.flat_map(|cpu| LINKED.map(|intid| line_of(cpu, intid)))
    }

    /// Links virtual interrupts to physical ones.
    pub(super) fn link(&self) {
        if self.shape.wired.is_some() {
            self.machine.gic.serve_physical(self.physical.clone()).unwrap();
            self.physical.linked().into_iter().for_each(|line| self.set_link(line, true));
        }
    }

    /// Links an input, or removes its link and drives it without one.
    fn set_link(&self, line: Line, on: bool) {
        let (Line::Ppi { intid, .. } | Line::Spi(intid)) = line;
        let (gic, intid) = (&self.machine.gic, IntId::new(intid));
        self.physical.link(line, on);
        if on {
            gic.link(line, intid).unwrap();
        } else {
            gic.unlink(line).unwrap();
            gic.set_line(line, self.physical.level(line, intid));
        }
    }

    /// Ends the physical interrupts that the hardware has deactivated, then takes the physical
    /// interrupts that are now pending.
    pub(super) fn take_physical(&mut self) {
        if self.shape.wired.is_none() {
            return;
        }
        for (cpu, vcpu) in self.machine.vcpus.iter_mut().enumerate() {
            for intid in vcpu.take_deactivated() {
                self.physical.end(cpu, intid);
            }
        }
        for line in self.physical.take() {
            self.machine.gic.set_line(line, Level::High);
        }
    }

    /// Takes a step, without the checks of sleeping vCPUs.
    pub(super) fn take_wired(&mut self, step: Step) -> Observation {
        let machine = &mut self.machine;
        match step {
            Step::Line { cpu, intid, high } => {
                return Observation::Sent(self.drive(line_of(cpu, intid), high));
            }
            Step::Link { cpu, intid, on } => self.set_link(line_of(cpu, intid), on),
            Step::Message { intid, set } => {
                let register = if set { gicd::SETSPI_NSR } else { gicd::CLRSPI_NSR };
                let address = machine.gic.config().distributor + u64::from(register.offset());
                let width = if intid & 1 == 0 { AccessWidth::Half } else { AccessWidth::Word };
                machine.write(address, width, intid.into());
            }
            Step::Field { cpu, field, intid, value } => self.write_field(cpu, field, intid, value),
            Step::ReadField { cpu, field, intid } => {
                machine.vcpus.iter_mut().for_each(Half::leave_guest);
                return Observation::Read(machine.field(cpu, field, intid));
            }
            Step::Route { intid, target } => {
                let elsewhere = Irouter::to(Affinity::new(9, 9, 9, 9));
                let any = Irouter::new().with_any_participating(true);
                let other = if target == AFFINITIES.len() { elsewhere } else { any };
                let route = AFFINITIES.get(target).map_or(other, |affinity| Irouter::to(*affinity));
                let register = gicd::irouter(IntId::new(intid)).unwrap();
                let address = machine.gic.config().distributor + u64::from(register.offset());
                if intid & 1 == 0 {
                    machine.write(address, AccessWidth::Double, route.into_bits());
                } else {
                    let [low, high] = [route.into_bits() & 0xffff_ffff, route.into_bits() >> 32];
                    machine.write(address, AccessWidth::Word, low);
                    machine.write(address + 4, AccessWidth::Word, high);
                }
            }
            Step::Groups { zero, one } => {
                let value = u32::from(zero) | u32::from(one) << 1;
                machine.write_gicd(gicd::CTLR, gicd::Ctlr::from(value));
            }
            Step::Waker { cpu, asleep } => {
                machine.write_gicr(cpu, gicr::WAKER, Waker::new().with_processor_sleep(asleep));
            }
            Step::Decline { cpu, zero, one } => {
                let value = gicr::Ctlr::new().with_dpg0(zero).with_dpg1_ns(one);
                let value = value.with_enable_lpis(self.shape.is_direct);
                machine.write_gicr(cpu, gicr::CTLR, value);
            }
            Step::Reset { cpu } => machine.vcpus[cpu].reset(),
            Step::Read { cpu, register } => {
                let value = machine.vcpus[cpu].read_sysreg(register.row().1);
                return value.map_or(Observation::Undefined, |value| {
                    Observation::Read(u32::try_from(value).unwrap())
                });
            }
            Step::Write { cpu, register, value } => {
                if machine.vcpus[cpu].write_sysreg(register.row().1, value).is_err() {
                    return Observation::Undefined;
                }
            }
            Step::Inputs { cpu } => {
                let inputs = machine.vcpus[cpu].inputs();
                return Observation::Read(u32::from(inputs.fiq) | u32::from(inputs.irq) << 1);
            }
            _ => panic!("{step} consists of other steps"),
        }
        Observation::Nothing
    }

    /// Drives an input. Returns `false` if it doesn't exist.
    fn drive(&self, line: Line, high: bool) -> bool {
        let level = if high { Level::High } else { Level::Low };
        self.physical.drive(line, level);
        if !self.physical.linked().contains(&line) {
            return self.machine.gic.set_line(line, level) != Delivery::NoDoorbell;
        }
        // Make vCPUs with list registers exit: a list register keeps signaling a level after the
        // line has fallen.
        let cpus = 0..self.machine.vcpus.len();
        cpus.for_each(|cpu| self.machine.kicks.flag(cpu).store(true, SeqCst));
        true
    }

    fn write_field(&self, cpu: usize, field: Field, intid: u32, value: u8) {
        let Some((base, at)) = self.machine.locate(cpu, field, intid) else { return };
        let value = match field {
            Field::Priority => value.into(),
            Field::Group => u32::from(value & 1),
            Field::Trigger => u32::from(value & 1) << 1,
            _ if value & 1 == 1 => {
                let register = base + u64::from(at.register().offset());
                let bits = u64::from(at.mask()) << (8 * (register % 8));
                return self.machine.write(register & !7, AccessWidth::Double, bits);
            }
            _ => 1,
        };
        self.machine.set_field(cpu, field, intid, value);
    }
}

fn line_of(cpu: usize, intid: u32) -> Line {
    if SHARED.contains(&intid) {
        Line::Spi(intid)
    } else {
        Line::Ppi { cpu: Cpu::new(u32::try_from(cpu).unwrap()), intid }
    }
}

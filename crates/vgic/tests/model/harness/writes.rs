//! Applies the writes of devices and guests to both the model and the reference.

use super::{Bench, Doorbells, line_of};
use crate::model::ops::{AFFINITIES, Field};
use crate::model::physical::LINKED;
use crate::model::reference::View;
use gic_arch::gicd::Irouter;
use gic_arch::icc::Sgi;
use gic_arch::{Affinity, IntId, IntIdField, gicd, gicr, icc};
use msi_types::{Level, SetLine};
use std::sync::atomic::Ordering::SeqCst;
use vgic::AccessWidth;

impl Bench {
    pub(super) fn line(&mut self, cpu: usize, intid: u32, high: bool) {
        let level = if high { Level::High } else { Level::Low };
        let line = line_of(cpu, intid);
        if LINKED.contains(&intid) {
            self.physical.drive(line, level);
            self.reference.drive(cpu, intid, high);
            // Make vCPUs with list registers exit: a list register keeps signaling a level after
            // the line has fallen.
            let kicked = (0..AFFINITIES.len()).map(|cpu| self.kicks.flag(cpu));
            kicked.for_each(|kicked| kicked.store(self.has_lists(), SeqCst));
            return;
        }
        let answer = self.gic.set_line(line, level);
        let wired = intid >= 16 && self.reference.any(cpu, intid).is_some();
        assert_eq!(answer != msi_types::Delivery::NoDoorbell, wired, "{line:?}");
        if wired {
            self.reference.drive(cpu, intid, high);
        }
    }

    pub(super) fn ring(&mut self, cpu: usize, intid: u32, set: bool) {
        let register = if set { gicr::SETLPIR } else { gicr::CLRLPIR };
        let width = if intid & 1 == 0 { AccessWidth::Double } else { AccessWidth::Word };
        self.write_gicr(cpu, register.offset(), width, intid.into());
        if self.doorbells == Doorbells::Lpis {
            self.reference.any(cpu, intid).unwrap().latch = set;
        }
    }

    pub(super) fn configure(&mut self, intid: u32, configuration: u8) {
        self.table.0.lock().unwrap()[intid as usize - 8192] = configuration;
        for cpu in 0..AFFINITIES.len() {
            self.write_gicr(cpu, gicr::INVLPIR.offset(), AccessWidth::Double, intid.into());
        }
        self.reference.configure_lpi(intid, configuration);
    }

    pub(super) fn message(&mut self, intid: u32, set: bool) {
        let register = if set { gicd::SETSPI_NSR } else { gicd::CLRSPI_NSR };
        let address = self.gic.config().distributor + u64::from(register.offset());
        let width = if intid & 1 == 0 { AccessWidth::Half } else { AccessWidth::Word };
        self.gic.write_until_done(address, width, intid.into()).unwrap();
        if self.doorbells == Doorbells::Messages {
            self.reference.message(intid, set);
        }
    }

    pub(super) fn write_field(&self, cpu: usize, intid: u32, field: Field, value: u8, wide: bool) {
        let Some((base, location)) = self.locate(cpu, intid, field) else { return };
        let register = base + u64::from(location.register().offset());
        match field {
            Field::Priority => {
                let address = base + u64::from(location.byte_offset());
                self.gic.write_until_done(address, AccessWidth::Byte, value.into()).unwrap();
            }
            Field::Group | Field::Trigger => {
                let old = self.gic.read(register, AccessWidth::Word).unwrap();
                let field =
                    if matches!(field, Field::Group) { value & 1 } else { (value & 1) << 1 };
                let new = location.insert(u32::try_from(old).unwrap(), field.into());
                self.gic.write_until_done(register, AccessWidth::Word, new.into()).unwrap();
            }
            _ if wide => {
                let shift = 8 * (register % 8);
                let value = u64::from(location.mask()) << shift;
                self.gic.write_until_done(register & !7, AccessWidth::Double, value).unwrap();
            }
            _ => self
                .gic
                .write_until_done(register, AccessWidth::Word, location.mask().into())
                .unwrap(),
        }
    }

    pub(super) fn locate(
        &self,
        cpu: usize,
        intid: u32,
        field: Field,
    ) -> Option<(u64, gic_arch::IntIdLocation)> {
        let [distributor, extended, redistributor] = registers(field);
        let config = self.gic.config();
        let frame = config.redistributors[0].base + config.redistributors[0].stride * cpu as u64;
        let intid = IntId::new(intid);
        let shared = distributor.locate(intid).or(extended.locate(intid));
        let private = redistributor.locate(intid);
        shared.map(|at| (config.distributor, at)).or(private.map(|at| (frame, at)))
    }

    pub(super) fn reference_field(&mut self, cpu: usize, intid: u32, field: Field, value: u8) {
        let view = self.reference.view;
        let priority = self.reference.written_priority(value);
        let Some(it) = self.reference.find(cpu, intid) else { return };
        match field {
            Field::Enable => it.enabled = true,
            Field::Disable => it.enabled = false,
            Field::Pend => it.latch = true,
            Field::Unpend => it.latch = false,
            Field::Activate => it.active = true,
            Field::Deactivate => it.deactivate(),
            Field::Group if view == View::Single => it.group = usize::from(value & 1),
            Field::Priority => it.priority = priority,
            Field::Trigger if intid >= 16 => it.edge = value & 1 == 1,
            Field::Group | Field::Trigger => {}
        }
    }

    pub(super) fn route(&mut self, intid: u32, target: usize, wide: bool) {
        let affinity = AFFINITIES.get(target).copied().unwrap_or(Affinity::new(9, 9, 9, 9));
        let register = gicd::irouter(IntId::new(intid)).unwrap();
        let address = self.gic.config().distributor + u64::from(register.offset());
        let value = Irouter::to(affinity).into_bits();
        if wide {
            self.gic.write_until_done(address, AccessWidth::Double, value).unwrap();
        } else {
            self.gic.write_until_done(address, AccessWidth::Word, value & 0xffff_ffff).unwrap();
            self.gic.write_until_done(address + 4, AccessWidth::Word, value >> 32).unwrap();
        }
        if let Some(it) = self.reference.find(0, intid) {
            it.target = Some(target).filter(|target| *target < AFFINITIES.len());
        }
    }

    pub(super) fn control(&mut self, groups: [bool; 2]) {
        let value = u64::from(groups[0]) | u64::from(groups[1]) << 1;
        self.gic.write_until_done(self.gic.config().distributor, AccessWidth::Word, value).unwrap();
        self.reference.enabled = match self.reference.view {
            View::Single => groups,
            View::NonSecure => [false, groups[1]],
        };
    }

    pub(super) fn waker(&mut self, cpu: usize, asleep: bool) {
        self.write_gicr(cpu, gicr::WAKER.offset(), AccessWidth::Word, u64::from(asleep) << 1);
        if self.reference.view == View::Single {
            self.reference.cpus[cpu].awake = !asleep;
        }
    }

    pub(super) fn sgi(&mut self, from: usize, group: usize, target: usize, intid: u32) {
        let number = u8::try_from(intid).unwrap();
        let (value, targets) = if let Some(affinity) = AFFINITIES.get(target) {
            (Sgi::to(number, *affinity), vec![target])
        } else {
            let others = (0..AFFINITIES.len()).filter(|cpu| *cpu != from).collect();
            (Sgi::new().with_intid(number).with_all_but_self(true), others)
        };
        let register = [icc::SGI0R.encoding(), icc::SGI1R.encoding()][group];
        self.msr(from, register, value.into_bits());
        if group == 1 || self.reference.view == View::Single {
            self.reference.send_sgi(&targets, intid, group);
        }
    }
}

/// Returns the register arrays for a field: the distributor's, the distributor's for extended SPIs,
/// and the redistributors'.
fn registers(field: Field) -> [IntIdField; 3] {
    match field {
        Field::Enable => [gicd::ISENABLER, gicd::ISENABLER_E, gicr::ISENABLER],
        Field::Disable => [gicd::ICENABLER, gicd::ICENABLER_E, gicr::ICENABLER],
        Field::Pend => [gicd::ISPENDR, gicd::ISPENDR_E, gicr::ISPENDR],
        Field::Unpend => [gicd::ICPENDR, gicd::ICPENDR_E, gicr::ICPENDR],
        Field::Activate => [gicd::ISACTIVER, gicd::ISACTIVER_E, gicr::ISACTIVER],
        Field::Deactivate => [gicd::ICACTIVER, gicd::ICACTIVER_E, gicr::ICACTIVER],
        Field::Group => [gicd::IGROUPR, gicd::IGROUPR_E, gicr::IGROUPR],
        Field::Priority => [gicd::IPRIORITYR, gicd::IPRIORITYR_E, gicr::IPRIORITYR],
        Field::Trigger => [gicd::ICFGR, gicd::ICFGR_E, gicr::ICFGR],
    }
}

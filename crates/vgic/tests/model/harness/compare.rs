//! Compares the model with the reference.

use super::{Bench, VcpuKind};
use crate::model::half::Half;
use crate::model::ops::{AFFINITIES, Field, Op, PRIVATE, SHARED};
use crate::model::reference::{Interrupt, View};
use gic_arch::icc::{self, SysRegEncoding};
use vgic::AccessWidth;

impl Bench {
    /// Compares the inputs, the running priorities and the highest-priority pending interrupts of
    /// each CPU.
    pub(super) fn compare_signals(&mut self, after: &Op) {
        self.attend();
        for cpu in 0..AFFINITIES.len() {
            self.reference.cpus[cpu].first = self.vcpus[cpu].first_listed();
            let inputs = self.vcpus[cpu].inputs();
            let signalled =
                self.reference.signalled(cpu).map(|at| self.reference.interrupts[at].group);
            assert_eq!(
                [inputs.fiq, inputs.irq],
                [signalled == Some(0), signalled == Some(1)],
                "{after:?}"
            );
            let running = match self.reference.running(cpu) {
                0xff => 0xff,
                running => self.reference.shown_priority(running),
            };
            assert_eq!(
                self.mrs(cpu, icc::RPR.encoding()),
                Some(running.into()),
                "RPR after {after:?}"
            );
            let highest = self.reference.highest(cpu, 1);
            assert_eq!(
                self.mrs(cpu, icc::HPPIR1.encoding()),
                Some(highest.into()),
                "HPPIR1 after {after:?}"
            );
            if self.reference.view == View::Single {
                let highest = self.reference.highest(cpu, 0);
                assert_eq!(
                    self.mrs(cpu, icc::HPPIR0.encoding()),
                    Some(highest.into()),
                    "HPPIR0 after {after:?}"
                );
            }
        }
    }

    fn mrs(&mut self, cpu: usize, register: SysRegEncoding) -> Option<u64> {
        self.vcpus[cpu].read_sysreg(register).ok()
    }

    /// Compares the values of all registers.
    pub(super) fn compare_registers(&mut self) {
        if self.kind == VcpuKind::Software {
            assert_eq!(self.kicks.total(), 0, "no vCPU has left");
        }
        self.vcpus.iter_mut().for_each(Half::leave_guest);
        for cpu in 0..AFFINITIES.len() {
            let mask = self.reference.shown_priority(self.reference.cpus[cpu].mask);
            let mut read = |register| self.vcpus[cpu].read_outside(register);
            assert_eq!(read(icc::PMR.encoding()), Some(mask.into()));
            let binary_point = self.reference.shown_bpr(cpu, 1);
            assert_eq!(read(icc::BPR1.encoding()), Some(binary_point.into()));
            for intid in PRIVATE.iter().chain(&SHARED) {
                self.compare_interrupt(cpu, *intid);
            }
        }
    }

    fn compare_interrupt(&mut self, cpu: usize, intid: u32) {
        let view = self.reference.view;
        let it = self.reference.find(cpu, intid).cloned();
        let flag = |flag: fn(&Interrupt) -> bool| it.as_ref().is_some_and(flag).into();
        let expected = [
            (Field::Enable, flag(|it| it.enabled)),
            (Field::Disable, flag(|it| it.enabled)),
            (Field::Pend, flag(Interrupt::pending)),
            (Field::Unpend, flag(Interrupt::pending)),
            (Field::Activate, flag(|it| it.active)),
            (Field::Deactivate, flag(|it| it.active)),
            (Field::Group, if view == View::Single { flag(|it| it.group == 1) } else { 0 }),
            (
                Field::Priority,
                it.as_ref().map_or(0, |it| self.reference.shown_priority(it.priority).into()),
            ),
            (Field::Trigger, 2 * flag(|it| it.edge)),
        ];
        for (field, value) in expected {
            let (base, location) = self.locate(cpu, intid, field).unwrap();
            let register =
                self.gic.read(base + u64::from(location.register().offset()), AccessWidth::Word);
            let read = location.extract(u32::try_from(register.unwrap()).unwrap());
            assert_eq!(read, value, "{field:?} of {intid} at CPU {cpu}");
        }
    }
}

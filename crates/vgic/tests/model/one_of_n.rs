//! Tests for 1-of-N interrupts (IHI 0069 §2.3.2). Whichever vCPU the model chooses, each interrupt
//! must be delivered once, to a participating vCPU, and must not remain undelivered while a vCPU
//! participates.

use super::half::{ExitPolicy, Half};
use doorbell_test_support::guest::Kicks;
use gic_arch::gicd::{self, Irouter};
use gic_arch::gicr::{self, Waker};
use gic_arch::icc::{self, SysRegEncoding};
use gic_arch::{IntId, IntIdField};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use vgic::{AccessWidth, SecurityView, Vcpu, Vgic, VgicConfig, VmMemory};
use vm_memory::GuestMemoryMmap;

const CPUS: usize = 3;
/// SPIs under test: enabled, edge-triggered, and 1-of-N until a step routes them to a single vCPU.
const SPIS: [u32; 4] = [40, 41, 42, 43];

#[derive(Clone, Copy, Debug)]
enum Op {
    Pend { spi: usize },
    Unpend { spi: usize },
    Enable { spi: usize, on: bool },
    Group { spi: usize, group: usize },
    Route { spi: usize, target: Option<usize> },
    Waker { cpu: usize, asleep: bool },
    Decline { cpu: usize, groups: [bool; 2] },
    GroupEnable { cpu: usize, group: usize, on: bool },
    Take { cpu: usize, group: usize },
    Reset { cpu: usize },
    Migrate,
}

fn ops() -> impl Strategy<Value = Op> {
    let (spi, cpu, group, flag) = (|| 0..SPIS.len(), || 0..CPUS, || 0..2usize, any::<bool>);
    prop_oneof![
        6 => spi().prop_map(|spi| Op::Pend { spi }),
        1 => spi().prop_map(|spi| Op::Unpend { spi }),
        1 => (spi(), flag()).prop_map(|(spi, on)| Op::Enable { spi, on }),
        1 => (spi(), group()).prop_map(|(spi, group)| Op::Group { spi, group }),
        1 => (spi(), proptest::option::of(cpu()))
            .prop_map(|(spi, target)| Op::Route { spi, target }),
        1 => (cpu(), flag()).prop_map(|(cpu, asleep)| Op::Waker { cpu, asleep }),
        1 => (cpu(), any::<[bool; 2]>()).prop_map(|(cpu, groups)| Op::Decline { cpu, groups }),
        3 => (cpu(), group(), flag())
            .prop_map(|(cpu, group, on)| Op::GroupEnable { cpu, group, on }),
        4 => (cpu(), group()).prop_map(|(cpu, group)| Op::Take { cpu, group }),
        1 => cpu().prop_map(|cpu| Op::Reset { cpu }),
        1 => Just(Op::Migrate),
    ]
}

fn no_memory() -> Arc<VmMemory<Arc<GuestMemoryMmap>>> {
    Arc::new(VmMemory(Arc::new(GuestMemoryMmap::new())))
}

/// Known state of an SPI.
#[derive(Clone, Copy, Debug)]
struct Spi {
    pending: bool,
    enabled: bool,
    group: usize,
    /// Target vCPU, or `None` for any.
    target: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Participant {
    asleep: bool,
    declines: [bool; 2],
    enabled: [bool; 2],
}

/// Creates a vCPU's half with its kick flag.
type NewHalf = fn(Vcpu, Arc<AtomicBool>) -> Half;

struct Machine {
    gic: Arc<Vgic>,
    halves: Vec<Half>,
    kicks: Arc<Kicks>,
    half: NewHalf,
    security: SecurityView,
    spis: [Spi; SPIS.len()],
    cpus: [Participant; CPUS],
}

impl Machine {
    fn new(half: NewHalf, security: SecurityView) -> Self {
        let kicks = Arc::new(Kicks::new(CPUS));
        let config = VgicConfig::new(3).with_one_of_n(true).with_spis(32).with_security(security);
        let (gic, vcpus) = Vgic::new(config, no_memory(), kicks.clone()).unwrap();
        let spi = Spi { pending: false, enabled: false, group: 1, target: Some(0) };
        let cpu = Participant { asleep: true, declines: [false; 2], enabled: [false; 2] };
        let halves = Vec::new();
        let mut machine =
            Self { gic, halves, kicks, half, security, spis: [spi; SPIS.len()], cpus: [cpu; CPUS] };
        machine.split(vcpus);
        machine.start();
        machine
    }

    fn split(&mut self, vcpus: Vec<Vcpu>) {
        let half = |vcpu: Vcpu| {
            let kicked = self.kicks.flag(vcpu.cpu().index());
            (self.half)(vcpu, kicked)
        };
        self.halves = vcpus.into_iter().map(half).collect();
    }

    /// Saves the machine and restores the state into a new machine, which replaces it.
    fn migrate(&mut self) {
        let paused: Vec<_> = self.halves.iter_mut().map(Half::pause).collect();
        let saved = self.gic.save().unwrap();
        drop(paused);
        let config = self.gic.config().clone();
        let (gic, mut vcpus) = Vgic::new(config, no_memory(), self.kicks.clone()).unwrap();
        let paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
        gic.restore(&saved).unwrap();
        drop(paused);
        self.gic = gic;
        self.split(vcpus);
    }

    fn start(&mut self) {
        self.gic.write_until_done(self.gic.config().distributor, AccessWidth::Word, 3).unwrap();
        for spi in 0..SPIS.len() {
            self.replace(gicd::ICFGR, spi, 2);
            self.apply(&Op::Group { spi, group: 1 });
            self.apply(&Op::Enable { spi, on: true });
            self.apply(&Op::Route { spi, target: None });
        }
        for cpu in 0..CPUS {
            self.apply(&Op::Waker { cpu, asleep: false });
            self.msr(cpu, icc::PMR.encoding(), 0xff);
            self.apply(&Op::GroupEnable { cpu, group: 1, on: true });
        }
    }

    /// Writes a one to an SPI's bit in a write-1 register.
    fn set(&self, field: IntIdField, spi: usize) {
        let at = field.locate(IntId::new(SPIS[spi])).unwrap();
        let address = self.gic.config().distributor + u64::from(at.register().offset());
        self.gic.write_until_done(address, AccessWidth::Word, at.mask().into()).unwrap();
    }

    /// Replaces an SPI's field.
    fn replace(&self, field: IntIdField, spi: usize, value: u32) {
        let at = field.locate(IntId::new(SPIS[spi])).unwrap();
        let address = self.gic.config().distributor + u64::from(at.register().offset());
        let old = self.gic.read(address, AccessWidth::Word).unwrap();
        let new = at.insert(u32::try_from(old).unwrap(), value);
        self.gic.write_until_done(address, AccessWidth::Word, new.into()).unwrap();
    }

    fn write_gicr(&self, cpu: usize, offset: u32, value: u32) {
        let region = self.gic.config().redistributors[0];
        let address = region.base + region.stride * cpu as u64 + u64::from(offset);
        self.gic.write_until_done(address, AccessWidth::Word, value.into()).unwrap();
    }

    fn msr(&mut self, cpu: usize, register: SysRegEncoding, value: u64) {
        self.halves[cpu].write_sysreg(register, value).unwrap();
    }

    /// Returns `true` if the guest's security view supports the operation. The Non-secure side has
    /// neither Group 0 nor `GICR_WAKER`.
    fn exists(&self, op: &Op) -> bool {
        let secure = match *op {
            Op::Group { group, .. } | Op::GroupEnable { group, .. } | Op::Take { group, .. } => {
                group == 0
            }
            Op::Waker { asleep, .. } => asleep,
            _ => false,
        };
        self.security == SecurityView::Single || !secure
    }

    fn apply(&mut self, op: &Op) {
        if self.exists(op) {
            self.apply_existing(op);
        }
    }

    fn apply_existing(&mut self, op: &Op) {
        match *op {
            Op::Pend { spi } => {
                self.set(gicd::ISPENDR, spi);
                self.spis[spi].pending = true;
            }
            Op::Unpend { spi } => {
                self.set(gicd::ICPENDR, spi);
                self.spis[spi].pending = false;
            }
            Op::Enable { spi, on } => {
                self.set(if on { gicd::ISENABLER } else { gicd::ICENABLER }, spi);
                self.spis[spi].enabled = on;
            }
            Op::Group { spi, group } => {
                self.replace(gicd::IGROUPR, spi, u32::from(group == 1));
                self.spis[spi].group = group;
            }
            Op::Route { spi, target } => self.route(spi, target),
            Op::Waker { cpu, asleep } => {
                let value = Waker::new().with_processor_sleep(asleep);
                self.write_gicr(cpu, gicr::WAKER.offset(), value.into_bits());
                self.cpus[cpu].asleep = asleep;
            }
            Op::Decline { cpu, groups: [zero, one] } => {
                let value = gicr::Ctlr::new().with_dpg0(zero).with_dpg1_ns(one);
                self.write_gicr(cpu, gicr::CTLR.offset(), value.into_bits());
                self.cpus[cpu].declines = [zero, one];
            }
            Op::GroupEnable { cpu, group, on } => {
                let register = [icc::IGRPEN0.encoding(), icc::IGRPEN1.encoding()][group];
                self.msr(cpu, register, on.into());
                self.cpus[cpu].enabled[group] = on;
            }
            Op::Take { cpu, group } => {
                let _ = self.take(cpu, group);
            }
            Op::Reset { cpu } => {
                self.halves[cpu].reset();
                self.cpus[cpu].enabled = [false; 2];
                self.msr(cpu, icc::PMR.encoding(), 0xff);
            }
            Op::Migrate => self.migrate(),
        }
        self.attend();
    }

    fn route(&mut self, spi: usize, target: Option<usize>) {
        let route = match target {
            Some(cpu) => Irouter::to(self.gic.config().cpus[cpu].affinity),
            None => Irouter::new().with_any_participating(true),
        };
        let register = gicd::irouter(IntId::new(SPIS[spi])).unwrap();
        let address = self.gic.config().distributor + u64::from(register.offset());
        self.gic.write_until_done(address, AccessWidth::Double, route.into_bits()).unwrap();
        self.spis[spi].target = target;
    }

    /// Handles kicks until no more kicks arrive, because an exit may make an interrupt pending at
    /// another vCPU.
    fn attend(&mut self) {
        for _ in 0..=CPUS {
            self.halves.iter_mut().for_each(Half::attend);
        }
    }

    /// Makes the vCPU acknowledge and end the signaled interrupt if the interrupt is in `group`.
    fn take(&mut self, cpu: usize, group: usize) -> bool {
        let (acknowledge, end) = [
            (icc::IAR0.encoding(), icc::EOIR0.encoding()),
            (icc::IAR1.encoding(), icc::EOIR1.encoding()),
        ][group];
        let intid = self.halves[cpu].read_sysreg(acknowledge).unwrap();
        let Some(spi) = SPIS.iter().position(|spi| u64::from(*spi) == intid) else {
            assert_eq!(intid, 1023);
            return false;
        };
        assert!(
            self.goes_to(spi, cpu),
            "vCPU {cpu} received SPI {spi}: {:?}, {:?}",
            self.spis[spi],
            self.cpus[cpu]
        );
        self.spis[spi].pending = false;
        self.msr(cpu, end, intid);
        self.attend();
        true
    }

    /// Returns `true` if the SPI is pending and the vCPU may acknowledge it.
    fn goes_to(&self, spi: usize, cpu: usize) -> bool {
        let (it, at) = (self.spis[spi], self.cpus[cpu]);
        let takes = !at.asleep && at.enabled[it.group];
        let chosen = match it.target {
            Some(target) => target == cpu,
            None => !at.declines[it.group],
        };
        it.pending && it.enabled && takes && chosen
    }

    /// Makes the vCPUs handle all deliverable interrupts.
    fn drain(&mut self) {
        let turns =
            (0..2 * SPIS.len()).flat_map(|_| (0..CPUS).flat_map(|cpu| [(cpu, 0), (cpu, 1)]));
        for (cpu, group) in turns {
            self.apply(&Op::Take { cpu, group });
        }
        for spi in 0..SPIS.len() {
            let left = (0..CPUS).find(|cpu| self.goes_to(spi, *cpu));
            assert_eq!(
                left, None,
                "SPI {spi} was left behind: {:?}, {:?}",
                self.spis[spi], self.cpus
            );
        }
    }

    /// Checks that an interrupt is signaled to some vCPU exactly if an SPI is deliverable to a
    /// vCPU.
    fn check(&mut self) {
        let waits = (0..SPIS.len()).any(|spi| (0..CPUS).any(|cpu| self.goes_to(spi, cpu)));
        let signalled =
            self.halves.iter_mut().map(Half::inputs).filter(|inputs| inputs.any()).count();
        assert_eq!(signalled > 0, waits, "{:?}, {:?}", self.spis, self.cpus);
    }
}

fn software(vcpu: Vcpu, _: Arc<AtomicBool>) -> Half {
    Half::Software(vcpu)
}

fn lists<const COUNT: u8>(vcpu: Vcpu, kicked: Arc<AtomicBool>) -> Half {
    Half::lists(vcpu, COUNT, ExitPolicy::Needed, kicked)
}

/// Generates a kind of CPU interface: software in either security view, or 16 list registers, or
/// one list register.
fn halves() -> impl Strategy<Value = (NewHalf, SecurityView)> {
    prop_oneof![
        Just((software as NewHalf, SecurityView::Single)),
        Just((software as NewHalf, SecurityView::NonSecure)),
        Just((lists::<16> as NewHalf, SecurityView::Single)),
        Just((lists::<1> as NewHalf, SecurityView::Single)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn one_participant_takes_each_one_of_n_interrupt(
        (half, security) in halves(),
        ops in proptest::collection::vec(ops(), 1..100),
    ) {
        let mut machine = Machine::new(half, security);
        for op in ops {
            machine.apply(&op);
            machine.check();
        }
        machine.drain();
    }
}

//! Tests for 1-of-N interrupts (IHI 0069 §2.3.2). Whichever vCPU the model chooses, each interrupt
//! must be delivered once, to a participating vCPU, and must not remain undelivered while a vCPU
//! participates.

use crate::programs::Listed;
use doorbell_test_support::guest::{Interface, Machine, Ram, memory};
use gic_arch::IntId;
use gic_arch::gicd::{self, Irouter};
use gic_arch::gicr::{self, Waker};
use gic_arch::icc;
use proptest::prelude::*;
use vgic::{SecurityView, Vcpu, VgicConfig, VmMemory};

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

struct Bench<C> {
    machine: Machine<VmMemory<Ram>, C>,
    security: SecurityView,
    spis: [Spi; SPIS.len()],
    cpus: [Participant; CPUS],
}

impl<C: Interface> Bench<C> {
    fn run(security: SecurityView, ops: &[Op]) {
        let config = VgicConfig::new(3).with_one_of_n(true).with_spis(32).with_security(security);
        let machine = Machine::with_interfaces(config, memory());
        let spi = Spi { pending: false, enabled: false, group: 1, target: Some(0) };
        let cpu = Participant { asleep: true, declines: [false; 2], enabled: [false; 2] };
        let mut bench = Self { machine, security, spis: [spi; SPIS.len()], cpus: [cpu; CPUS] };
        bench.start();
        for op in ops {
            bench.apply(op);
            bench.check();
        }
        bench.drain();
    }

    fn start(&mut self) {
        self.machine.write_gicd(gicd::CTLR, gicd::Ctlr::from(3));
        for (spi, intid) in SPIS.into_iter().enumerate() {
            self.machine.make_edge(intid);
            self.apply(&Op::Group { spi, group: 1 });
            self.apply(&Op::Enable { spi, on: true });
            self.apply(&Op::Route { spi, target: None });
        }
        for cpu in 0..CPUS {
            self.apply(&Op::Waker { cpu, asleep: false });
            self.machine.msr(cpu, icc::PMR.encoding(), 0xff);
            self.apply(&Op::GroupEnable { cpu, group: 1, on: true });
        }
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
                self.machine.set_bit(gicd::ISPENDR, SPIS[spi]);
                self.spis[spi].pending = true;
            }
            Op::Unpend { spi } => {
                self.machine.set_bit(gicd::ICPENDR, SPIS[spi]);
                self.spis[spi].pending = false;
            }
            Op::Enable { spi, on } => {
                let field = if on { gicd::ISENABLER } else { gicd::ICENABLER };
                self.machine.set_bit(field, SPIS[spi]);
                self.spis[spi].enabled = on;
            }
            Op::Group { spi, group } => {
                let at = gicd::IGROUPR.locate(IntId::new(SPIS[spi])).unwrap();
                let old = u32::try_from(self.machine.read_gicd(at.register())).unwrap();
                self.machine.write_gicd(at.register(), at.insert(old, u32::from(group == 1)));
                self.spis[spi].group = group;
            }
            Op::Route { spi, target } => self.route(spi, target),
            Op::Waker { cpu, asleep } => {
                let value = Waker::new().with_processor_sleep(asleep);
                self.machine.write_gicr(cpu, gicr::WAKER, value);
                self.cpus[cpu].asleep = asleep;
            }
            Op::Decline { cpu, groups: [zero, one] } => {
                let value = gicr::Ctlr::new().with_dpg0(zero).with_dpg1_ns(one);
                self.machine.write_gicr(cpu, gicr::CTLR, value);
                self.cpus[cpu].declines = [zero, one];
            }
            Op::GroupEnable { cpu, group, on } => {
                let register = [icc::IGRPEN0.encoding(), icc::IGRPEN1.encoding()][group];
                self.machine.msr(cpu, register, on.into());
                self.cpus[cpu].enabled[group] = on;
            }
            Op::Take { cpu, group } => {
                let _ = self.take(cpu, group);
            }
            Op::Reset { cpu } => {
                self.machine.vcpus[cpu].reset();
                self.cpus[cpu].enabled = [false; 2];
                self.machine.msr(cpu, icc::PMR.encoding(), 0xff);
            }
            Op::Migrate => {
                let saved = self.machine.save();
                self.machine = self.machine.successor();
                self.machine.restore(&saved);
            }
        }
        self.attend();
    }

    fn route(&mut self, spi: usize, target: Option<usize>) {
        let route = match target {
            Some(cpu) => Irouter::to(self.machine.gic.config().cpus[cpu].affinity),
            None => Irouter::new().with_any_participating(true),
        };
        self.machine.write_gicd(gicd::irouter(IntId::new(SPIS[spi])).unwrap(), route);
        self.spis[spi].target = target;
    }

    /// Handles kicks until no more kicks arrive, because an exit may make an interrupt pending at
    /// another vCPU.
    fn attend(&mut self) {
        for _ in 0..=CPUS {
            self.machine.vcpus.iter_mut().for_each(C::attend);
        }
    }

    /// Makes the vCPU acknowledge and end the signaled interrupt if the interrupt is in `group`.
    fn take(&mut self, cpu: usize, group: usize) -> bool {
        let (acknowledge, end) = [
            (icc::IAR0.encoding(), icc::EOIR0.encoding()),
            (icc::IAR1.encoding(), icc::EOIR1.encoding()),
        ][group];
        let intid = self.machine.mrs(cpu, acknowledge);
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
        self.machine.msr(cpu, end, intid);
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
        let is_signaled = self.machine.vcpus.iter_mut().any(C::is_signaled);
        assert_eq!(is_signaled, waits, "{:?}, {:?}", self.spis, self.cpus);
    }
}

/// Runs operations in this security view.
type Run = fn(SecurityView, &[Op]);

/// Generates a kind of CPU interface: software in either security view, or 16 list registers, or
/// one list register.
fn kinds() -> impl Strategy<Value = (Run, SecurityView)> {
    prop_oneof![
        Just((Bench::<Vcpu>::run as Run, SecurityView::Single)),
        Just((Bench::<Vcpu>::run as Run, SecurityView::NonSecure)),
        Just((Bench::<Listed<16>>::run as Run, SecurityView::Single)),
        Just((Bench::<Listed<1>>::run as Run, SecurityView::Single)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn one_participant_takes_each_one_of_n_interrupt(
        (run, security) in kinds(),
        ops in proptest::collection::vec(ops(), 1..100),
    ) {
        run(security, &ops);
    }
}

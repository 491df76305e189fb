//! Scenarios for wired interrupts in the actual model. The interrupts fire while their vCPU handles
//! interrupts, falls asleep, or fills and folds its list registers.
//!
//! Linked interrupts are also unlinked, linked again, and deactivated through a register at the
//! same time. The physical interrupt that the hypervisor acknowledged must be deactivated exactly
//! once.

use super::explore_random;
use super::machine::Kicks;
use crate::VgicConfig;
use crate::wakeup::{VcpuWakeup, WakeupWord};
use crate::wired::index::WiredIndex;
use crate::wired::interrupt::InterruptWord;
use crate::wired::{Filled, Forwarding, PhysicalInterrupts, Wired, send_sgi};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use gic_arch::IntId;
use gic_arch::icc::Sgi;
use gic_arch::ich::ListRegister;
use gic_arch::ich::ListRegisterState::{self, Active, Invalid, Pending, PendingActive};
use msi_types::explain::Group;
use msi_types::{Cpu, Level, Line};
use shuttle::thread;

const CPU: Cpu = Cpu::new(0);
const SPI: u32 = 40;
pub(super) const LINE: Line = Line::Spi(SPI);

/// Default number of executions per check. Each execution is slow, because it creates all wired
/// interrupts.
const RANDOM: usize = 500;

/// A machine with two vCPUs and an edge-triggered, enabled SPI.
pub(super) struct WiredMachine {
    pub(super) wired: Wired,
    wakeup: Arc<VcpuWakeup>,
    pub(super) kicks: Arc<Kicks>,
}

pub(super) fn index() -> WiredIndex {
    WiredIndex::of(IntId::new(SPI)).unwrap()
}

impl WiredMachine {
    /// Creates a machine whose SPI is routed to vCPU 0.
    fn new() -> Self {
        Self::of(&VgicConfig::new(2))
    }

    pub(super) fn of(config: &VgicConfig) -> Self {
        let kicks = Kicks::new();
        let wakeup = Arc::new(VcpuWakeup::new(2, kicks.clone()).unwrap());
        let wired = Wired::new(config, wakeup.clone()).unwrap();
        wired.set_control(|_| 0b11);
        wired.change(CPU, index().intid(), |state| state.with_edge(true).with_enabled(true));
        Self { wired, wakeup, kicks }
    }

    fn state(&self) -> InterruptWord {
        self.wired.state(CPU, index())
    }

    pub(super) fn ready(&self, cpu: Cpu) -> Option<InterruptWord> {
        let mut found = None;
        self.wired.ready(cpu, |_, state| found = Some(state));
        found
    }

    /// Acknowledges the interrupt if it is ready, runs its handler, and ends it.
    fn handle(&self, handler: impl FnOnce()) -> bool {
        let taken = self
            .ready(CPU)
            .is_some_and(|state| self.wired.acknowledge(CPU, index(), state).is_some());
        if taken {
            handler();
            self.wired.deactivate(CPU, index().intid());
        }
        taken
    }

    /// Returns a vCPU's wake-up word.
    pub(super) fn word(&self, cpu: Cpu) -> &WakeupWord {
        &self.wakeup.words()[cpu.index()]
    }

    /// Prepares to sleep. Returns `true` if the vCPU sleeps.
    fn leave(&self) -> bool {
        self.word(CPU).leave_unless(|| self.ready(CPU).is_some())
    }

    /// Enters the guest, with the interrupt in a list register if possible.
    pub(super) fn fill(&self, cpu: Cpu) -> Option<Filled> {
        self.word(cpu).enter();
        let mut seen = None;
        self.wired.listable(cpu, |_, state| seen = Some(state));
        let active = || Some(self.state()).filter(|state| state.active_at(cpu));
        self.wired.list(cpu, index(), seen.or_else(active)?, Forwarding::Enabled)
    }

    /// Exits the guest, which left the filled list register in this state.
    pub(super) fn exit(&self, cpu: Cpu, filled: Option<(Filled, ListRegisterState)>) {
        if let Some((filled, left)) = filled {
            let _ = self.wired.fold(cpu, index(), filled, ListRegister::new().with_state(left));
        }
        self.word(cpu).returned();
        self.wakeup.folded(self.word(cpu));
    }
}

pub(super) fn spawn<T: Send + 'static>(
    machine: &Arc<WiredMachine>,
    act: impl FnOnce(&WiredMachine) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let machine = machine.clone();
    thread::spawn(move || act(&machine))
}

/// The interrupt fires while the vCPU falls asleep. If the interrupt has also fired before, the
/// vCPU first handles the earlier occurrence.
fn one_fires_at_a_sleeper(has_fired: bool) {
    let machine = Arc::new(WiredMachine::new());
    if has_fired {
        machine.wired.pulse(LINE);
    }
    let device = spawn(&machine, |machine| machine.wired.pulse(LINE));
    if has_fired {
        assert!(machine.handle(|| {}));
    }
    let sleeps = machine.leave();
    device.join().unwrap();
    let ready = machine.state().ready_at(CPU);
    assert_eq!(machine.ready(CPU).is_some(), ready, "a candidate was lost");
    let kicks = machine.kicks.count(CPU);
    assert!(kicks <= 1 && (!(ready && sleeps) || kicks == 1), "slept despite a ready interrupt");
}

#[test]
fn a_wired_interrupt_wakes_a_vcpu_falling_asleep() {
    for has_fired in [false, true] {
        explore_random(4 * RANDOM, move || one_fires_at_a_sleeper(has_fired));
    }
}

/// Another vCPU sends an SGI while the vCPU falls asleep and the distributor's group is enabled.
fn an_sgi_is_sent_to_a_sleeper() {
    const SGI_1_TO_OTHERS: u64 = 1 << 40 | 1 << 24;
    let machine = Arc::new(WiredMachine::new());
    machine.wired.change(CPU, IntId::new(1), |state| state.with_enabled(true));
    machine.wired.set_control(|_| 0);
    let sender = spawn(&machine, |machine| {
        send_sgi(&machine.wired, Cpu::new(1), Sgi::from(SGI_1_TO_OTHERS), Group::Zero);
    });
    let enabler = spawn(&machine, |machine| machine.wired.set_control(|_| 0b11));
    let finds = || machine.wired.forwards(Group::Zero) && machine.ready(CPU).is_some();
    let sleeps = machine.word(CPU).leave_unless(finds);
    sender.join().unwrap();
    enabler.join().unwrap();
    assert!(machine.ready(CPU).is_some(), "the SGI was lost");
    assert!(!sleeps || machine.kicks.count(CPU) == 1, "slept despite an SGI");
}

#[test]
fn an_sgi_wakes_a_vcpu_falling_asleep() {
    explore_random(4 * RANDOM, an_sgi_is_sent_to_a_sleeper);
}

/// Two devices share an interrupt. Each device writes its number and sends an edge; the second
/// device waits until the first edge has been handled. The vCPU reads both numbers whenever it
/// handles the interrupt.
fn two_pulse_one() {
    let machine = Arc::new(WiredMachine::new());
    let sent = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let first = {
        let sent = sent.clone();
        spawn(&machine, move |machine| {
            sent[0].store(1, SeqCst);
            machine.wired.pulse(LINE);
        })
    };
    let mut seen = [0; 2];
    let mut handle = || machine.handle(|| seen = [0, 1].map(|device| sent[device].load(SeqCst)));
    while !handle() {
        thread::yield_now();
    }
    sent[1].store(1, SeqCst);
    machine.wired.pulse(LINE);
    first.join().unwrap();
    while handle() {}
    assert_eq!(seen, [1, 1], "an edge was lost");
}

#[test]
fn an_edge_from_each_of_two_devices_is_handled() {
    explore_random(RANDOM, two_pulse_one);
}

const PHYSICAL: IntId = IntId::new(77);

/// Active state of the physical interrupt.
struct Physical(AtomicBool);

impl Physical {
    fn end(&self) {
        assert!(self.0.swap(false, SeqCst), "the physical interrupt was deactivated twice");
    }
}

impl PhysicalInterrupts for Physical {
    fn level(&self, _: Line, _: IntId) -> Level {
        Level::Low
    }

    fn deactivate(&self, line: Line, physical: IntId) {
        assert_eq!((line, physical), (LINE, PHYSICAL));
        self.end();
    }
}

/// Action of the guest on its list registers.
#[derive(Clone, Copy)]
enum WiredAction {
    Masks,
    Acknowledges,
    Ends,
}

impl WiredAction {
    fn leaves(self, filled: ListRegisterState) -> ListRegisterState {
        match (self, filled) {
            (Self::Acknowledges, Pending) => Active,
            (Self::Ends, PendingActive) => Pending,
            (Self::Ends, _) => Invalid,
            (Self::Masks | Self::Acknowledges, _) => filled,
        }
    }
}

/// A machine with an SPI linked to a physical interrupt. The physical interrupt has fired, and the
/// hypervisor has acknowledged it.
struct Linked {
    machine: WiredMachine,
    physical: Arc<Physical>,
}

impl Linked {
    fn fired() -> Arc<Self> {
        let physical = Arc::new(Physical(AtomicBool::new(true)));
        let machine = WiredMachine::new();
        assert!(machine.wired.serve_physical(physical.clone()).is_ok());
        machine.wired.link(LINE, Some(PHYSICAL)).unwrap();
        machine.wired.pulse(LINE);
        Arc::new(Self { machine, physical })
    }

    /// Makes the vCPU enter and exit once. The hardware deactivates a linked physical interrupt
    /// together with the virtual interrupt.
    fn run(&self, guest: WiredAction) {
        let Some(filled) = self.machine.fill(CPU) else { return self.machine.exit(CPU, None) };
        thread::yield_now();
        let now = guest.leaves(filled.state);
        if now == Invalid && filled.physical.is_some() {
            self.physical.end();
        }
        self.machine.exit(CPU, Some((filled, now)));
    }

    /// Checks that the physical interrupt can fire again after the guest has ended all interrupts.
    fn check(&self) {
        for _ in 0..3 {
            self.run(WiredAction::Ends);
        }
        let state = self.machine.state();
        assert!(!state.pending() && !state.active() && !state.physical_active(), "{state:?}");
        assert!(!self.physical.0.load(SeqCst), "the physical interrupt stays active forever");
    }
}

/// The vCPU runs twice while another vCPU clears the active state and the line is unlinked.
fn unlinked(guest: WiredAction, unlink: fn(&Wired)) {
    let machine = Linked::fired();
    let vcpu = {
        let machine = machine.clone();
        thread::spawn(move || [guest, WiredAction::Acknowledges].map(|guest| machine.run(guest)))
    };
    let other = {
        let machine = machine.clone();
        thread::spawn(move || machine.machine.wired.deactivate(CPU, index().intid()))
    };
    unlink(&machine.machine.wired);
    vcpu.join().unwrap();
    other.join().unwrap();
    machine.check();
}

fn unlink(wired: &Wired) {
    wired.link(LINE, None).unwrap();
}

fn unlink_and_link(wired: &Wired) {
    unlink(wired);
    wired.link(LINE, Some(PHYSICAL)).unwrap();
}

#[test]
fn the_physical_interrupt_of_an_unlinked_line_is_deactivated_once() {
    for change in [unlink, unlink_and_link] {
        for guest in [WiredAction::Masks, WiredAction::Acknowledges, WiredAction::Ends] {
            explore_random(RANDOM, move || unlinked(guest, change));
        }
    }
}

/// Level-sensitive physical interrupt, with its input level and active state.
#[derive(Default)]
struct PhysicalLine {
    high: AtomicBool,
    active: AtomicBool,
}

impl PhysicalLine {
    /// Fires the physical interrupt if its input is high and it is inactive. The hypervisor then
    /// acknowledges it.
    fn fire(&self, wired: &Wired) {
        if self.high.load(SeqCst) && !self.active.swap(true, SeqCst) {
            let _ = wired.drive(LINE, Level::High);
        }
    }
}

impl PhysicalInterrupts for PhysicalLine {
    fn level(&self, _: Line, _: IntId) -> Level {
        if self.high.load(SeqCst) { Level::High } else { Level::Low }
    }

    fn deactivate(&self, _: Line, _: IntId) {
        assert!(self.active.swap(false, SeqCst), "the physical interrupt was deactivated twice");
    }
}

/// The input falls and rises again, while one vCPU reads `ISPENDR` and the target's guest runs with
/// interrupts masked.
fn a_level_bounces() {
    let input = Arc::new(PhysicalLine::default());
    let machine = Arc::new(WiredMachine::new());
    machine.wired.change(CPU, index().intid(), |state| state.with_edge(false));
    assert!(machine.wired.serve_physical(input.clone()).is_ok());
    machine.wired.link(LINE, Some(PHYSICAL)).unwrap();
    input.high.store(true, SeqCst);
    input.fire(&machine.wired);
    let reader = spawn(&machine, |machine| machine.wired.pending_bits(CPU, IntId::new(SPI & !31)));
    let vcpu = spawn(&machine, |machine| {
        let filled = machine.fill(CPU);
        thread::yield_now();
        machine.exit(CPU, filled.map(|filled| (filled, filled.state)));
    });
    input.high.store(false, SeqCst);
    input.high.store(true, SeqCst);
    input.fire(&machine.wired);
    reader.join().unwrap();
    vcpu.join().unwrap();
    input.fire(&machine.wired);
    assert!(machine.state().ready_at(CPU) && input.active.load(SeqCst), "the level was lost");
    input.high.store(false, SeqCst);
    assert!(machine.ready(CPU).is_none(), "the level has fallen");
    assert!(!input.active.load(SeqCst), "the physical interrupt cannot fire again");
}

#[test]
fn a_level_that_rises_again_is_not_lost() {
    explore_random(RANDOM, a_level_bounces);
}

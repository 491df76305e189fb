//! Tests that masked vectors in host bridges keep their arrivals over suspensions. The driver
//! programs the strict model, and a set of waiting vectors states which must be dispatched.

use doorbell_hardware::bridge_msi::{BridgeMsi as Hardware, BridgeMsiKind, GlueRegister, Summary};
use doorbell_hardware::bus::{AccessWidth, Bus, MmioDevice};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::{Caches, Ram};
use gic_driver::{BridgeKind, BridgeMsi, BridgeMsiConfig};
use gic_firmware::Region;
use msi_types::pci::MsiGate;
use msi_types::{
    BlockRequest, Cpu, Delivery, Fit, HwIrq, Level, Line, MsiError, MsiMessage, MsiParent, Pending,
    RequesterId, Rewrite, SetLine, Trigger, WiredParent,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const REGISTERS: u64 = 0x3000_0000;
/// Page of the register that may be the gate.
const GLUE: u64 = 0x3001_0000;
/// Offset of the status of MediaTek's second block.
const STATUS_OF_BLOCK_1: u64 = 0xc14;
/// Vectors per machine: more than a block.
const VECTORS: usize = 48;
/// Maximum number of runs of a line's handler before the line must be low.
const RUNS: usize = 20;

/// The GIC's inputs: the level that the bridge drives, and what software made pending.
#[derive(Default)]
struct Wires([(AtomicBool, AtomicBool); 2]);

impl Wires {
    /// Takes a line's interrupt. Returns `false` if it is neither high nor pending.
    fn takes(&self, line: usize) -> bool {
        let (level, pending) = &self.0[line];
        pending.swap(false, Ordering::SeqCst) || level.load(Ordering::SeqCst)
    }
}

impl SetLine for Wires {
    fn set_line(&self, line: Line, level: Level) -> Delivery {
        let Line::Spi(line) = line else { return Delivery::Blocked };
        self.0[HwIrq::new(line).index()].0.store(level == Level::High, Ordering::SeqCst);
        Delivery::Pending
    }
    fn pulse(&self, _: Line) -> Delivery {
        Delivery::Blocked
    }
}

impl WiredParent for Wires {
    fn claim(&self, _: HwIrq, _: NonZeroU16) -> Result<(), MsiError> {
        Ok(())
    }
    fn release(&self, _: HwIrq, _: NonZeroU16) {}
    fn set_trigger(&self, _: HwIrq, _: Trigger) -> Result<(), MsiError> {
        Ok(())
    }
    fn set_target(&self, _: HwIrq, _: Cpu) -> Result<(), MsiError> {
        Ok(())
    }
    fn mask(&self, _: HwIrq) {}
    fn unmask(&self, _: HwIrq) {}
    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        self.0[hwirq.index()].1.store(pending == Pending::Set, Ordering::SeqCst);
    }
    fn is_pending(&self, hwirq: HwIrq) -> bool {
        self.0[hwirq.index()].1.load(Ordering::SeqCst)
    }
}

/// The registers of a controller that messages reach just before the driver acknowledges others.
struct Late {
    hardware: Arc<Hardware>,
    /// Messages for each of the next acknowledgments of block 1, the next one last.
    messages: Mutex<Vec<Vec<MsiMessage>>>,
}

impl MmioDevice for Late {
    fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        self.hardware.read(offset, width)
    }
    fn write(&self, offset: u64, width: AccessWidth, value: u64) {
        if offset == STATUS_OF_BLOCK_1 {
            let messages = self.messages.lock().unwrap().pop();
            for message in messages.iter().flatten() {
                self.hardware.take(*message);
            }
        }
        self.hardware.write(offset, width, value);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Mask(usize),
    Unmask(usize),
    SetPending(usize),
    ClearPending(usize),
    /// The bridge loses its power over a suspension.
    Suspend,
    /// The CPU takes interrupts until all lines are low.
    Run,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let vector = || prop_oneof![0..3_usize, 0..VECTORS];
    let step = prop_oneof![
        3 => vector().prop_map(Step::Send),
        2 => vector().prop_map(Step::Mask),
        2 => vector().prop_map(Step::Unmask),
        1 => vector().prop_map(Step::SetPending),
        1 => vector().prop_map(Step::ClearPending),
        1 => Just(Step::Suspend),
        2 => Just(Step::Run),
    ];
    proptest::collection::vec(step, 1..60)
}

type Behavior = (BridgeMsiKind, Summary, Option<MsiGate>);

struct Bridge {
    hardware: Arc<Hardware>,
    late: Arc<Late>,
    wires: Arc<Wires>,
    driver: BridgeMsi<MachinePlatform>,
    vectors: Vec<(HwIrq, MsiMessage)>,
    /// Vectors whose arrival has not been dispatched.
    waiting: BTreeSet<HwIrq>,
    masked: BTreeSet<HwIrq>,
}

impl Bridge {
    fn new(kind: BridgeKind, (model, summary, gate): Behavior, lines: u32) -> Self {
        let wires = Arc::new(Wires::default());
        let inputs = (0..lines).map(Line::Spi).collect();
        let hardware = Hardware::new(model, inputs, wires.clone());
        let hardware = Arc::new(hardware.with_summary(summary).with_gate(gate));
        let mut bus = Bus::default();
        let region = Region::new(REGISTERS, 0x1000).unwrap();
        let late = Arc::new(Late { hardware: hardware.clone(), messages: Mutex::default() });
        bus.attach("bridge", region, late.clone()).unwrap();
        let page = Region::new(GLUE, 0x1000).unwrap();
        bus.attach("glue", page, Arc::new(GlueRegister(hardware.clone()))).unwrap();
        let ram = Arc::new(Ram::new(&[], Caches::Snooped));
        let platform = Arc::new(MachinePlatform::new(Arc::new(bus), ram));
        let config = BridgeMsiConfig::new(kind, REGISTERS, (0..lines).map(HwIrq::new).collect())
            .with_shared_line(true)
            .with_gate(gate);
        let driver = BridgeMsi::new(platform, wires.clone(), config).unwrap();
        let device = driver.attach(RequesterId::new(1), 1).unwrap();
        let fit = Fit::new(Rewrite::Never).with_address_bits(64).with_data_bits(16);
        let request = BlockRequest::new(NonZeroU16::MIN, fit, Cpu::new(0));
        let vectors = (0..VECTORS).map(|_| {
            let block = driver.allocate(&device, &request).unwrap();
            (block.first(), driver.compose(&block, 0).unwrap())
        });
        let vectors = vectors.collect();
        let (waiting, masked) = Default::default();
        Self { hardware, late, wires, driver, vectors, waiting, masked }
    }

    fn step(&mut self, step: &Step) {
        let hwirq = |vector: usize| self.vectors[vector].0;
        match *step {
            Step::Send(vector) => {
                let (hwirq, message) = self.vectors[vector];
                assert_eq!(self.hardware.take(message), Some(Delivery::Pending));
                self.waiting.insert(hwirq);
            }
            Step::Mask(vector) => {
                self.driver.mask(hwirq(vector));
                self.masked.insert(hwirq(vector));
            }
            Step::Unmask(vector) => {
                self.driver.unmask(hwirq(vector));
                self.masked.remove(&hwirq(vector));
            }
            Step::SetPending(vector) => {
                self.driver.set_pending(hwirq(vector), Pending::Set);
                self.waiting.insert(hwirq(vector));
            }
            Step::ClearPending(vector) => {
                self.driver.set_pending(hwirq(vector), Pending::Clear);
                self.waiting.remove(&hwirq(vector));
            }
            Step::Suspend => {
                self.driver.suspend();
                self.hardware.lose_power();
                self.driver.restore();
            }
            Step::Run => self.run(),
        }
        for (hwirq, _) in &self.vectors {
            assert_eq!(self.driver.is_pending(*hwirq), Some(self.waiting.contains(hwirq)));
        }
        // MediaTek's controller has no masks.
        if self.driver.kind() == BridgeKind::ImsiRx {
            let due = self.waiting.difference(&self.masked);
            let lines: BTreeSet<_> = due.filter_map(|one| self.driver.line(*one)).collect();
            for line in self.driver.lines() {
                let is_high = self.wires.0[line.index()].0.load(Ordering::SeqCst);
                assert!(!is_high || lines.contains(line), "a masked vector raises line {line}");
            }
        }
    }

    /// Checks that the lines' handlers dispatch each waiting vector that is not masked, once.
    fn run(&mut self) {
        let mut expected: BTreeSet<_> = self.waiting.difference(&self.masked).copied().collect();
        self.waiting.retain(|hwirq| self.masked.contains(hwirq));
        for line in 0..self.driver.lines().len() {
            let runs = (0..RUNS).take_while(|_| self.wires.takes(line)).inspect(|_| {
                let handled = self.driver.handle(line, |vector| {
                    assert!(expected.remove(&vector), "{vector} runs twice, or masked");
                });
                assert!(handled, "line {line} interrupts for nothing");
            });
            assert!(runs.count() < RUNS, "line {line} stays high");
        }
        assert_eq!(expected, BTreeSet::new(), "a message was lost");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn masked_bridge_vectors_lose_no_message_across_suspensions(steps in steps()) {
        let register = MsiGate::Register { address: GLUE + 0x510, bits: 0x8000_0010 };
        let gates = [(None, 2), (Some(MsiGate::RootPort), 1), (Some(register), 1)];
        let imsi_rx = gates.map(|(gate, lines)| {
            (BridgeKind::ImsiRx, (BridgeMsiKind::ImsiRx, Summary::Follows, gate), lines)
        });
        let mediatek = Summary::ALL.map(|summary| {
            (BridgeKind::MediatekGen3, (BridgeMsiKind::MediatekGen3, summary, None), 1)
        });
        for (kind, model, lines) in mediatek.into_iter().chain(imsi_rx) {
            let mut machine = Bridge::new(kind, model, lines);
            for step in &steps {
                machine.step(step);
            }
            for vector in 0..VECTORS {
                machine.step(&Step::Unmask(vector));
            }
            machine.step(&Step::Run);
            prop_assert_eq!(machine.hardware.mistakes() + machine.hardware.lost(), 0);
        }
    }
}

/// The first run ends after eight passes while block 1 has a message that did not set the summary,
/// because the block was never empty. A message to block 0 then does.
#[test]
fn a_run_serves_the_blocks_that_the_last_run_left() {
    for summary in Summary::ALL {
        let model = (BridgeMsiKind::MediatekGen3, summary, None);
        let mut machine = Bridge::new(BridgeKind::MediatekGen3, model, 1);
        machine.step(&Step::Send(32));
        let message = |vector: usize| machine.vectors[vector].1;
        let mut late: Vec<_> = (33..40).map(|vector| vec![message(vector)]).collect();
        late.push(vec![message(40), message(0)]);
        late.reverse();
        *machine.late.messages.lock().unwrap() = late;
        let arriving = (33..=40).chain([0]).map(|vector| machine.vectors[vector].0);
        machine.waiting.extend(arriving.collect::<Vec<_>>());
        machine.run();
    }
}

/// A message arrives while a resume acknowledges another one of its block.
#[test]
fn a_message_during_a_resume_is_not_lost() {
    for summary in Summary::ALL {
        let model = (BridgeMsiKind::MediatekGen3, summary, None);
        let mut machine = Bridge::new(BridgeKind::MediatekGen3, model, 1);
        machine.step(&Step::Send(32));
        *machine.late.messages.lock().unwrap() = vec![vec![machine.vectors[33].1]];
        machine.waiting.insert(machine.vectors[33].0);
        machine.driver.restore();
        machine.step(&Step::Send(0));
        machine.run();
    }
}

/// Performs the accesses of `docs/registers.md` for MediaTek's bridges, in Linux's order.
#[test]
fn the_order_of_linux_lowers_the_line_of_mediatek() {
    const WORD: AccessWidth = AccessWidth::Word;
    for summary in Summary::ALL {
        let wires = Arc::new(Wires::default());
        let kind = BridgeMsiKind::MediatekGen3;
        let hardware = Hardware::new(kind, vec![Line::Spi(0)], wires.clone()).with_summary(summary);
        let set_up = [(0xc00, 0x1000), (0xc80, 0), (0x190, 0xff), (0x180, 0xff00), (0xc08, 1)];
        for (offset, value) in set_up {
            hardware.write(offset, WORD, value);
        }
        hardware.take(MsiMessage { address: 0x1000, data: 0 });
        assert!(wires.takes(0));
        assert_eq!([0x184, 0xc08, 0xc04].map(|offset| hardware.read(offset, WORD)), [1 << 8, 1, 1]);
        hardware.write(0xc04, WORD, 1);
        assert_eq!(hardware.read(0xc04, WORD), 0);
        hardware.write(0x184, WORD, 1 << 8);
        assert!(!wires.takes(0), "{summary:?}");
        assert_eq!(hardware.mistakes(), 0);
    }
}

//! Changes of one command, register write or table byte of a working guest. The explanation must
//! name what was changed. `docs/no-interrupt.md` states the score.

use super::guest::{CONFIGURATION, DEVICE, EVENT, PENDING, config, mapc, mapd, mapti, propbaser};
use doorbell_test_support::guest::{COLLECTIONS, DEVICES, ITS, Machine, QUEUE};
use doorbell_test_support::{Score, other_values};
use gic_arch::gicd::{self, Irouter};
use gic_arch::gicr::{self, Pendbaser, Waker};
use gic_arch::gits::{self, Baser, Cbaser, PageSize};
use gic_arch::icc::{self, SysRegEncoding};
use gic_arch::its::{COMMAND_BYTES, Command};
use gic_arch::{Affinity, IntId, Reg, RegisterValue};
use msi_types::explain::ExplainInput;
use msi_types::{Cpu, DeviceId, Level, Line, MsiMessage, SetLine};
use std::iter;
use vgic::{AccessWidth, GuestMemory};

const DISTRIBUTOR: u64 = 0x0800_0000;
const DOORBELL: u64 = ITS + 0x1_0040;
const CWRITER: &str = "GITS_CWRITER";
const LPI: u32 = 8192;
const LEVEL: u32 = 40;
const EDGE: u32 = 41;
const TIMER: u32 = 27;
const SGI: u32 = 3;

/// An interrupt, and the vCPU that takes it.
#[derive(Clone, Copy)]
struct Interrupt {
    intid: u32,
    cpu: usize,
}

const INTERRUPTS: [Interrupt; 5] = [
    Interrupt { intid: LPI, cpu: 0 },
    Interrupt { intid: LEVEL, cpu: 1 },
    Interrupt { intid: EDGE, cpu: 0 },
    Interrupt { intid: TIMER, cpu: 1 },
    Interrupt { intid: SGI, cpu: 1 },
];

/// An act of a guest or of its device.
#[derive(Clone, Copy)]
enum Act {
    Register(u64, AccessWidth),
    System(usize, SysRegEncoding),
    Byte(u64),
    /// Writes the four words of a command to the queue.
    Command,
    /// Sends a message. The values are its address, its data, and the sender's DeviceID.
    Message,
    Line(Line, Level),
    Pulse(Line),
    Acknowledge(usize),
}

/// Words that name a step in an explanation. The first is the step's own name.
type Words = &'static [&'static str];

/// An act, and the values that it writes.
#[derive(Clone, Copy)]
struct Step {
    act: Act,
    values: [u64; 4],
    words: Words,
}

impl Step {
    /// Returns the widths of the values in bits.
    fn widths(&self) -> &'static [u32] {
        match self.act {
            Act::Register(_, AccessWidth::Double) => &[64],
            Act::Register(..) | Act::System(..) => &[32],
            Act::Byte(_) => &[8],
            Act::Command => &[64; 4],
            Act::Message => &[64, 32, 32],
            Act::Line(..) | Act::Pulse(_) | Act::Acknowledge(_) => &[],
        }
    }

    fn message(&self) -> Option<(DeviceId, MsiMessage)> {
        let [address, data, device, _] = self.values;
        let low = |value| u32::try_from(value).unwrap();
        let message = || (DeviceId::new(low(device)), MsiMessage { address, data: low(data) });
        matches!(self.act, Act::Message).then(message)
    }
}

/// The steps of a guest that configures an interrupt and takes it once, and the second signal.
struct Script {
    steps: Vec<Step>,
    /// Addresses of the distributor, of the vCPU's redistributor and of the ITS.
    frames: [u64; 3],
    interrupt: Interrupt,
}

impl Script {
    fn new(interrupt: Interrupt) -> Self {
        let redistributor = Machine::new(config()).frame(interrupt.cpu);
        let frames = [DISTRIBUTOR, redistributor, ITS];
        let mut script = Self { steps: Vec::new(), frames, interrupt };
        script.configure_cpu();
        match interrupt.intid {
            LPI => script.configure_lpi(),
            _ => script.configure_wired(),
        }
        script.signal();
        script.end();
        script.signal();
        script
    }

    fn push(&mut self, act: Act, values: [u64; 4], words: Words) {
        self.steps.push(Step { act, values, words });
    }

    /// Adds a write of a register of `frame`, an index of [`frames`](Self::frames).
    fn register<V: RegisterValue, A>(
        &mut self,
        frame: usize,
        register: Reg<V, A>,
        value: V,
        words: Words,
    ) {
        let raw: V::Raw = value.into();
        let width = AccessWidth::try_from(size_of::<V::Raw>()).unwrap();
        let address = self.frames[frame] + u64::from(register.offset());
        self.push(Act::Register(address, width), [raw.into(), 0, 0, 0], words);
    }

    fn configure_cpu(&mut self) {
        let waker = Waker::new();
        self.register(1, gicr::WAKER, waker, &["GICR_WAKER"]);
        self.register(0, gicd::CTLR, gicd::Ctlr::from(2), &["GICD_CTLR"]);
        for (register, value, words) in [
            (icc::PMR.encoding(), 0xf0, &["ICC_PMR_EL1"]),
            (icc::BPR1.encoding(), 3, &["ICC_BPR<n>_EL1"]),
            (icc::CTLR.encoding(), 0, &["ICC_CTLR_EL1"]),
            (icc::IGRPEN1.encoding(), 1, &["ICC_IGRPEN1_EL1"]),
        ] {
            self.push(Act::System(self.interrupt.cpu, register), [value, 0, 0, 0], words);
        }
    }

    fn configure_wired(&mut self) {
        let intid = IntId::new(self.interrupt.intid);
        let private = intid.is_private();
        let frame = usize::from(private);
        let edge = if self.interrupt.intid == EDGE { 2 } else { 0 };
        let steps: [(_, _, Words); 4] = [
            ([gicd::IGROUPR, gicr::IGROUPR], 1, &["GICD_IGROUPR"]),
            ([gicd::IPRIORITYR, gicr::IPRIORITYR], 0xa0, &["GICD_IPRIORITYR", "priority 0x"]),
            ([gicd::ICFGR, gicr::ICFGR], edge, &["GICD_ICFGR", "edge-triggered"]),
            ([gicd::ISENABLER, gicr::ISENABLER], 1, &["GICD_ISENABLER"]),
        ];
        for (fields, value, words) in steps {
            let place = fields[frame].locate(intid).unwrap();
            self.register(frame, place.register(), place.insert(0, value), words);
        }
        if !private {
            let cpu = self.interrupt.cpu.to_le_bytes()[0];
            let route = Irouter::to(Affinity::new(0, 0, 0, cpu));
            let register = gicd::irouter(intid).unwrap();
            self.register(0, register, route, &["GICD_IROUTER", "routed to", "target: CPU"]);
        }
    }

    fn configure_lpi(&mut self) {
        let pending = Pendbaser::new().with_address(PENDING);
        let enable = gicr::Ctlr::new().with_enable_lpis(true);
        let (its, two) = (gits::Ctlr::new().with_enabled(true), PageSize::Size64K);
        let table = Baser::new().with_page_size(two).with_valid(true);
        let [devices, collections] = [0, 1].map(|index| gits::BASER.get(index).unwrap());
        let queue = Cbaser::new().with_pages_minus_one(15).with_address(QUEUE).with_valid(true);
        self.register(1, gicr::PROPBASER, propbaser(), &["GICR_PROPBASER"]);
        self.register(1, gicr::PENDBASER, pending, &["GICR_PENDBASER"]);
        self.register(1, gicr::CTLR, enable, &["GICR_CTLR"]);
        self.register(2, devices, table.with_address(DEVICES), &["GITS_BASER0"]);
        let address = table.with_address(COLLECTIONS);
        self.register(2, collections, address, &["GITS_BASER1"]);
        self.register(2, gits::CBASER, queue, &["GITS_CBASER"]);
        self.register(2, gits::CTLR, its, &["GITS_CTLR"]);
        self.command(mapc(0, 0), &["MAPC", "0x40000000", "collection", "at CPU 1"]);
        self.command(mapd(1), &["MAPD", "0x40000020", "translation table", "EventID bits"]);
        let mapped = &["MAPTI", "0x40000040", "maps to INTID", "collection"];
        self.command(mapti(0, LPI, 0), mapped);
        self.announce(3);
        let byte = &["configuration byte", "priority 0x"];
        self.push(Act::Byte(CONFIGURATION), [0xa1, 0, 0, 0], byte);
        self.command(Command::Inv { device: DEVICE, event: EVENT }, &["INV", "0x40000060"]);
        self.announce(4);
    }

    fn command(&mut self, command: Command, words: Words) {
        self.push(Act::Command, command.encode(), words);
    }

    fn announce(&mut self, commands: u64) {
        let written = (commands * u64::from(COMMAND_BYTES)).into();
        self.register(2, gits::CWRITER, written, &[CWRITER]);
    }

    fn line(&self) -> Line {
        match self.interrupt {
            Interrupt { intid: TIMER, cpu } => {
                Line::Ppi { cpu: Cpu::new(u32::try_from(cpu).unwrap()), intid: TIMER }
            }
            Interrupt { intid, .. } => Line::Spi(intid),
        }
    }

    fn signal(&mut self) {
        let (act, values, words): (_, _, Words) = match self.interrupt.intid {
            LPI => {
                let values = [DOORBELL, EVENT.get().into(), DEVICE.get().into(), 0];
                let words = &["message", "EventID", "DeviceID", "a doorbell is at", "not pending"];
                (Act::Message, values, words)
            }
            SGI => {
                let to = icc::Sgi::to(3, Affinity::new(0, 0, 0, 1)).into_bits();
                (Act::System(0, icc::SGI1R.encoding()), [to, 0, 0, 0], &["signal", "not pending"])
            }
            EDGE => (Act::Pulse(self.line()), [0; 4], &["signal", "not pending"]),
            _ => (Act::Line(self.line(), Level::High), [0; 4], &["signal", "the line is low"]),
        };
        self.push(act, values, words);
    }

    fn end(&mut self) {
        let Interrupt { intid, cpu } = self.interrupt;
        self.push(Act::Acknowledge(cpu), [0; 4], &["ICC_IAR1_EL1"]);
        if matches!(intid, LEVEL | TIMER) {
            self.push(Act::Line(self.line(), Level::Low), [0; 4], &["line"]);
        }
        let end = Act::System(cpu, icc::EOIR1.encoding());
        self.push(end, [intid.into(), 0, 0, 0], &["ICC_EOIR1_EL1"]);
    }

    /// Returns scripts that differ from this one in one step or in the order of two, with the words
    /// that name the changed steps.
    fn changed(&self) -> impl Iterator<Item = (Vec<&'static str>, Vec<Step>)> {
        (0..self.steps.len()).flat_map(move |index| {
            let step = self.steps[index];
            let values = iter::zip(step.widths(), 0..).flat_map(move |(width, place)| {
                let other = other_values(step.values[place], *width);
                other.into_iter().map(move |value| (place, value))
            });
            let replaced = values.map(move |(place, value)| {
                let mut steps = self.steps.clone();
                steps[index].values[place] = value;
                (step.words.to_vec(), steps)
            });
            let omitted = (step.words.to_vec(), self.without(index));
            let swapped = self.steps.get(index + 1).map(|next| {
                let mut steps = self.steps.clone();
                steps.swap(index, index + 1);
                ([step.words, next.words].concat(), steps)
            });
            replaced.chain([omitted]).chain(swapped)
        })
    }

    /// Omits a step. If it is a command, the guest announces one command less.
    fn without(&self, index: usize) -> Vec<Step> {
        let mut steps = self.steps.clone();
        if matches!(steps.remove(index).act, Act::Command) {
            for announced in steps[index..].iter_mut().filter(|step| step.words == [CWRITER]) {
                announced.values[0] -= u64::from(COMMAND_BYTES);
            }
        }
        steps
    }

    /// Runs the steps on a new machine. Returns the explanation, and `true` if the vCPU can take
    /// the interrupt.
    fn run(&self, steps: &[Step]) -> (String, bool) {
        let mut machine = Machine::new(config());
        let mut queued = QUEUE;
        for step in steps {
            let values = step.values;
            match step.act {
                Act::Register(address, width) => machine.write(address, width, values[0]),
                Act::System(cpu, register) => machine.msr(cpu, register, values[0]),
                Act::Byte(address) => {
                    machine.ram.write(address, &values[0].to_le_bytes()[..1]).unwrap();
                }
                Act::Command => {
                    let image: Vec<u8> = values.into_iter().flat_map(u64::to_le_bytes).collect();
                    machine.ram.write(queued, &image).unwrap();
                    queued += u64::from(COMMAND_BYTES);
                }
                Act::Message => {
                    let (device, message) = step.message().unwrap();
                    if message.address == DOORBELL {
                        let _ = machine.send(device.get(), message.data);
                    }
                }
                Act::Line(line, level) => {
                    let _ = machine.gic.set_line(line, level);
                }
                Act::Pulse(line) => {
                    let _ = machine.gic.pulse(line);
                }
                Act::Acknowledge(cpu) => {
                    machine.acknowledge(cpu);
                }
            }
        }
        let Interrupt { intid, cpu } = self.interrupt;
        let message = steps.iter().rev().find_map(Step::message);
        let said = match message {
            Some((device, message)) => machine.gic.explain_message(Some(device), message),
            None if intid == SGI => {
                let cpu = Cpu::new(u32::try_from(cpu).unwrap());
                machine.gic.explain_interrupt(cpu, IntId::new(intid))
            }
            None => machine.gic.explain_line(self.line()),
        };
        (said.to_string(), machine.acknowledge(cpu) == u64::from(intid))
    }
}

#[test]
fn each_removed_or_changed_setup_step_is_named() {
    let mut score = Score::new("a guest of the model");
    for interrupt in INTERRUPTS {
        let script = Script::new(interrupt);
        let (working, arrives) = script.run(&script.steps);
        assert!(arrives && working.contains("no obstacle was found"), "{working}");
        for (words, steps) in script.changed() {
            match script.run(&steps) {
                (_, true) => score.add_harmless(),
                (text, false) => score.add_fault(&words, [&working, &text]),
            }
        }
    }
    score.check();
}

//! Every sequence of four operations on a wired interrupt. Sequences that acknowledge interrupts at
//! the same places are carried out together, each on an SPI and on a PPI of its own.

use super::access::Width;
use super::address_map::{
    CPUS, GICD, ICFGR, IGROUPR, IPRIORITYR, IROUTER, ISENABLER, SGI_FRAME, redistributor,
};
use super::compare::play;
use super::peer::Peer;
use super::run::Finding;
use super::step::Step;
use anyhow::Result;
use std::collections::BTreeMap;

const LENGTH: usize = 4;
/// Maximum number of sequences that are carried out together: the number of PPIs of all CPUs.
const TOGETHER: usize = (PPIS * CPUS) as usize;
const PPIS: u16 = 16;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const ISACTIVER: u64 = 0x300;
const ICACTIVER: u64 = 0x380;

/// An operation on an interrupt. If an operation that changes a level or a configuration occurs
/// again in a sequence, it changes it back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Line,
    /// Disables an enabled interrupt meanwhile, as `GICD_ICFGR<n>` requires.
    Trigger,
    Enable,
    Group,
    Priority,
    Route,
    /// Writes 1 to the interrupt's bit of this array.
    Bit(u64),
    /// All CPUs acknowledge interrupts.
    Acknowledge,
}

const OPERATIONS: [Operation; 11] = [
    Operation::Line,
    Operation::Trigger,
    Operation::Enable,
    Operation::Group,
    Operation::Priority,
    Operation::Route,
    Operation::Bit(ISPENDR),
    Operation::Bit(ICPENDR),
    Operation::Bit(ISACTIVER),
    Operation::Bit(ICACTIVER),
    Operation::Acknowledge,
];

type Sequence = [Operation; LENGTH];

/// Compares the machines after each operation of every sequence. Returns the number of sequences
/// that agree.
///
/// # Errors
/// Returns an error if a machine has exited.
pub fn sequences(model: &mut dyn Peer, qemu: &mut dyn Peer) -> Result<Finding> {
    let mut all: BTreeMap<[bool; LENGTH], Vec<Sequence>> = BTreeMap::new();
    for number in 0..OPERATIONS.len().pow(4) {
        let count = OPERATIONS.len();
        let sequence = [3, 2, 1, 0].map(|place| OPERATIONS[number / count.pow(place) % count]);
        let places = sequence.map(|operation| operation == Operation::Acknowledge);
        all.entry(places).or_default().push(sequence);
    }
    let mut agreed = 0;
    for together in all.values().flat_map(|all| all.chunks(TOGETHER)) {
        let Some(mismatch) = play(&steps(together), model, qemu)? else {
            agreed += u32::try_from(together.len())?;
            continue;
        };
        // A single sequence that differs makes a shorter script.
        for sequence in together {
            if let Some(mismatch) = play(&steps(&[*sequence]), model, qemu)? {
                return Ok(Finding { agreed, mismatch: Some(mismatch) });
            }
        }
        return Ok(Finding { agreed, mismatch: Some(mismatch) });
    }
    Ok(Finding { agreed, mismatch: None })
}

/// Returns the steps that carry out sequences together.
fn steps(together: &[Sequence]) -> Vec<Step> {
    let mut registers = BTreeMap::new();
    let mut steps = vec![Step::Deliver { lpis: 1 }];
    steps.extend([IGROUPR, ISENABLER].map(|array| store(GICD + array + 8, u32::MAX.into())));
    for place in 0..LENGTH {
        for (number, sequence) in (0..).zip(together) {
            for interrupt in interrupts(number) {
                steps.extend(interrupt.steps(&sequence[..=place], &mut registers));
            }
        }
        if together[0][place] == Operation::Acknowledge {
            steps.extend((0..CPUS).map(|cpu| Step::Acknowledge { cpu }));
        }
        let private = (0..CPUS).map(|cpu| redistributor(cpu) + SGI_FRAME);
        let words = [GICD + 4, GICD + 8].into_iter().chain(private);
        let states = words.flat_map(|at| [at + ISPENDR, at + ISACTIVER]);
        steps.extend(states.map(|at| Step::Load { at, width: Width::Word }));
    }
    steps
}

/// Returns the SPI and the PPI on which the sequence with this number is carried out.
fn interrupts(number: u16) -> [Interrupt; 2] {
    let (cpu, ppi) = (number / PPIS, PPIS + number % PPIS);
    let frame = redistributor(cpu) + SGI_FRAME;
    [
        Interrupt { frame: GICD, intid: 32 + u64::from(number), input: number },
        Interrupt { frame, intid: ppi.into(), input: 256 + 32 * cpu + ppi },
    ]
}

const fn store(at: u64, value: u64) -> Step {
    Step::Store { at, width: Width::Word, value }
}

struct Interrupt {
    frame: u64,
    intid: u64,
    /// Number of the input in the protocol.
    input: u16,
}

impl Interrupt {
    /// Returns the steps of the last operation of a sequence. `registers` holds the values of
    /// registers with fields of several interrupts.
    fn steps(&self, sequence: &[Operation], registers: &mut BTreeMap<u64, u64>) -> Vec<Step> {
        let is_odd = |operation| sequence.iter().filter(|it| **it == operation).count() % 2 == 1;
        let Some(&operation) = sequence.last() else { return Vec::new() };
        let on = is_odd(operation);
        let bit = 1 << (self.intid % 32);
        let write = |array| store(self.frame + array + self.intid / 32 * 4, bit);
        let mut flip = |at, from, mask| {
            let value = registers.entry(at).or_insert(from);
            *value ^= mask;
            store(at, *value)
        };
        match operation {
            Operation::Line => vec![Step::Line { input: self.input, level: on.into() }],
            Operation::Trigger => {
                let word = self.frame + ICFGR + self.intid / 16 * 4;
                let enable = if is_odd(Operation::Enable) { ICENABLER } else { ISENABLER };
                vec![write(ICENABLER), flip(word, 0, 2 << (self.intid % 16 * 2)), write(enable)]
            }
            Operation::Enable => vec![write(if on { ICENABLER } else { ISENABLER })],
            Operation::Group => {
                let word = self.frame + IGROUPR + self.intid / 32 * 4;
                vec![flip(word, u32::MAX.into(), bit)]
            }
            Operation::Priority => {
                let value = if on { 0x40 } else { 0 };
                let at = self.frame + IPRIORITYR + self.intid;
                vec![Step::Store { at, width: Width::Byte, value }]
            }
            Operation::Route if self.frame == GICD => {
                let at = GICD + IROUTER + 8 * self.intid;
                vec![Step::Store { at, width: Width::Double, value: on.into() }]
            }
            Operation::Bit(array) => vec![write(array)],
            Operation::Route | Operation::Acknowledge => Vec::new(),
        }
    }
}

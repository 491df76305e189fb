//! Attacks on the messages of the guest's PCI functions with MSI-X: their vectors, their events and
//! the controllers change all the time. A hypervisor that injects the messages directly must follow
//! each change of each event.

use crate::commands::{self, INVALL, Ring, VALID, Words};
use crate::device::{self, COMMAND, ECAM, FUNCTIONS, MEMORY_AND_MASTER};
use crate::machine::{self, ITS, Layout};
use crate::random::Random;
use crate::turns::Turns;
use gic_arch::gits;

/// Pointer to the first capability, and the ID of MSI-X (PCI Local Bus 3.0 §6.7, §6.8.2).
const CAPABILITIES: u64 = 0x34;
const MSIX: u64 = 0x11;
/// MSI-X Enable, in the word of the capability's ID.
const ENABLE: u64 = 1 << 31;
const ENTRY_BYTES: u64 = 16;
const CONTROL: u64 = 12;
/// First LPI of the events, which no other guest of the suite uses.
const LPI: u64 = 1000;
/// Size of a command queue, and of the part that maps all events and changes them.
const QUEUE_BYTES: u64 = 0x4000;
const PERIOD: u64 = 256;

/// A function with MSI-X.
struct Function {
    configuration: u64,
    device: u64,
    capability: u64,
    vectors: u64,
    table: u64,
}

impl Function {
    /// Finds the function, places its memory, and enables its messages.
    fn find() -> Self {
        let mut all = (0..FUNCTIONS).map(|function| (function, ECAM + (function << 12)));
        let with_msix =
            |(device, configuration)| Some((device, configuration, msix(configuration)?));
        let (device, configuration, capability) =
            all.find_map(with_msix).expect("the guest has no function with MSI-X");
        let region = device::enable(configuration);
        let [head, table] = [0, 4].map(|at| u64::from(device::read(capability + at)));
        assert_eq!(table & 7, 0, "the table must be in the first BAR");
        let (vectors, table) = ((head >> 16 & 0x7ff) + 1, region + (table & !7));
        let found = Self { configuration, device, capability, vectors, table };
        (0..vectors).for_each(|vector| found.set(vector, vector, false));
        machine::write(capability, 4, head | ENABLE);
        found
    }

    /// Writes a vector's message, and masks or unmasks the vector.
    fn set(&self, vector: u64, event: u64, is_masked: bool) {
        let entry = self.table + vector * ENTRY_BYTES;
        let doorbell = ITS + u64::from(gits::TRANSLATER.offset());
        for (at, value) in [(0, doorbell), (4, 0), (8, event), (CONTROL, is_masked.into())] {
            machine::write(entry + at, 4, value);
        }
    }

    /// Returns a random command for the function's events.
    fn any_command(&self, random: &mut Random) -> Words {
        let event = random.below(self.vectors);
        let (device, collection) = (self.device << 32, random.below(2));
        match random.below(64) {
            0 => commands::movall(0, 1),
            1 => commands::movall(1, 0),
            2 => commands::mapc(collection, 0),
            // The collection is unmapped.
            3 => [0x09, 0, collection, 0],
            4 => INVALL,
            5..8 => commands::mapti(self.device, event, LPI + random.below(self.vectors)),
            8..12 => [0x0f | device, event, 0, 0],
            12..24 => [0x01 | device, event, collection, 0],
            24..28 => [0x04 | device, event, 0, 0],
            28..40 => [0x0c | device, event, 0, 0],
            _ => commands::int(self.device, event),
        }
    }

    /// Fills the queue with periods that map the device and all events, change them, and unmap the
    /// device.
    fn fill(&self, layout: Layout, random: &mut Random) -> Ring {
        Ring::fill(layout, QUEUE_BYTES, |slot| match slot % PERIOD {
            0 => commands::mapd(self.device, 16, VALID),
            slot if slot < 3 => commands::mapc(slot - 1, 0),
            slot if slot < self.vectors + 3 => {
                commands::mapti(self.device, slot - 3, LPI + slot - 3)
            }
            slot if slot == PERIOD - 1 => commands::mapd(self.device, 16, 0),
            _ => self.any_command(random),
        })
    }
}

/// Returns the address of a function's MSI-X capability.
fn msix(configuration: u64) -> Option<u64> {
    /// Number of capabilities that fit into the first 256 bytes.
    const MOST: usize = 48;
    let byte = |at: u64| machine::read(configuration + at, 1) & 0xff;
    if device::read(configuration) == u32::MAX {
        return None;
    }
    let next = |at: &u64| Some(byte(at + 1)).filter(|next| *next != 0);
    let first = Some(byte(CAPABILITIES)).filter(|first| *first != 0);
    let mut all = core::iter::successors(first, next).take(MOST);
    all.find(|at| byte(*at) == MSIX).map(|at| configuration + at)
}

/// Changes single events by commands, single vectors by the function's table, and all of them by
/// the controllers' enable bits.
pub(crate) fn attack(turns: &mut Turns) {
    let layout = Layout::apart();
    let mut random = Random::here();
    commands::enable(layout, QUEUE_BYTES);
    let function = Function::find();
    let ring = function.fill(layout, &mut random);
    while turns.next() {
        ring.turn(&mut Turns::until(1));
        for _ in 0..16 {
            let [vector, event] = [(); 2].map(|()| random.below(function.vectors));
            function.set(vector, event, random.below(2) == 0);
        }
        match random.below(4) {
            0 => [false, true].map(|are_enabled| machine::set_lpis(layout, are_enabled)),
            1 => [0, 1].map(|value| machine::write_its(gits::CTLR.offset(), value)),
            2 => [0, ENABLE].map(|value| machine::write(function.capability, 4, value)),
            _ => [0, MEMORY_AND_MASTER]
                .map(|value| machine::write(function.configuration + COMMAND, 2, value)),
        };
    }
}

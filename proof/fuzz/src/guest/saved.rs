//! Saves and restores the guest's machine, from the saved state or a damaged one.

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use vgic::saved_state::SavedState;

use super::Guest;

/// A change to a saved state's bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Damage {
    /// Flips bits of a byte.
    Flip { at: u16, bits: u8 },
    /// Removes a byte.
    Drop { at: u16 },
    /// Inserts a byte.
    Insert { at: u16, byte: u8 },
    /// Copies bytes from elsewhere.
    Copy { from: u16, to: u16, count: u8 },
}

impl Damage {
    /// Returns the state described by its damaged bytes, if they are valid.
    pub fn to(self, state: &SavedState) -> Option<SavedState> {
        let mut bytes = postcard::to_allocvec(state).expect("the state fits into memory");
        self.inflict(&mut bytes);
        postcard::from_bytes(&bytes).ok()
    }

    fn inflict(self, bytes: &mut Vec<u8>) {
        let place = |at: u16| usize::from(at) % bytes.len().max(1);
        match self {
            _ if bytes.is_empty() => {}
            Self::Flip { at, bits } => {
                let at = place(at);
                bytes[at] ^= bits;
            }
            Self::Drop { at } => drop(bytes.remove(place(at))),
            Self::Insert { at, byte } => bytes.insert(place(at), byte),
            Self::Copy { from, to, count } => {
                let (from, to) = (place(from), place(to));
                let end = (from + usize::from(count)).min(bytes.len()).min(bytes.len() - to + from);
                bytes.copy_within(from..end, to);
            }
        }
    }
}

impl Guest {
    /// Saves the machine and restores it from the bytes. The machine must be unchanged afterwards.
    pub fn migrate(&mut self) {
        let saved = self.machine.save();
        let bytes = postcard::to_allocvec(&saved).expect("the state fits into memory");
        let received = postcard::from_bytes(&bytes).expect("the bytes were not damaged");
        self.machine.restore(&received);
        assert_eq!(self.machine.save(), saved);
    }

    /// Restores the machine from damaged bytes. Afterwards, the machine must either be unchanged,
    /// or it must be possible to save and restore it again, and its guest must be able to continue.
    pub fn restore_damaged(&mut self, damages: &[Damage]) {
        let before = self.machine.save();
        let mut bytes = postcard::to_allocvec(&before).expect("the state fits into memory");
        damages.iter().for_each(|damage| damage.inflict(&mut bytes));
        let Ok(damaged) = postcard::from_bytes::<SavedState>(&bytes) else { return };
        match self.machine.try_restore(&damaged) {
            Ok(()) => self.migrate(),
            Err(refused) => assert_eq!(self.machine.save(), before, "{refused}"),
        }
        self.go_on();
    }

    /// Acknowledges pending interrupts, and lets the queue continue.
    fn go_on(&mut self) {
        for cpu in (0..self.machine.vcpus.len()).flat_map(|cpu| [cpu; 64]) {
            self.machine.handle(cpu);
        }
        _ = self.machine.gic.poll();
    }
}
